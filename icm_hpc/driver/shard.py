"""One shard: its searches, each from its saved state or from the seeds to the last step, and the labels of the best."""

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..config.fingerprint import fingerprint
from ..config.schema import Config, SearchConfig
from ..config.searching import annealing_of, budget_of, method_of
from ..core import alarms, energy, noise, search, speculation
from ..core.alarms import Permuted
from ..core.cost import Cost
from ..core.memo import Rows
from ..core.methods.method import Method, forecast_of
from ..core.search import Answer
from ..core.speculation import Ahead
from ..core.types import Annealing, Ask, Budget, Labelling, Problem, RandomDraws, ScorePool, State, StepInfo, pool_of
from ..errors import BadAnswer, DamagedFile, FolderError, ScoringError
from ..rundir import checkpoint, outcome
from ..rundir.checkpoint import Saved
from ..rundir.files import make_folder, read_json, write_json
from ..rundir.folder import RunDir
from ..rundir.lock import Lock
from ..rundir.outcome import Asked, End, Outcome
from ..rundir.polling import in_thread, until_done
from ..rundir.saves import Saves
from ..scoring import prompts
from ..scoring.client import Client, all_of
from ..scoring.prompts import Prompts
from ..scoring.scorer import Scorer, Work, answered
from ..tasks import Task
from .saving import Now, Saving

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

    def scorer(self, around: "Surroundings", config: SearchConfig, saved: Saved | None) -> Scorer:
        """Return what answers one search of this shard, with what it had remembered."""
        return Scorer(
            around.client,
            self.prompts,
            self.problem,
            config.layout,
            memo_bytes=int(config.memo_mb * 1e6),
            remembered=saved.memo if saved else (),
            work=around.work,
            word_prior=around.word_prior,
        )


