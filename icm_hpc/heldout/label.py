"""What is done with the server once a run has its labels: held-out rows are labelled by its pool under each condition.

This is the only place beside the commands that reads gold labels: after the search, whose labels are saved, and never for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..config.fingerprint import fingerprint
from ..config.schema import Config
from ..config.searching import annealing_of, with_method
from ..core import search
from ..core.types import UNLABELLED, Labelling, Labels, StepInfo, frozen_labels, pool_of
from ..driver import beyond, shard
from ..driver.beyond import Beyond
from ..driver.counting import Counts, known_metrics
from ..driver.labels import of_piece, write_labels
from ..driver.run import Then
from ..driver.shard import Shard, Surroundings
from ..engines.engine import Metrics
from ..errors import CheckpointError
from ..rundir import applied, outcome
from ..rundir.applied import Piece
from ..rundir.files import make_folder
from ..rundir.folder import RunDir
from ..rundir.lock import Lock
from ..rundir.outcome import Outcome
from ..rundir.polling import until_done
from ..rundir.progress import Progress, Watch
from ..scoring import label_prior, word_prior
from ..scoring.client import Client
from ..scoring.scorer import answered
from ..tasks import Task, gold
from . import conditions
from .conditions import Done

MAIN = 0  # the seed of a condition that has one labelling of the pool

log = logging.getLogger(__name__)


def step(config: Config, run_dir: RunDir) -> Then | None:
    """Return what is to be done once the labels are there; None for a run without held-out rows."""
    if not run_dir.test_data.exists():
        return None

    async def then(client: Client, counts: Counts, watch: Watch, last: Progress, held: Lock | None) -> None:
        await label(config, run_dir, client, counts, watch=watch, last=last, held=held)

    return then


@dataclass(frozen=True, slots=True)
class _Pool:
    """A labelling of the pool, as the held-out rows are shown it."""

    seed: int
    labels: Labels
    known: Labelling | None = None  # with its scores, if they are known


@dataclass(frozen=True, slots=True)
class _Asking:
    """What the conditions of a run share."""

    config: Config
    run_dir: RunDir
    client: Client
    counts: Counts
    around: Surroundings
    pool: Shard
    test: Task
    shown: Beyond
    mark: str
    report: Callable[[int], None]
    held: Lock | None


async def label(
    config: Config,
    run_dir: RunDir,
    client: Client,
    counts: Counts,
    *,
    watch: Watch,
    last: Progress,
    held: Lock | None = None,
) -> None:
    """Label the held-out rows by every condition that is not done yet; what was saved of one is not asked again.

    The pool is the examples that were searched, of several shards the first. Raises FitError for a row that does not fit
    behind it.
    """
    part, test = conditions.tasks_of(run_dir, config)
    mark = conditions.mark_of(config, part, test)  # of the settings as they are read by the commands
    known = conditions.done(run_dir, mark)
    wanted = conditions.wanted(config)
    left = [name for name in wanted if name not in known]
    if not left:
        return
    before = await known_metrics(client)
    (pool,) = await shard.prepared(config, {0: part}, client, (before and before.block_size) or 1)
    shown = await beyond.prepared(client, part, test)
    rows, done = len(test.examples), 0
    total = rows * len(wanted)

    def report(name: str, examples: int) -> None:
        nonlocal done
        done = max(done, rows * (len(wanted) - len(left) + left.index(name)) + examples)
        watch(replace(last, applied=last.applied + done, to_apply=last.to_apply + total))

    prior = await word_prior.of_run(run_dir, client, part) if config.search.word_prior else None
    config = await label_prior.settled(config, run_dir, client, part, counts.work)
    together = config.search.parallel_searches
    slots = asyncio.Semaphore(together)
    around = Surroundings(client, counts.work, together, slots, _unheard, held, word_prior=prior)
    for name in left:
        asking = _Asking(config, run_dir, client, counts, around, pool, test, shown, mark, partial(report, name), held)
        log.info("held-out rows: %d by condition %s", len(test.examples), name)
        found = await _of_condition(asking, name, before)
        if held:
            held.require_held()
        await until_done(partial(conditions.record, run_dir, name, found))
        before = await known_metrics(client) if before else None


def _unheard(_shard: int, _restart: int, _info: StepInfo, _steps: int) -> None:
    """Report no step of a baseline: held-out rows are what is waited for."""


async def _of_condition(asking: _Asking, name: str, before: Metrics | None) -> Done:
    """Label the held-out rows by each labelling of the pool that a condition has."""
    traffic = asking.counts.traffic
    prompts, tokens = traffic.prompts, traffic.prompt_tokens
    pools, main = await _POOLS[name](asking)
    if not pools:
        return Done(asking.mark, (), MAIN, left_out=conditions.NO_GOLD)
    for pool in pools:
        folder = asking.run_dir.test / f"{name}-{pool.seed}"
        labelling = pool.known or await _scored(asking, pool, folder)
        piece = await beyond.label(
            asking.config,
            folder,
            asking.shown,
            labelling,
            asking.client,
            work=asking.counts.work,
            report=asking.report,
            held=asking.held,
            word_prior=asking.around.word_prior,
        )
        path = conditions.labels_of(asking.run_dir, name, pool.seed)
        await until_done(partial(write_labels, path, asking.test, [of_piece(asking.test, piece)]))
    after = await known_metrics(asking.client) if before else None
    return Done(
        mark=asking.mark,
        seeds=tuple(pool.seed for pool in pools),
        main=main,
        prompts=traffic.prompts - prompts,
        prompt_tokens=traffic.prompt_tokens - tokens,
        server_computed_tokens=after.computed_tokens - before.computed_tokens if before and after else None,
    )


async def _scored(asking: _Asking, pool: _Pool, folder: Path) -> Labelling:
    """Return a labelling of the pool with its scores: those that an earlier start has saved, so that all rows are given one."""
    config, problem = asking.config, asking.pool.problem
    none = np.full((problem.n, problem.n_labels), np.nan)
    if not len(pool_of(pool.labels)):
        return Labelling(pool.labels, none, 0.0)
    path, unscored = folder / "pool.h5", Labelling(pool.labels, none, 0.0)
    mark = applied.mark_of(fingerprint(config, asking.pool.task.sha256()), unscored)
    saved = await until_done(lambda: applied.load(path, mark)) if path.exists() else None
    if saved is None:
        scorer = asking.pool.scorer(asking.around, config.search, None)
        found = search.evaluate(problem, annealing_of(config.search), [pool.labels], "eval")
        (whole,) = await answered(found, scorer.answer)
        saved = Piece(pool.labels, whole.labelling.scores)
        await until_done(partial(make_folder, folder))
        await until_done(partial(applied.save, path, saved, mark))
    return Labelling(pool.labels, saved.scores, 0.0)


async def _own(asking: _Asking) -> tuple[list[_Pool], int]:
    """Return the labels that each search of the run has ended with; the best is the run's result."""
    folder, asked = asking.run_dir.shard(0), shard.asked_of(asking.config, asking.pool.task)
    found = await until_done(lambda: outcome.load(folder, asked))
    if found is None:
        raise CheckpointError(
            f"{folder}: how its searches ended cannot be read: resume the run, which works it out again"
        )
    return _pools_of(found), found.restart


