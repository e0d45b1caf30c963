"""The driver: waits for the server, loads or seeds the state, searches, saves, and writes the labels."""

import asyncio
import json
import logging
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from . import checkpoint, connect, export, tasks
from .checkpoint import Trace
from .client import Client
from .config import Config, SearchConfig, fingerprint
from .core import pool, search
from .core.types import UNLABELLED, Labels, Problem, RandomDraws, Scores, Settings, State, StepInfo
from .errors import ServerError
from .rundir import RunDir, ServerExit, write_atomically
from .scorer import Scorer, prompt_parts, require_fit
from .tasks import Task

R = TypeVar("R")
SHARD = 0
LAST_WORDS_S = 10.0  # how long a server that stopped answering has to leave its exit record

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search is, for whoever watches."""

    step: int
    steps: int
    pool: int
    examples: int
    energy: float
    flips: int
    scorings: int
    scoring_s: float  # spent waiting for answers since this start


Watch = Callable[[Progress], None]


class Interrupted(Exception):  # noqa: N818
    """The run was told to stop, and its state is saved; not an error."""


async def run(config: Config, run_dir: RunDir, *, attempt: str, stop: asyncio.Event, watch: Watch) -> dict[str, Any]:
    """Search from the saved state, or from the seeds, to the end; return the summary, as summary.json holds it.

    Raises Interrupted once `stop` is set and the state is saved, and IcmError for what the user must see to.
    """
    record_attempt(run_dir, attempt)
    work = asyncio.ensure_future(_work(config, run_dir, attempt, watch))
    server_end = asyncio.ensure_future(connect.server_end(run_dir, attempt))
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([work, server_end, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done() and (server_end.done() or _failed_to_reach_server(work)):
            await _hear_why(server_end, stopped)
        work.cancel()
        await asyncio.wait([work])
        failure = None if work.cancelled() else work.exception()
        if not work.cancelled() and failure is None:
            return work.result()
        if failure and not isinstance(failure, ServerError):
            raise failure
        if stopped.done():
            raise Interrupted
        raise connect.obituary(run_dir, server_end.result()) if server_end.done() else failure or Interrupted
    finally:
        for pending in (work, server_end, stopped):
            pending.cancel()
        await asyncio.gather(work, server_end, stopped, return_exceptions=True)


def _failed_to_reach_server(work: "asyncio.Future[dict[str, Any]]") -> bool:
    return work.done() and not work.cancelled() and isinstance(work.exception(), ServerError)


async def _hear_why(server_end: "asyncio.Future[ServerExit]", stopped: "asyncio.Future[Any]") -> None:
    """Wait for the exit record of a server that no longer answers and, if it was told to stop, for our own signal."""
    either: list[asyncio.Future[Any]] = [server_end, stopped]
    await asyncio.wait(either, timeout=LAST_WORDS_S, return_when=asyncio.FIRST_COMPLETED)
    if server_end.done() and server_end.result().told_to_stop:
        await asyncio.wait([stopped], timeout=LAST_WORDS_S)


async def label(config: Config, run_dir: RunDir, client: Client, watch: Watch) -> dict[str, Any]:
    """Search with a server that is ready, write labels.jsonl and summary.json, and return the summary."""
    task = tasks.load(config.task, seed=config.search.seed)
    problem = task.problem()
    parts = await prompt_parts(client, task)
    require_fit(parts, await client.max_model_len())
    scorer = Scorer(client, parts, problem, config.search.layout)
    before = await client.counters()
    state = await _search(config, run_dir, task, problem, scorer, watch)
    labels, scores = await answered(search.complete(problem, state), scorer)
    export.write_labels(run_dir.labels, task, state.labels, labels, scores)
    served = {name: count - before[name] for name, count in (await client.counters()).items()}
    summary = _summary(config, task, problem, state, labels, scores, scorer, served)
    write_atomically(run_dir.summary, json.dumps(summary, indent=2).encode())
    return summary


async def answered(asking: search.Asking[R], scorer: Scorer) -> R:
    """Answer all that a search asks, and return what it returns."""
    try:
        ask = next(asking)
        while True:
            ask = asking.send(await scorer.answer(ask))
    except StopIteration as end:
        result: R = end.value
        return result


def settings_of(config: SearchConfig) -> Settings:
    """Return the annealing's parameters."""
    names = Settings.__dataclass_fields__
    return Settings(**{name: getattr(config, name) for name in names})


