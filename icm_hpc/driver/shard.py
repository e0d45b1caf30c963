"""One shard: its searches, each from its saved state or from the seeds to the last step, and the labels of the best."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..config.fingerprint import fingerprint
from ..config.schema import Config, SearchConfig
from ..core import search, speculation
from ..core.cost import Cost
from ..core.layout import LAYOUTS
from ..core.methods import METHODS
from ..core.search import Answer
from ..core.speculation import Ahead
from ..core.types import Annealing, Ask, Problem, RandomDraws, ScorePool, State, StepInfo, pool_of
from ..errors import FolderError, ScoringError
from ..rundir import checkpoint, outcome
from ..rundir.checkpoint import Saved
from ..rundir.folder import RunDir
from ..rundir.lock import Lock
from ..rundir.outcome import Asked, Outcome
from ..rundir.polling import Outage, until_done
from ..rundir.trace import Trace
from ..scoring.client import Client, all_of
from ..scoring.prompts import Prompts
from ..scoring.scorer import Scorer, Work
from ..tasks import Task

R = TypeVar("R")
Answers = TypeVar("Answers")

NO_BETTER_THAN_ONE_LABEL = (
    "shard {number}: the labelling found (energy {energy:.3f}, {conflicts} conflicts) is no better than one label for all"
    " examples ({one_label_for_all}): do not trust it. The task may need a conflict rule, the search a smaller alpha, more"
    " steps or restarts; or the model cannot tell these labels apart"
)
METHOD = METHODS["single"]
ABANDONED_IN_A_ROW = 5  # proposals; more is no accident
SYSTEMATIC = "{} proposals in a row could not be scored, up to step {}: see the log for what the server answered"
PIECE = 32  # prompts of the last pass that are sent together: enough to fill an engine, few enough to lose

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
class Surroundings:
    """What the searches of a run share."""

    client: Client
    work: Work
    searches: int  # that run at a time, at most
    slots: asyncio.Semaphore  # as many
    report: Callable[[int, int, StepInfo], None]  # of a shard and a restart, what the last step did
    held: Lock | None = None  # nothing is saved once it is no longer ours


async def label(config: Config, run_dir: RunDir, shard: Shard, around: Surroundings) -> Outcome:
    """Search `search.restarts` times, label every example by the best that was found, and save that.

    The search that ends last keeps its slot for the last pass, so that a shard that was begun ends before another begins.
    """
    ends: dict[int, State] = {}

    async def one(restart: int) -> Outcome | None:
        async with around.slots:
            async with _opened(config, run_dir, shard, restart, around) as searching:
                end = await searching.run()
            ends[restart] = end  # once it is closed: the last pass opens the best one again
            if len(ends) < config.search.restarts:
                return None
            states = [ends[number] for number in range(config.search.restarts)]
            return await _finish(config, run_dir, shard, states, around)

    (finished,) = filter(None, await all_of(one(restart) for restart in range(config.search.restarts)))
    return finished


async def _finish(
    config: Config, run_dir: RunDir, shard: Shard, states: Sequence[State], around: Surroundings
) -> Outcome:
    """Do the last pass after the best of the searches, which remembers what it learns, and save the outcome."""
    finals = [state.best if config.search.result == "best" else state.current for state in states]
    # Energies of pools of different sizes do not compare.
    restart = max(range(len(finals)), key=lambda r: (len(pool_of(finals[r].labels)), finals[r].energy))
    final, problem = finals[restart], shard.problem
    async with _opened(config, run_dir, shard, restart, around) as best:
        labels, scores = await answered(search.complete(problem, final), best.answer_in_pieces)
        asking = search.uniform(problem, annealing_of(config.search), final.labels)
        uniform = await answered(asking, best.answer_in_pieces)
        found = Outcome(
            *(final.labels, labels, scores, final.energy, restart),
            ends=tuple(search.step_info(problem, state) for state in states),
            uniform=tuple((one.labelling.energy, len(one.broken)) for one in uniform),
        )
        if around.held:
            around.held.require_held()
        folder, asked = run_dir.shard(shard.number), asked_of(config, shard.task)
        await until_done(lambda: outcome.save(folder, found, asked))
    return found


def asked_of(config: Config, task: Task) -> Asked:
    """Return what the outcome of a shard must be of."""
    return Asked(fingerprint(config, task.sha256()), config.search.steps, config.search.restarts)


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


def annealing_of(config: SearchConfig) -> Annealing:
    """Return the annealing's parameters."""
    names = Annealing.__dataclass_fields__.keys() - {"predict_from_pool"}
    given = {name: getattr(config, name) for name in names}
    return Annealing(**given, predict_from_pool=not LAYOUTS[config.layout].depends_on_purpose)