async def _gold(asking: _Asking) -> tuple[list[_Pool], int]:
    """Return the gold labels of the pool, none if it has none; examples without one are not shown."""
    known: Mapping[str, int] = gold.unpacked(asking.run_dir.gold) if asking.run_dir.gold.exists() else {}
    labels = [known.get(str(example.id), UNLABELLED) for example in asking.pool.task.examples]
    return ([_Pool(MAIN, frozen_labels(labels))] if set(labels) != {UNLABELLED} else []), MAIN


async def _zero_shot(asking: _Asking) -> tuple[list[_Pool], int]:
    """Return no labels: nothing is shown."""
    return [_Pool(MAIN, frozen_labels(np.full(asking.pool.problem.n, UNLABELLED)))], MAIN


async def _baseline(method: str, asking: _Asking) -> tuple[list[_Pool], int]:
    """Return the labels of a method without a search, from as many seeds as the run has."""
    config = asking.config
    usual = with_method(replace(config.search, method=method, steps=None, scorings=None))
    other, run_dir = replace(config, search=usual), RunDir(asking.run_dir.test / method)
    await until_done(partial(make_folder, run_dir.path))
    folder, asked = run_dir.shard(0), shard.asked_of(other, asking.pool.task)
    found = await until_done(lambda: outcome.load(folder, asked))
    found = found or await shard.label(other, run_dir, asking.pool, asking.around)
    return _pools_of(found), found.restart


def _pools_of(found: Outcome) -> list[_Pool]:
    pools = [_Pool(number, end.labels) for number, end in enumerate(found.ends)]
    pools[found.restart] = _Pool(found.restart, found.labels, Labelling(found.labels, found.scores, found.energy))
    return pools


_POOLS: dict[str, Callable[[_Asking], Awaitable[tuple[list[_Pool], int]]]] = {
    "icm": _own,
    "gold": _gold,
    "zero_shot": _zero_shot,
    "random": partial(_baseline, "random"),
    "bootstrap": partial(_baseline, "bootstrap"),
}
