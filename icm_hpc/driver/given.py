"""A run without a search (icm_hpc.apply): all of its examples are labelled given the pool of a finished run."""

import json
import logging
from functools import partial
from typing import Any

from .. import tasks
from ..config.schema import Config
from ..config.searching import annealing_of, require_prior
from ..core import energy
from ..engines import ENGINES
from ..rundir.files import write_atomically
from ..rundir.folder import RunDir
from ..rundir.lock import Lock
from ..rundir.polling import in_thread, until_done
from ..rundir.progress import Progress, Watch
from ..scoring import label_prior, prompts, word_prior
from ..scoring.client import Client
from . import beyond, checking, pools
from .counting import Counts, known_metrics
from .exactness import server_of
from .labels import of_piece, write_labels
from .summary import beyond_figures_of, given_summary_of, priors_of, to_json

log = logging.getLogger(__name__)


async def label(
    config: Config, run_dir: RunDir, client: Client, watch: Watch, counts: Counts, *, held: Lock | None
) -> dict[str, Any]:
    """Check a server that is ready, label with it, write labels.jsonl and summary.json, and return the summary."""
    task = tasks.load(config.task, seed=config.search.seed, copy=run_dir.data)
    prompts.require_readable(task, config.search.scoring)
    require_prior(config.search, task.label_words)
    pool = pools.of_copy(config, run_dir)
    asked = await beyond.prepared(client, pool.task, task)
    if ENGINES[config.model.engine].is_checked and not counts.checked:
        await checking.check(config, client, run_dir, asked.longest, asked.label_ids)
        counts.checked = True
    before = await known_metrics(client)
    prior = await word_prior.of_run(run_dir, client, pool.task) if config.search.word_prior else None
    as_set, config = config, await label_prior.settled(config, run_dir, client, pool.task, counts.work)
    annealing = annealing_of(config.search)
    shown = pool.labelling(annealing)

    def report(done: int) -> None:
        watch(
            Progress(
                step=0,
                steps=0,
                pool=len(pool.labels),
                examples=len(pool.labels),
                counts=tuple(energy.counts(shown.labels, len(task.label_words))),
                energy=shown.energy,
                flips=0,
                waits=counts.work.waits,
                waiting_s=counts.work.waiting_s,
                applied=done,
                to_apply=len(task.examples),
                applied_step=1.0,
            )
        )

    report(0)
    found = await beyond.label(
        *(config, run_dir.beyond, asked, shown, client),
        work=counts.work,
        report=report,
        held=held,
        word_prior=prior,
    )
    if held:
        held.require_held()
    await in_thread(partial(write_labels, run_dir.labels, task, [of_piece(task, found)]))
    after = await known_metrics(client) if before else None
    figures = beyond_figures_of(found, task.problem(), task.label_words)
    priors = priors_of(as_set.search, annealing, task.label_words, prior)
    server, since = await until_done(partial(server_of, config, run_dir)), counts.since(before, after)
    summary = to_json(given_summary_of(config, shown.energy, since, server, priors=priors, given=figures))
    await in_thread(partial(write_atomically, run_dir.summary, json.dumps(summary, indent=2).encode()))
    return summary
