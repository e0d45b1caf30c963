"""The driver: waits for the server, loads or seeds the state, searches, saves, and writes the labels."""

import asyncio
import json
import logging
import os
import platform
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np

from . import connect, export, prompts, shard, tasks
from .client import Client, all_of
from .config import Config
from .core import forecast
from .core.forecast import Cost
from .core.layout import LAYOUTS
from .core.types import Problem, StepInfo
from .engines.vllm import Metrics
from .errors import ScoringError, ServerError
from .prompts import Prompts, TokenPrompts
from .rundir import RunDir, ServerExit, write_atomically
from .scorer import Work
from .shard import Shard, Surroundings
from .tasks import Task

LAST_WORDS_S = 10.0  # how long a server that stopped answering has to leave its exit record

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, for whoever watches; sums over its searches."""

    step: int
    steps: int
    pool: int
    examples: int
    counts: tuple[int, ...]  # examples of each label
    energy: float  # mean over the searches that have begun
    flips: int
    waits: int  # for answers, since this start
    waiting_s: float  # summed over the searches


Watch = Callable[[Progress], None]


class Interrupted(Exception):  # noqa: N818
    """The run was told to stop, and its state is saved; not an error."""


async def run(config: Config, run_dir: RunDir, *, attempt: str, stop: asyncio.Event, watch: Watch) -> dict[str, Any]:
    """Search from the saved state, or from the seeds, to the end; return the summary, as summary.json holds it.

    Raises Interrupted once `stop` is set and the state is saved, and IcmError for what the user must see to.
    """
    with run_dir.held(f"attempt {attempt} on {socket.gethostname()}, process {os.getpid()}"):
        record_attempt(run_dir, attempt)
        return await _run(config, run_dir, attempt, stop, watch)


async def _run(config: Config, run_dir: RunDir, attempt: str, stop: asyncio.Event, watch: Watch) -> dict[str, Any]:
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
        # A server that is told to stop with us answers oddly; a state that could not be saved is told of in any case.
        if failure and not (isinstance(failure, ServerError) or (stopped.done() and isinstance(failure, ScoringError))):
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
    work = Work()
    before = await client.metrics()
    shards = await _shards(config, task, client, before.block_size or 1)
    _warn_of_small_cache(config, shards, before)
    searches = min(config.search.parallel_searches, len(shards) * config.search.restarts)
    around = Surroundings(client, work, searches, asyncio.Semaphore(searches), _reporter(config, shards, work, watch))
    outcomes = await all_of(shard.label(config, run_dir, one, around) for one in shards)
    export.write_labels(run_dir.labels, task, [outcome.labelled for outcome in outcomes])
    after = await client.metrics()
    alpha = config.search.alpha
    described = [shard.describe(outcome, one.problem, alpha) for outcome, one in zip(outcomes, shards, strict=True)]
    for number, figures in enumerate(described):
        if not figures["beats_one_label_for_all"]:
            log.warning("%s", shard.NO_BETTER_THAN_ONE_LABEL.format(number=number, **figures))
    since_start = {
        **asdict(work),
        **asdict(client.traffic),
        "server_prompt_tokens": after.prompt_tokens - before.prompt_tokens,
        "server_computed_tokens": after.computed_tokens - before.computed_tokens,
    }
    summary = _summary(config, described, since_start)
    write_atomically(run_dir.summary, json.dumps(summary, indent=2).encode())
    return summary


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


async def _shards(config: Config, task: Task, client: Client, block_size: int) -> list[Shard]:
    """Return the task's shards; raises FitError if one does not fit the model's context."""
    context = await client.max_model_len()
    made = []
    for number, part in enumerate(tasks.shards(task, config.search.pool_size)):
        tokens = await prompts.of_tokens(client, part)
        prompts.require_fit(tokens, context)
        written: Prompts = tokens
        if config.search.scoring == "top20":
            written = prompts.of_text(part, tokens.demonstration_tokens)
        problem = part.problem()
        made.append(Shard(number, part, problem, written, _cost(config, tokens, problem, block_size)))
    return made


def _cost(config: Config, tokens: TokenPrompts, problem: Problem, block_size: int) -> Cost:
    """Forecast one scoring of all examples of a shard."""
    everything = np.arange(problem.n)
    layout = LAYOUTS[config.search.layout]
    queries = layout(everything, everything, problem.groups, tokens.demonstration_tokens, "eval")
    return forecast.cost(queries, tokens.lengths, block_size)


def _warn_of_small_cache(config: Config, shards: Sequence[Shard], metrics: Metrics) -> None:
    """Say what it costs if the server's prefix cache cannot hold what the searches that run together share."""
    if metrics.cache_tokens is None:
        return
    together = sorted((one.cost for one in shards), key=lambda cost: -cost.held_tokens)
    together = (together * config.search.restarts)[: config.search.parallel_searches]
    wanted = sum(cost.held_tokens for cost in together)
    if wanted > metrics.cache_tokens:
        log.warning(
            "the server's cache holds %d tokens, and scorings that run together want %d: each will be computed anew (%d"
            " tokens) where a larger cache would keep what a changed label leaves as it was; set"
            " search.parallel_searches=1, a smaller search.pool_size, or give the server more memory",
            *(metrics.cache_tokens, wanted, max(cost.computed_tokens for cost in together)),
        )


def _reporter(
    config: Config, shards: Sequence[Shard], work: Work, watch: Watch
) -> Callable[[int, int, StepInfo], None]:
    """Return what turns the steps of all searches into one progress."""
    last: dict[tuple[int, int], StepInfo] = {}

    def report(number: int, restart: int, info: StepInfo) -> None:
        last[number, restart] = info
        latest = list(last.values())
        watch(
            Progress(
                step=sum(info.step for info in latest),
                steps=config.search.steps * len(shards) * config.search.restarts,
                pool=sum(info.pool for info in latest),
                examples=sum(one.problem.n for one in shards) * config.search.restarts,
                counts=tuple(map(sum, zip(*(info.counts for info in latest), strict=True))),
                energy=sum(info.energy for info in latest) / len(latest),
                flips=sum(info.flips for info in latest),
                waits=work.waits,
                waiting_s=work.waiting_s,
            )
        )

    return report


def _summary(config: Config, shards: Sequence[dict[str, Any]], since_start: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a run; `since_start` counts what this start of it did, all measured."""

    def total(key: str) -> Any:
        return sum(figures[key] for figures in shards)

    examples = total("examples")
    words = shards[0]["label_counts"]
    return {
        "task": config.task.name,
        "model": config.model.name,
        "protocol": config.search.protocol,
        "seed": config.search.seed,
        "examples": examples,
        "labelled_by_search": total("labelled_by_search"),
        "labelled_by_completion": examples - total("labelled_by_search"),
        "label_counts": {word: sum(figures["label_counts"][word] for figures in shards) for word in words},
        "energy": total("energy") / len(shards),  # mean over shards
        "conflicts": total("conflicts"),
        "steps": total("steps"),
        "flips": total("flips"),
        "shards": shards,
        "since_start": since_start,
    }