async def prepared(config: Config, parts: Mapping[int, Task], client: Client, block_size: int) -> list[Shard]:
    """Return the shards that are still to be searched; raises FitError if one does not fit the model's context."""
    context, scoring = await client.max_model_len(), config.search.scoring
    made = []
    for number, part in parts.items():
        tokens, written = await prompts.written(client, part, scoring)
        for caution in prompts.cautions(tokens, scoring):
            log.warning("shard %d: %s", number, caution)
        if client.exact:
            prompts.require_fit(tokens, context)
        elif tokens.longest > context:  # the plan has refused what certainly does not fit
            log.warning("the longest prompt may be %d tokens, and the context is %d", tokens.longest, context)
        problem = part.problem()
        cost = tokens.cost(config.search.layout, problem.groups, block_size, replicas=client.replicas)
        made.append(Shard(number, part, problem, written, cost, tokens.longest, tokens.label_ids))
    return made


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the searches of a run share."""

    client: Client
    work: Work
    searches: int  # that run at a time, at most
    slots: asyncio.Semaphore  # as many
    report: Callable[
        [int, int, StepInfo, int], None
    ]  # of a shard and a restart: its last step, and how many are expected
    held: Lock | None = None  # nothing is saved once it is no longer ours
    word_prior: Rows | None = None  # f64[L], nats: subtracted from all scores
    noise: float | None = None  # of the engine's log-probabilities, nats; None: not measured


async def label(config: Config, run_dir: RunDir, shard: Shard, around: Surroundings) -> Outcome:
    """Search `search.restarts` times, label every example by the best that was found, and save that.

    The search that ends last keeps its slot for the last pass, so that a shard that was begun ends before another begins.
    """
    ends: dict[int, Ended] = {}

    async def one(restart: int) -> Outcome | None:
        async with around.slots:
            await in_thread(partial(_record_lengths, run_dir, shard))
            async with _opened(config, run_dir, shard, restart, around) as searching:
                end = await searching.run()
            ends[restart] = end  # once it is closed: the last pass opens the best one again
            if len(ends) < config.search.restarts:
                return None
            searches = [ends[number] for number in range(config.search.restarts)]
            return await _finish(config, run_dir, shard, searches, around)

    (finished,) = filter(None, await all_of(one(restart) for restart in range(config.search.restarts)))
    return finished


def _record_lengths(run_dir: RunDir, shard: Shard) -> None:
    """Record what the order of demonstrations depends on, so that the report can show the prompts; no search reads it."""
    path, lengths = run_dir.lengths(shard.number), {"demonstrations": shard.prompts.demonstration_tokens.tolist()}
    try:
        if not _holds(path, lengths):
            write_json(path, lengths)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)


def _holds(path: Path, values: dict[str, list[int]]) -> bool:
    """Return whether a file has these values, and not those of a start with other data, say."""
    with suppress(DamagedFile):
        return bool(read_json(path) == values)
    return False


@dataclass(frozen=True, slots=True)
class Ended:
    """A search at its end."""

    state: State
    scorings: int
    settled: bool  # nothing was left to do; else its budget was spent

    def final(self, config: SearchConfig) -> Labelling:
        """Return its result."""
        return self.state.best if config.result == "best" else self.state.current


async def _finish(
    config: Config, run_dir: RunDir, shard: Shard, searches: Sequence[Ended], around: Surroundings
) -> Outcome:
    """Do the last pass after the best of the searches, which remembers what it learns, and save the outcome."""
    finals = [one.final(config.search) for one in searches]
    # Energies of pools of different sizes do not compare.
    restart = max(range(len(finals)), key=lambda r: (len(pool_of(finals[r].labels)), finals[r].energy))
    final, problem, annealing = finals[restart], shard.problem, annealing_of(config.search)
    async with _opened(config, run_dir, shard, restart, around) as best:
        shares = method_of(config.search).shares_last_prefix
        asking = search.complete(problem, annealing, final, shared_prefix=shares)
        labels, _ = await answered(asking, best.answer_in_pieces)
        (whole,) = await answered(search.evaluate(problem, annealing, [labels], "eval"), best.answer_in_pieces)
        broken = len(whole.broken)
        other = await best.permuted(whole.labelling)
        uniform = [await best.one_label_for_all(label, if_broken=broken) for label in range(problem.n_labels)]
        found = Outcome(
            *(final.labels, labels, whole.labelling.scores, whole.labelling.energy, final.energy, restart),
            ends=tuple(
                End(search.step_info(problem, one.state), one.scorings, one.settled, labelling.labels)
                for one, labelling in zip(searches, finals, strict=True)
            ),
            uniform=tuple(uniform),
            zero_shot_counts=next(filter(None, (one.state.zero_shot_counts for one in searches)), ()),
            permuted=other,
        )
        if around.held:
            around.held.require_held()
        folder, asked = run_dir.shard(shard.number), asked_of(config, shard.task)
        await until_done(lambda: outcome.save(folder, found, asked))
    return found


def asked_of(config: Config, task: Task) -> Asked:
    """Return what the outcome of a shard must be of."""
    budget = budget_of(config.search, len(task.examples))
    return Asked(fingerprint(config, task.sha256()), budget, config.search.restarts)


@asynccontextmanager
async def _opened(
    config: Config, run_dir: RunDir, shard: Shard, restart: int, around: Surroundings
) -> AsyncIterator["Search"]:
    """Yield a search as it was saved; what it did and learnt is saved on a timer and on exit."""
    folder, mark = run_dir.shard(shard.number, restart), fingerprint(config, shard.task.sha256())
    kind = method_of(config.search).state
    await until_done(partial(make_folder, folder))
    try:
        saved = await until_done(lambda: checkpoint.load(folder, mark, kind=kind, patient=True))
    except FolderError as error:
        log.warning("%s", error)
        saved = await in_thread(lambda: checkpoint.load(folder, mark, kind=kind))
    with await until_done(partial(Saves, folder, mark, saved)) as saves:
        saving = Saving(saves, config.run.save_interval_s, around.held, saved.reached if saved else None)
        searching = Search(config, shard, restart, around, saved, saving=saving)
        del saved  # its memo would be in memory twice
        try:
            yield searching
        finally:
            await saving.end(searching.now)


def _pieces(asks: Sequence[Ask]) -> Iterator[Sequence[Ask]]:
    """Yield asks in the pieces that are sent and kept together: pools, or a few single examples."""
    for is_pool, alike in itertools.groupby(asks, lambda ask: isinstance(ask, ScorePool)):
        together = list(alike)
        size = len(together) if is_pool else PIECE
        yield from (together[start : start + size] for start in range(0, len(together), size))


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
        saving: Saving,
    ) -> None:
        self._config, self._shard, self._restart, self._around = config, shard, restart, around
        self._saving = saving
        self._scorer = shard.scorer(around, config.search, saved)
        self.state = saved.reached if saved else None
        self._scorings = saved.scorings if saved else 0
        method = method_of(config.search)
        self._method: Method = method if around.noise is None else noise.watched(method, around.noise)
        self._annealing: Annealing = annealing_of(config.search, restart=restart)
        self._budget: Budget = budget_of(config.search, shard.problem.n)
        self._expected = len(forecast_of(self._method, shard.problem, self._annealing, self._budget))

    @property
    def now(self) -> Now:
        """What is worth saving."""
        return Now(self.state, self._scorings, self._scorer.memo, self._shard.problem.n_labels)

    async def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer what the search asks, and save now and then: a step may need more answers than one start has time for."""
        answers = await self._scorer.answer(asks)
        self._saving.now_and_then(self.now)
        return answers

    async def one_label_for_all(self, label: int, *, if_broken: int) -> tuple[float, int]:
        """Return energy and broken conflicts of one label for all examples.

        The energy is NaN if it breaks more conflicts than `if_broken`, so that its energy does not matter, or if it cannot be
        scored.
        """
        problem, annealing = self._shard.problem, annealing_of(self._config.search)
        broken = len(energy.broken(problem, search.same(problem, label)))
        if broken > if_broken:
            return math.nan, broken
        try:
            found = await answered(search.uniform(problem, annealing, label), self.answer)
        except BadAnswer as error:
            log.warning("one label for all examples, %d, cannot be scored: %s", label, error)
            return math.nan, broken
        return found.labelling.energy, broken

    async def permuted(self, result: Labelling) -> Permuted | None:
        """Return what the labels of the result are worth on other texts; None if that is not known."""
        try:
            return await answered(alarms.permuted(self._shard.problem, self._annealing, result), self.answer)
        except BadAnswer as error:
            log.warning("the labels on other texts cannot be scored: %s", error)
            return None

    async def answer_in_pieces(self, asks: Sequence[Ask]) -> list[Answer]:
        """Do the same for asks that do not depend on each other, few at a time: what is answered is kept."""
        return [answer for piece in _pieces(asks) for answer in await self.answer(piece)]

    async def _answer_first(self, asks: Sequence[Ask]) -> list[Answer | None]:
        """Do the same for step 0, with None for single examples to which no answer is a score."""
        answers = await self.try_to_answer(asks)
        if any(answer is None and isinstance(ask, ScorePool) for answer, ask in zip(answers, asks, strict=True)):
            raise ScoringError("the first labels cannot be scored: see the log for what the server answered")
        return answers

    async def try_to_answer(self, asks: Sequence[Ask]) -> list[Answer | None]:
        """Do the same, with None for an ask to which no answer is a score."""
        answers: list[Answer | None] = []
        for piece in _pieces(asks):
            answers += await self._scorer.try_to_answer(piece)
            self._saving.now_and_then(self.now)
        return answers

    async def run(self) -> Ended:
        """Take the state through the steps that are left, and return it."""
        config, shard, around, abandoned = self._config, self._shard, self._around, 0
        room = config.model.max_num_batched_tokens * around.client.replicas / shard.cost.computed_tokens
        ahead = Ahead(config.search.ahead, room / around.searches)
        if self.state is not None:
            log.info("shard %d, restart %d: resuming after step %d", shard.number, self._restart, self.state.step)
            self._report(search.step_info(shard.problem, self.state))
        while self.state is None or not self._is_over(self.state):
            for state, info in await self._next(self.state, ahead.steps):
                ahead.note(info)
                self._saving.saves.append(info)
                around.work.proposals_abandoned += info.abandoned
                if info.abandoned or info.proposal:  # a step that asked nothing says nothing of the server
                    abandoned = abandoned + 1 if info.abandoned else 0
                self.state, self._scorings = state, self._scorings + info.scorings
                if self._is_over(state):  # what was speculated beyond that is not done
                    break
            if abandoned >= ABANDONED_IN_A_ROW:
                raise ScoringError(SYSTEMATIC.format(abandoned, info.step))
            self._report(info)
            self._saving.now_and_then(self.now)
            await asyncio.sleep(0)  # a step that asks nothing must still let signals through
        return Ended(self.state, self._scorings, self._has_settled(self.state))

    def _is_over(self, state: State) -> bool:
        return self._budget.is_spent(state.step, self._scorings) or self._has_settled(state)

    def _has_settled(self, state: State) -> bool:
        return self._method.finished(self._shard.problem, self._annealing, state)

    def _report(self, info: StepInfo) -> None:
        """Report a step, and how many are expected: at the end as many as were done."""
        over = self.state is not None and self._is_over(self.state)
        steps = info.step if over else max(info.step + 1, self._expected)
        self._around.report(self._shard.number, self._restart, info, steps)

    async def _next(self, state: State | None, ahead: int) -> list[tuple[State, StepInfo]]:
        """Seed, or do the next steps."""
        method, problem, annealing = self._method, self._shard.problem, self._annealing
        seed, number = self._config.search.seed + self._restart, self._shard.number

        def draws_of(step: int) -> RandomDraws:
            return RandomDraws.of(seed, number, step)

        if state is None:
            return await answered(speculation.begin(method, problem, annealing, draws_of), self._answer_first)
        left = self._budget.left(state.step, self._scorings)
        steps = speculation.steps(method, problem, annealing, state, draws_of, ahead=ahead, steps_left=left)
        return await answered(steps, self.try_to_answer)