def record_attempt(run_dir: RunDir, attempt: str) -> None:
    """Add this start to provenance.json."""
    known = json.loads(run_dir.provenance.read_text()) if run_dir.provenance.exists() else {"attempts": []}
    versions = {name: metadata.version(name) for name in ("icm-hpc", "numpy", "h5py", "aiohttp", "submitit")}
    start = {"attempt": attempt, "driver_host": socket.gethostname(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    known["attempts"].append({**start, "python": platform.python_version(), "versions": versions})
    write_atomically(run_dir.provenance, json.dumps(known, indent=2).encode())


async def _work(config: Config, run_dir: RunDir, attempt: str, watch: Watch) -> dict[str, Any]:
    async with connect.connected(config, run_dir, attempt) as client:
        return await label(config, run_dir, client, watch)


async def _search(config: Config, run_dir: RunDir, task: Task, problem: Problem, scorer: Scorer, watch: Watch) -> State:
    """Take the state through the steps that are left; it is saved on a timer and however this ends."""
    folder, mark = run_dir.shard(SHARD), fingerprint(config, task.sha256())
    folder.mkdir(exist_ok=True)
    saved = checkpoint.load(folder, mark)
    if saved:
        log.info("resuming at step %d of %d", saved.state.step, config.search.steps)
    state: State | None = saved.state if saved else None
    kept, saved_at = state, time.monotonic()
    with Trace(folder, saved) as trace:
        try:
            while state is None or state.step < config.search.steps:
                after, info = await answered(_next(problem, config.search, state), scorer)
                trace.append(info)
                state = after
                watch(_progress(config, problem, info, scorer))
                if time.monotonic() - saved_at >= config.run.save_interval_s:
                    checkpoint.save(folder, state, trace, mark)
                    kept, saved_at = state, time.monotonic()
        finally:
            if state is not None and state is not kept:
                checkpoint.save(folder, state, trace, mark)
    return state


def _next(problem: Problem, config: SearchConfig, state: State | None) -> search.Asking[tuple[State, StepInfo]]:
    settings, number = settings_of(config), 0 if state is None else state.step + 1
    draws = RandomDraws.of(config.seed, SHARD, number)
    return search.seed(problem, settings, draws) if state is None else search.step(problem, settings, state, draws)


def _progress(config: Config, problem: Problem, info: StepInfo, scorer: Scorer) -> Progress:
    return Progress(
        step=info.step,
        steps=config.search.steps,
        pool=info.pool,
        examples=problem.n,
        energy=info.energy,
        flips=info.flips,
        scorings=scorer.work.scorings,
        scoring_s=scorer.work.scoring_s,
    )


def _summary(
    config: Config,
    task: Task,
    problem: Problem,
    state: State,
    labels: Labels,
    scores: Scores,
    scorer: Scorer,
    served: dict[str, float],
) -> dict[str, Any]:
    """Return the figures of a run; `since_start` counts what this start of it did, all measured."""
    margins: npt.NDArray[np.float64] = pool.margins(scores, labels)
    return {
        "task": task.name,
        "model": config.model.name,
        "seed": config.search.seed,
        "layout": config.search.layout,
        "examples": problem.n,
        "labelled_by_search": int(np.sum(state.labels != UNLABELLED)),
        "labelled_by_completion": int(np.sum(state.labels == UNLABELLED)),
        "label_counts": {word.strip(): int(np.sum(labels == i)) for i, word in enumerate(task.label_words)},
        "steps": state.step,
        "flips": state.flips,
        "energy": state.energy,
        "conflicts": len(pool.broken(problem, labels)),
        "mean_margin": float(np.mean(margins)),
        "since_start": {
            **asdict(scorer.work),
            **asdict(scorer.traffic),
            "server_prompt_tokens": served.get("prompt_tokens"),
            "server_cached_tokens": served.get("cached_tokens"),
        },
    }
