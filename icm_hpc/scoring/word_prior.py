"""The prior of the label words, log P(word | premise), which search.word_prior=true subtracts from scores.

Domain-conditional pointwise mutual information (Holtzman et al. 2021, arXiv 2104.08315): a word that the model prefers
whatever the text gets no advantage. The premise is what all prompts end with; before it stands the preamble, and no example.
"""

import logging
from dataclasses import replace
from functools import partial

import numpy as np

from ..core.layout import Query
from ..core.memo import Rows
from ..core.types import LabelNumber
from ..errors import BadAnswer, ScoringError
from ..rundir.folder import RunDir, WordPrior
from ..rundir.polling import until_done
from ..tasks import WORD_PRIOR, Example, Task, premise_of
from .client import Client
from .prompts import TokenPrompts, of_tokens
from .running_text import Tokenizes

log = logging.getLogger(__name__)


async def prompts_of(tokenizer: Tokenizes, task: Task, required_by: str = WORD_PRIOR) -> TokenPrompts:
    """Return prompts of which example 0 is the premise; example 1, the task's first, proves that label words have equal tokens.

    Raises TaskError for a task without a premise, or one after which the label words are other tokens.
    """
    first = task.examples[0]
    premise = Example(f"premise of {first.id}", first.group, premise_of(task, required_by))
    return await of_tokens(tokenizer, replace(task, examples=(premise, first)))


async def of_run(run_dir: RunDir, client: Client, task: Task) -> Rows:
    """Return log P(word | premise), f64[L], nats: as the run's folder has it, else as the server answers now, which is saved.

    So a run that is resumed has the scores of one that was never stopped. Raises what the client raises.
    """
    known = await until_done(run_dir.read_word_prior)
    if known is None:
        known = await measured(client, task)
        await until_done(partial(run_dir.write_word_prior, known))
        shown = ", ".join(f"{word} {value:.2f}" for word, value in known.logprobs.items())
        log.info("search.word_prior: log P of the label words after the common end of all texts: %s", shown)
    return np.array(list(known.logprobs.values()))


async def measured(client: Client, task: Task, required_by: str = WORD_PRIOR) -> WordPrior:
    """Ask the server for log P(word | premise). Raises what the client raises, and TaskError for a task without a premise."""
    prompts = await prompts_of(client, task, required_by)
    written = prompts.write([Query(0, ())], np.zeros(2, dtype=LabelNumber))
    try:
        (row,) = await prompts.score(client.replica(0), written)
    except BadAnswer as error:
        raise ScoringError(f"the server gives no score to the end that all texts have in common: {error}") from error
    found = {word.strip(): float(value) for word, value in zip(task.label_words, row, strict=True)}
    return WordPrior(premise_of(task, required_by), found)
