"""The shares of labels, which search.label_prior=estimated estimates once in a run, before its searches.

Each of a sample of examples is asked without demonstrations. From its log-probabilities those after the premise, which has no
text, are subtracted (contextual calibration, Zhao et al. 2021, arXiv 2102.09690); core/shares.py makes shares of what is left.
"""

import logging
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np

from ..config.schema import Config
from ..config.searching import is_estimated, with_shares
from ..core import growth, shares
from ..core.energy import Values
from ..core.speculation import AskingOrNot
from ..errors import ScoringError
from ..rundir.folder import LabelPrior, RunDir, WordPrior
from ..rundir.polling import until_done
from ..tasks import LABEL_PRIOR, Task
from . import prompts, word_prior
from .client import Client
from .scorer import Scorer, Work, answered

SAMPLE = 256  # examples that are asked, at most: the standard error of a share is then 0.03 or less

log = logging.getLogger(__name__)


def sample_of(task: Task, seed: int) -> Task:
    """Return the examples that are asked: all, or SAMPLE of them, drawn by the seed of the search."""
    n = len(task.examples)
    if n <= SAMPLE:
        return task
    drawn = np.sort(np.random.default_rng(seed).choice(n, SAMPLE, replace=False))
    return replace(task, examples=tuple(task.examples[i] for i in drawn))


async def as_saved(config: Config, run_dir: RunDir) -> Config:
    """Return the settings with the shares that an earlier start has estimated; as they are if there are none to be estimated,
    or none yet.
    """
    known = await until_done(run_dir.read_label_prior) if is_estimated(config.search) else None
    return with_shares(config, known.shares.values()) if known else config


async def settled(config: Config, run_dir: RunDir, client: Client, task: Task, work: Work) -> Config:
    """Return the settings with numbers as the shares: those in the run's folder, else by what the server answers now, saved.

    So a run that is resumed has the shares that it began with. Raises what the client raises, and ScoringError if no
    example gets a score.
    """
    found = await as_saved(config, run_dir)
    if not is_estimated(found.search):
        return found
    known = await _measured(config, client, task, work)
    await until_done(partial(run_dir.write_label_prior, known))
    shown = ", ".join(f"{word} {share:.3f}" for word, share in known.shares.items())
    log.info("search.label_prior=estimated: shares of labels: %s; by %d examples", shown, known.examples)
    return with_shares(config, known.shares.values())


async def _measured(config: Config, client: Client, task: Task, work: Work) -> LabelPrior:
    scores, empty = await zero_shot_scores(config, client, task, work)
    known = scores[np.isfinite(scores).all(axis=1)]
    if not len(known):
        raise ScoringError("search.label_prior=estimated: no example has a score without demonstrations")
    if len(known) < len(scores) / 2:
        log.warning(
            "search.label_prior=estimated: only %d of %d examples have a score without demonstrations; the shares are of"
            " these",
            len(known),
            len(scores),
        )
    words = [word.strip() for word in task.label_words]
    return LabelPrior(dict(zip(words, shares.estimated(known), strict=True)), len(known), empty.premise, empty.logprobs)


async def zero_shot_scores(config: Config, client: Client, task: Task, work: Work) -> tuple[Values, WordPrior]:
    """Return the scores of a sample of examples less those after the premise, f64[M, L], nats, NaN where there is none; and
    what was subtracted.
    """
    empty = await word_prior.measured(client, task, LABEL_PRIOR)
    sample = sample_of(task, config.search.seed)
    _, written = await prompts.written(client, sample, config.search.scoring)
    problem = sample.problem()
    premise = np.array(list(empty.logprobs.values()))
    scorer = Scorer(client, written, problem, config.search.layout, memo_bytes=0, work=work, word_prior=premise)
    asking = cast(AskingOrNot[Values], growth.zero_shot(problem))
    return await answered(asking, scorer.try_to_answer), empty
