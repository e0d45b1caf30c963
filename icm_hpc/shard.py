"""One shard: its searches, each from its saved state or from the seeds to the last step, and the labels of the best."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from . import checkpoint
from .checkpoint import Trace
from .client import all_of
from .config import Config, SearchConfig
from .core import pool, search
from .core.types import Evaluation, Labelling, Problem, RandomDraws, Settings, State, StepInfo, pool_of
from .export import Labelled
from .fingerprint import fingerprint
from .rundir import RunDir
from .scorer import Scorer
from .tasks import Task

R = TypeVar("R")

WARNING = (
    "shard {number}: the labelling found (energy {energy:.3f}, {conflicts} conflicts) is no better than one label for all"
    " examples ({one_label_for_all}): do not trust it. The task may need a conflict rule, the search a smaller alpha, more"
    " steps or restarts; or the model cannot tell these labels apart"
)
ENGINE_NOISE = 1e-4  # by which one log-probability may differ between two requests; nats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shard:
    """Examples that are searched together."""

    number: int
    task: Task
    problem: Problem
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a shard ended."""

    labelled: Labelled
    state: State  # of the search that was best
    final: Labelling  # of that state, the one that is the result
    restart: int
    uniform: tuple[Evaluation, ...]  # of one label for the whole pool, by label


Report = Callable[[int, int, StepInfo], None]  # shard, restart, and what its last step did


async def label(config: Config, run_dir: RunDir, shard: Shard, slots: asyncio.Semaphore, report: Report) -> Outcome:
    """Search `search.restarts` times, each within one of `slots`, and label every example by the best that was found."""

    async def one(restart: int) -> State:
        async with slots:
            return await _search(config, run_dir, shard, restart, report)

    states = await all_of([one(restart) for restart in range(config.search.restarts)])
    finals = [state.best if config.search.result == "best" else state.current for state in states]
    # Energies of pools of different sizes do not compare.
    restart = max(range(len(finals)), key=lambda r: (len(pool_of(finals[r].labels)), finals[r].energy))
    final = finals[restart]
    labels, scores = await answered(search.complete(shard.problem, final), shard.scorer)
    uniform = search.uniform(shard.problem, settings_of(config.search), final.labels)
    return Outcome(
        labelled=Labelled(shard.task, final.labels, labels, scores),
        state=states[restart],
        final=final,
        restart=restart,
        uniform=await answered(uniform, shard.scorer),
    )


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


async def _search(config: Config, run_dir: RunDir, shard: Shard, restart: int, report: Report) -> State:
    """Take the state through the steps that are left; it is saved on a timer and however this ends."""
    folder, mark = run_dir.shard(shard.number, restart), fingerprint(config, shard.task.sha256())
    folder.mkdir(exist_ok=True)
    saved = checkpoint.load(folder, mark)
    if saved:
        log.info("%s: resuming at step %d of %d", folder.name, saved.state.step, config.search.steps)
    state: State | None = saved.state if saved else None
    kept, saved_at = state, time.monotonic()
    with Trace(folder, saved) as trace:
        try:
            while state is None or state.step < config.search.steps:
                after, info = await answered(_next(config.search, shard, restart, state), shard.scorer)
                trace.append(info)
                state = after
                report(shard.number, restart, info)
                if time.monotonic() - saved_at >= config.run.save_interval_s:
                    checkpoint.save(folder, state, trace, mark)
                    kept, saved_at = state, time.monotonic()
        finally:
            if state is not None and state is not kept:
                checkpoint.save(folder, state, trace, mark)
    return state


def _next(
    config: SearchConfig, shard: Shard, restart: int, state: State | None
) -> search.Asking[tuple[State, StepInfo]]:
    number = 0 if state is None else state.step + 1
    draws = RandomDraws.of(config.seed + restart, shard.number, number)
    settings = settings_of(config)
    if state is None:
        return search.seed(shard.problem, settings, draws)
    return search.step(shard.problem, settings, state, draws)


def describe(outcome: Outcome, problem: Problem, alpha: float) -> dict[str, Any]:
    """Return the figures of a shard, as summary.json holds them."""
    counts = pool.counts(outcome.labelled.labels, problem.n_labels)
    words = [word.strip() for word in outcome.labelled.task.label_words]
    energy, broken = outcome.final.energy, len(pool.broken(problem, outcome.final.labels))
    uniform = [{"energy": one.labelling.energy, "conflicts": len(one.broken)} for one in outcome.uniform]
    return {
        "examples": problem.n,
        "labelled_by_search": len(pool_of(outcome.final.labels)),
        "label_counts": dict(zip(words, counts, strict=True)),
        "label_entropy": pool.entropy(counts),
        "energy": energy,
        "last_energy": outcome.state.current.energy,
        "conflicts": len(pool.broken(problem, outcome.labelled.labels)),
        "one_label_for_all": dict(zip(words, uniform, strict=True)),
        "beats_one_label_for_all": all(
            broken < one["conflicts"] or energy > one["energy"] + alpha * ENGINE_NOISE for one in uniform
        ),
        "steps": outcome.state.step,
        "flips": outcome.state.flips,
        "restart": outcome.restart,
    }
