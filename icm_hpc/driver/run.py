"""The driver: waits for the server, loads or seeds the state, searches, saves, and writes the labels."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeAlias

from .. import scheduler, tasks
from ..config.schema import Config
from ..config.searching import annealing_of, require_prior
from ..core.types import Labelling
from ..engines import ENGINES
from ..engines.engine import Metrics
from ..errors import Interrupted, NoAnswer, RateLimited, ScoringError, ServerError
from ..rundir import checkpoint, lock, outcome, polling
from ..rundir.attempts import record_attempt, record_end, record_served, remove_ended
from ..rundir.files import write_atomically
from ..rundir.folder import RunDir, ServerExit
from ..rundir.lock import Lock
from ..rundir.outcome import Outcome
from ..rundir.progress import Progress, Watch
from ..scoring import connect, identity, label_prior, prompts, word_prior
from ..scoring.client import Client, all_of
from ..tasks import Task
from . import beyond, checking, exactness, given, shard
from .beyond import Beyond
from .counting import Counts, known_metrics
from .exactness import server_of
from .labels import of_outcome, of_piece, write_labels
from .reporting import Reporter
from .shard import Shard, Surroundings
from .summary import beyond_figures_of, figures_of, priors_of, summary_of, to_json, warnings

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
MAX_RECONNECTS_WITHOUT_PROGRESS = 5  # times that a server is lost and found again without a step between
LAST_WORDS_S = 10.0  # how long a server that stopped answering has to leave its exit record

log = logging.getLogger(__name__)


# What is done with the server once a run has its labels, given the last progress.
Then: TypeAlias = Callable[[Client, Counts, Watch, Progress, Lock], Awaitable[None]]


def drive(
    config: Config,
    run_dir: RunDir,
    *,
    attempt: str,
    watch: Watch,
    received: list[int] | None = None,
    then: Then | None = None,
) -> dict[str, Any]:
    """Do `run` in an event loop of its own; SIGINT, SIGTERM and SIGUSR2 stop it.

    Where `received` notes them, they are ignored from then on: Slurm sends some twice, and what follows is not to be ended.
    """

    async def main() -> dict[str, Any]:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def note(number: int, _frame: Any) -> None:
            if received is not None:
                received.append(number)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(stop.set)

        for number in STOPPING:
            signal.signal(number, note)  # a handler of the loop would leave the default behind when the loop ends
        return await run(config, run_dir, attempt=attempt, stop=stop, watch=watch, then=then)

    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        return asyncio.run(main())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if received is None else signal.SIG_IGN)


async def run(
    config: Config, run_dir: RunDir, *, attempt: str, stop: asyncio.Event, watch: Watch, then: Then | None = None
) -> dict[str, Any]:
    """Search from the saved state, or from the seeds, to the end; return the summary, as summary.json holds it.

    `then` is done with the server once the labels are there.

    Raises Interrupted once `stop` is set and the state is saved, and IcmError for what the user must see to.
    """
    work = asyncio.ensure_future(_alone(config, run_dir, attempt, watch, then))
    server_end = _server_end(config, run_dir, attempt)
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        ends: list[asyncio.Future[Any]] = [work, server_end, stopped]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        lost = server_end.done() or (config.external_url is None and _failed_to_reach_server(work))
        if lost and not stopped.done():
            await _hear_why(server_end, stopped)
        work.cancel()
        await asyncio.wait([work])
        failure = None if work.cancelled() else work.exception()
        if not work.cancelled() and failure is None:
            return work.result()
        # A server that is told to stop with us answers oddly; a state that could not be saved is reported in any case.
        if failure and not (isinstance(failure, ServerError) or (stopped.done() and isinstance(failure, ScoringError))):
            raise failure
        if stopped.done():
            raise Interrupted
        raise connect.server_exit_error(run_dir, server_end.result()) if server_end.done() else failure or Interrupted
    finally:
        for pending in (work, server_end, stopped):
            pending.cancel()
        await asyncio.gather(work, server_end, stopped, return_exceptions=True)


def _server_end(config: Config, run_dir: RunDir, attempt: str) -> "asyncio.Future[ServerExit]":
    """Return a future of how our own server ends; another one can only stop answering."""
    if config.external_url is not None:
        return asyncio.get_running_loop().create_future()
    return asyncio.ensure_future(connect.server_end(run_dir, attempt))


def _failed_to_reach_server(work: "asyncio.Future[dict[str, Any]]") -> bool:
    return work.done() and not work.cancelled() and isinstance(work.exception(), ServerError)


async def _hear_why(server_end: "asyncio.Future[ServerExit]", stopped: "asyncio.Future[Any]") -> None:
    """Wait for the exit record of a server that no longer answers and, if it was told to stop, for our own signal."""
    either: list[asyncio.Future[Any]] = [server_end, stopped]
    await asyncio.wait(either, timeout=LAST_WORDS_S, return_when=asyncio.FIRST_COMPLETED)
    if server_end.done() and not server_end.exception() and server_end.result().told_to_stop:
        await asyncio.wait([stopped], timeout=LAST_WORDS_S)


async def _alone(config: Config, run_dir: RunDir, attempt: str, watch: Watch, then: Then | None) -> dict[str, Any]:
    """Keep other drivers out, and note how this attempt began and ended."""
    job = scheduler.job_id()
    who = f"attempt {attempt} on {socket.gethostname()}, process {os.getpid()}" + (f", job {job}" if job else "")
    async with lock.held(run_dir.lock, who) as held:
        counts = Counts()
        start = await polling.until_done(lambda: record_attempt(run_dir, attempt))
        await polling.until_done(lambda: remove_ended(run_dir, attempt))
        end = "killed"
        try:
            summary = await _with_server(
                config, run_dir, attempt, start, watch=watch, counts=counts, held=held, then=then
            )
            end = "finished"
        except asyncio.CancelledError:
            end = "stopped, state saved"
            raise
        except Exception as error:
            end = f"{type(error).__name__}: {error}".splitlines()[0]
            raise
        finally:
            with contextlib.suppress(OSError):  # of a full disk the error above tells
                record_end(run_dir, start, end, asdict(counts))
        return summary


async def _with_server(
    config: Config,
    run_dir: RunDir,
    attempt: str,
    start: int,
    *,
    watch: Watch,
    counts: Counts,
    held: Lock,
    then: Then | None,
) -> dict[str, Any]:
    """Label with this attempt's server; when it is lost and comes back, go on from the state that was saved.

    It must serve the model that the run began with.
    """
    without_progress, reached = 0, 0.0
    last: Progress | None = None
    searched: Progress | None = None  # what label() ended with
    summary: dict[str, Any] | None = None

    def noting(now: Progress) -> None:
        nonlocal without_progress, reached, last
        if now.done > reached:
            without_progress, reached = 0, now.done
        last = now
        watch(now)

    while True:
        try:
            async with connect.connected(config, run_dir, attempt, counts.traffic) as client:
                served = await identity.of_server(client, config)
                await polling.until_done(partial(identity.require_same, run_dir, served))
                await polling.until_done(partial(record_served, run_dir, start, served))
                if summary is None:
                    summary, searched = await label(config, run_dir, client, noting, counts, held=held), last
                if then and searched:
                    await then(client, counts, noting, searched, held)
                return summary
        except NoAnswer as error:
            without_progress += 1
            if without_progress > MAX_RECONNECTS_WITHOUT_PROGRESS or isinstance(
                error, RateLimited
            ):  # which the client has waited for
                raise
            counts.servers_lost += 1
            log.warning("the server is lost (%s); the state is saved; waiting for a server", error)


async def label(
    config: Config,
    run_dir: RunDir,
    client: Client,
    watch: Watch,
    counts: Counts | None = None,
    *,
    held: Lock | None = None,
) -> dict[str, Any]:
    """Check a server that is ready, search with it, write labels.jsonl and summary.json, and return the summary.

    Nothing is saved once `held` is no longer ours.
    """
    counts = counts or Counts(traffic=client.traffic)
    if config.search.pool_run:
        return await given.label(config, run_dir, client, watch, counts, held=held)
    task = tasks.load(config.task, seed=config.search.seed, copy=run_dir.data)
    prompts.require_readable(task, config.search.scoring)
    require_prior(config.search, task.label_words)
    as_set, config = config, await label_prior.as_saved(config, run_dir)
    work = counts.work
    before = await known_metrics(client)
    division = tasks.divided(task, config.search.pool_size, config.search.beyond)
    parts = division.shards
    outcomes = await _finished(config, run_dir, parts)
    missing = {number: part for number, part in enumerate(parts) if number not in outcomes}
    shards = await shard.prepared(config, missing, client, (before and before.block_size) or 1)
    further = await beyond.prepared(client, parts[0], division.beyond) if division.beyond else None
    asked: list[Shard | Beyond] = [*shards, *([further] if further else [])]
    if asked and ENGINES[config.model.engine].is_checked and not counts.checked:
        longest = max(one.longest for one in asked)
        await checking.check(config, client, run_dir, longest, asked[0].label_ids)
        counts.checked = True
        before = await known_metrics(client) if before else None  # one warning is enough
    if before:
        _warn_of_small_cache(config, shards, before)
    searches = max(1, min(config.search.parallel_searches, len(shards) * config.search.restarts))
    report = Reporter(division, config.search.restarts, work, watch)
    for number, done in outcomes.items():
        for restart, end in enumerate(done.ends):
            report(number, restart, end.info, end.info.step)
    prior = await word_prior.of_run(run_dir, client, task) if config.search.word_prior else None
    noise = (await polling.until_done(partial(server_of, config, run_dir))).exactness.noise
    config = await label_prior.settled(config, run_dir, client, task, work)
    around = Surroundings(client, work, searches, asyncio.Semaphore(searches), report, held, prior, noise)
    # Searches take their slots in this order: what was begun ends before anything else begins.
    begun = sorted(shards, key=lambda one: not checkpoint.generations(run_dir.shard(one.number)))
    for one, ended in zip(begun, await all_of(shard.label(config, run_dir, one, around) for one in begun), strict=True):
        outcomes[one.number] = ended
    labelled = [of_outcome(part, outcomes[number]) for number, part in enumerate(parts)]
    annealing = annealing_of(config.search)
    described = [
        figures_of(outcomes[number], part.problem(), part.label_words, annealing) for number, part in enumerate(parts)
    ]
    rest = None
    if further:
        pool = Labelling(outcomes[0].labels, outcomes[0].scores, outcomes[0].energy)
        applied = await beyond.label(
            *(config, run_dir.beyond, further, pool, client),
            work=work,
            report=report.applied,
            held=held,
            word_prior=prior,
        )
        labelled.append(of_piece(further.task, applied))
        rest = beyond_figures_of(applied, further.task.problem(), task.label_words)
    if held:
        held.require_held()
    await polling.in_thread(partial(write_labels, run_dir.labels, task, labelled))
    after = await known_metrics(client) if before else None
    traced = [run_dir.shard(number, r) for number, one in outcomes.items() for r in range(len(one.ends))]
    server = await polling.until_done(partial(server_of, config, run_dir, traced))
    priors = priors_of(as_set.search, annealing, task.label_words, prior)
    since = counts.since(before, after)
    summary = summary_of(config, described, since, server, priors=priors, beyond=rest)
    for warning in warnings(summary):
        log.warning("%s", warning)
    for caution in exactness.cautions(server.exactness):
        log.info("%s", caution)
    told = to_json(summary)
    await polling.in_thread(partial(write_atomically, run_dir.summary, json.dumps(told, indent=2).encode()))
    return told


async def _finished(config: Config, run_dir: RunDir, parts: Sequence[Task]) -> dict[int, Outcome]:
    """Return the outcomes that earlier starts have saved, by shard."""
    found: dict[int, Outcome] = {}
    for number, part in enumerate(parts):
        folder, asked = run_dir.shard(number), shard.asked_of(config, part)
        saved = await polling.until_done(partial(outcome.load, folder, asked))
        if saved is not None:
            found[number] = saved
    if found:
        log.info("%d of %d shards are finished", len(found), len(parts))
    return found


def _warn_of_small_cache(config: Config, shards: Sequence[Shard], metrics: Metrics) -> None:
    """Say what it costs if the server's prefix cache cannot hold what the searches that run together share."""
    if metrics.cache_tokens is None:
        return
    together = sorted((one.cost for one in shards), key=lambda cost: -cost.held_tokens)
    together = (together * config.search.restarts)[: config.search.parallel_searches]
    wanted = sum(cost.held_tokens for cost in together)
    if wanted > metrics.cache_tokens:
        log.warning(
            "the server's cache holds %d tokens, and scorings that run together want %d: each will be computed again (%d"
            " tokens) where a larger cache would keep what a changed label leaves as it was; set"
            " search.parallel_searches=1, a smaller search.pool_size, or give the server more memory",
            *(metrics.cache_tokens, wanted, max(cost.computed_tokens for cost in together)),
        )
