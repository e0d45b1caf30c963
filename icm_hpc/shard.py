"""One shard: its searches, each from its saved state or from the seeds to the last step, and the labels of the best."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from . import checkpoint
from .checkpoint import Saved, Trace
from .client import Client, all_of
from .core import pool, search
from .core.forecast import Cost
from .core.types import Ask, Evaluation, Labelling, Problem, RandomDraws, Settings, State, StepInfo, pool_of
from .errors import ScoringError
from .export import Labelled
from .fingerprint import fingerprint
from .lock import Lock
from .prompts import Prompts
from .rundir import RunDir
from .scorer import Scorer, Work
from .settings import Config, SearchConfig
from .tasks import Task

R = TypeVar("R")
Answers = TypeVar("Answers")

NO_BETTER_THAN_ONE_LABEL = (
    "shard {number}: the labelling found (energy {energy:.3f}, {conflicts} conflicts) is no better than one label for all"
    " examples ({one_label_for_all}): do not trust it. The task may need a conflict rule, the search a smaller alpha, more"
    " steps or restarts; or the model cannot tell these labels apart"
)
ABANDONED_IN_A_ROW = 5  # proposals; more is no accident
SYSTEMATIC = "{} proposals in a row could not be scored, up to step {}: see the log for what the server answered"
ENGINE_NOISE = 1e-4  # by which one log-probability may differ between two requests; nats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shard:
    """Examples that are searched together."""

    number: int
    task: Task
    problem: Problem
    prompts: Prompts
    cost: Cost  # forecast, of one scoring of all examples
    longest: int  # tokens of a prompt with all examples, and the one that is generated
    label_ids: tuple[int, ...]  # by label

    def scorer(self, client: Client, config: SearchConfig, work: Work, saved: Saved | None) -> Scorer:
        """Return what answers one search of this shard, with what it had remembered."""
        return Scorer(
            client,
            self.prompts,
            self.problem,
            config.layout,
            memo_bytes=int(config.memo_mb * 1e6),
            remembered=saved.memo if saved else None,
            work=work,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a shard ended."""

    labelled: Labelled
    state: State  # of the search that was best
    final: Labelling  # of that state, the one that is the result
    restart: int
    uniform: tuple[Evaluation, ...]  # of one label for the whole pool, by label


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the searches of a run share."""

    client: Client
    work: Work
    searches: int  # that run at a time, at most
    slots: asyncio.Semaphore  # as many
    report: Callable[[int, int, StepInfo], None]  # of a shard and a restart, what the last step did
    held: Lock | None = None  # nothing is saved once it is no longer ours


async def label(config: Config, run_dir: RunDir, shard: Shard, around: Surroundings) -> Outcome:
    """Search `search.restarts` times, and label every example by the best that was found."""

    async def one(restart: int) -> tuple[State, Scorer]:
        async with around.slots:
            return await _search(config, run_dir, shard, restart, around)

    ends = await all_of(one(restart) for restart in range(config.search.restarts))
    finals = [state.best if config.search.result == "best" else state.current for state, _ in ends]
    # Energies of pools of different sizes do not compare.
    restart = max(range(len(finals)), key=lambda r: (len(pool_of(finals[r].labels)), finals[r].energy))
    final, (state, scorer) = finals[restart], ends[restart]
    labels, scores = await answered(search.complete(shard.problem, final), scorer.answer)
    uniform = search.uniform(shard.problem, settings_of(config.search), final.labels)
    return Outcome(
        labelled=Labelled(shard.task, final.labels, labels, scores),
        state=state,
        final=final,
        restart=restart,
        uniform=await answered(uniform, scorer.answer),
    )


async def answered(
    asking: Generator[Sequence[Ask], Answers, R], answer: Callable[[Sequence[Ask]], Awaitable[Answers]]
) -> R:
    """Answer all that a search asks, and return what it returns."""
    try:
        asks = next(asking)
        while True:
            asks = asking.send(await answer(asks))
    except StopIteration as end:
        result: R = end.value
        return result


def settings_of(config: SearchConfig) -> Settings:
    """Return the annealing's parameters."""
    names = Settings.__dataclass_fields__.keys() - {"predict_from_pool"}
    given = {name: getattr(config, name) for name in names}
    return Settings(**given, predict_from_pool=config.layout != "reference")