@asynccontextmanager
async def _opened(
    config: Config, run_dir: RunDir, shard: Shard, restart: int, around: Surroundings
) -> AsyncIterator["Search"]:
    """Yield a search as it was saved; what it did and learnt is saved on a timer and on exit."""
    folder, mark = run_dir.shard(shard.number, restart), fingerprint(config, shard.task.sha256())
    await until_done(lambda: folder.mkdir(exist_ok=True))
    try:
        saved = await until_done(lambda: checkpoint.load(folder, mark, kind=METHOD.state, patient=True))
    except FolderError as error:
        log.warning("%s", error)
        saved = checkpoint.load(folder, mark, kind=METHOD.state)
    with Trace(folder, saved.trace_bytes if saved else 0) as trace:
        searching = Search(config, shard, restart, around, saved, folder=folder, mark=mark, trace=trace)
        del saved  # its memo would be in memory twice
        try:
            yield searching
        finally:
            await until_done(searching.save)


class Search:
    """One search of a shard, while its trace is open."""

    def __init__(
        self,
        config: Config,
        shard: Shard,
        restart: int,
        around: Surroundings,
        saved: Saved | None,
        *,
        folder: Path,
        mark: str,
        trace: Trace,
    ) -> None:
        self._config, self._shard, self._restart, self._around = config, shard, restart, around
        self._folder, self._mark, self._trace = folder, mark, trace
        self._scorer = shard.scorer(around.client, config.search, around.work, saved)
        self.state = saved.reached if saved else None
        self._kept, self._saved_at, self._outage = self._now, time.monotonic(), Outage()

    @property
    def _now(self) -> tuple[State | None, int]:
        """What changes with all that is worth saving."""
        return self.state, self._scorer.memo.changes

    def save(self) -> None:
        """Save what has changed since the last save. Raises as checkpoint.save does."""
        state, changes = self._now
        if state is self._kept[0] and changes == self._kept[1]:
            return
        if self._around.held:
            self._around.held.require_held()
        remembered = self._scorer.memo.remembered(self._shard.problem.n_labels)
        checkpoint.save(self._folder, state, remembered, self._trace, self._mark)
        self._kept, self._saved_at = (state, changes), time.monotonic()

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at < self._config.run.save_interval_s:
            return
        try:
            self.save()
            self._outage.end()
        except OSError as error:
            self._outage.tolerate(error)

    async def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer what the search asks, and save now and then: a step may need more answers than one start has time for."""
        answers = await self._scorer.answer(asks)
        self._save_now_and_then()
        return answers

    async def answer_in_pieces(self, asks: Sequence[Ask]) -> list[Answer]:
        """Do the same for asks that do not depend on each other, few at a time: what is answered is kept."""
        pieces: list[list[Ask]] = []
        for ask in asks:
            if not pieces or isinstance(ask, ScorePool) or len(pieces[-1]) == PIECE:
                pieces.append([])
            pieces[-1].append(ask)
        return [answer for piece in pieces for answer in await self.answer(piece)]

    async def try_to_answer(self, asks: Sequence[Ask]) -> list[Answer | None]:
        """Do the same, with None for an ask to which no answer is a score."""
        answers = await self._scorer.try_to_answer(asks)
        self._save_now_and_then()
        return answers

    async def run(self) -> State:
        """Take the state through the steps that are left, and return it."""
        config, shard, around, abandoned = self._config, self._shard, self._around, 0
        room = config.model.max_num_batched_tokens * around.client.replicas / shard.cost.computed_tokens
        ahead = Ahead(config.search.ahead, room / around.searches)
        if self.state is not None:
            log.info("%s: resuming at step %d of %d", self._folder.name, self.state.step, config.search.steps)
            around.report(shard.number, self._restart, search.step_info(shard.problem, self.state))
        while self.state is None or self.state.step < config.search.steps:
            done = await self._next(self.state, ahead.steps)
            for _, info in done:
                ahead.note(info)
                self._trace.append(info)
                around.work.proposals_abandoned += info.abandoned
                abandoned = abandoned + 1 if info.abandoned else 0
            self.state = done[-1][0]
            if abandoned >= ABANDONED_IN_A_ROW:
                raise ScoringError(SYSTEMATIC.format(abandoned, self.state.step))
            around.report(shard.number, self._restart, done[-1][1])
            self._save_now_and_then()
        return self.state

    async def _next(self, state: State | None, ahead: int) -> list[tuple[State, StepInfo]]:
        """Seed, or do the next steps."""
        config, problem, annealing = self._config.search, self._shard.problem, annealing_of(self._config.search)

        def draws_of(step: int) -> RandomDraws:
            return RandomDraws.of(config.seed + self._restart, self._shard.number, step)

        if state is None:
            return await answered(speculation.begin(METHOD, problem, annealing, draws_of), self.answer)
        most = min(ahead, config.steps - state.step)
        steps = speculation.steps(METHOD, problem, annealing, state, draws_of, ahead=most)
        return await answered(steps, self.try_to_answer)