async def _search(
    config: Config, run_dir: RunDir, shard: Shard, restart: int, around: Surroundings
) -> tuple[State, Scorer]:
    """Take the state through the steps that are left; it is saved on a timer and however this ends."""
    folder, mark = run_dir.shard(shard.number, restart), fingerprint(config, shard.task.sha256())
    folder.mkdir(exist_ok=True)
    saved = checkpoint.load(folder, mark)
    if saved:
        log.info("%s: resuming at step %d of %d", folder.name, saved.state.step, config.search.steps)
    scorer = shard.scorer(around.client, config.search, around.work, saved)
    state: State | None = saved.state if saved else None
    kept, saved_at, abandoned = state, time.monotonic(), 0
    if state is not None:
        around.report(shard.number, restart, search.step_info(shard.problem, state))
    room = config.model.max_num_batched_tokens * around.client.replicas / shard.cost.computed_tokens
    ahead = Ahead(config.search, room / around.searches)

    def save(reached: State) -> None:
        if around.held:
            around.held.require_held()
        checkpoint.save(folder, reached, scorer.memo.remembered(shard.problem.n_labels), trace, mark)

    with Trace(folder, saved) as trace:
        try:
            while state is None or state.step < config.search.steps:
                done = await _next(config.search, shard, restart, state, ahead.steps, scorer)
                for _, info in done:
                    ahead.note(info)
                    trace.append(info)
                    around.work.proposals_abandoned += info.abandoned
                    abandoned = abandoned + 1 if info.abandoned else 0
                state = done[-1][0]
                if abandoned >= ABANDONED_IN_A_ROW:
                    raise ScoringError(SYSTEMATIC.format(abandoned, state.step))
                around.report(shard.number, restart, done[-1][1])
                if time.monotonic() - saved_at >= config.run.save_interval_s:
                    save(state)
                    kept, saved_at = state, time.monotonic()
        finally:
            if state is not None and state is not kept:
                save(state)
    return state, scorer


async def _next(
    config: SearchConfig, shard: Shard, restart: int, state: State | None, ahead: int, scorer: Scorer
) -> list[tuple[State, StepInfo]]:
    """Seed, or do the next steps."""

    def draws_of(step: int) -> RandomDraws:
        return RandomDraws.of(config.seed + restart, shard.number, step)

    problem, settings = shard.problem, settings_of(config)
    if state is None:
        return await answered(search.begin(problem, settings, draws_of), scorer.answer)
    steps = search.steps(problem, settings, state, draws_of, min(ahead, config.steps - state.step))
    return await answered(steps, scorer.try_to_answer)


class Ahead:
    """How many steps are worked out at once, as if refused: it changes the work, never a decision.

    As many as are likely to be refused in a row, as long as their scorings together do not fill a step of the server's
    engine: what is sent beyond that only waits. `scorings_at_once` fill this search's share of one.
    """

    MOST = 64
    MEMORY = 16  # steps

    def __init__(self, config: SearchConfig, scorings_at_once: float) -> None:
        self._fixed = config.ahead
        self._room = scorings_at_once
        self._accepted, self._scored = 0.5, 1.0  # shares of the steps; moving averages
        self.steps = config.ahead or 1

    def note(self, info: StepInfo) -> None:
        """Learn from a step that was done."""
        self._accepted += (info.accepted - self._accepted) / self.MEMORY
        self._scored += ((info.proposal is not None) - self._scored) / self.MEMORY
        wanted = min(1 / max(self._accepted, 1e-3), self._room / max(self._scored, 1e-3), self.MOST)
        self.steps = self._fixed or max(1, int(wanted))


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
