"""TruthfulQA: is this answer to the question true? No structural conflict: several answers may be true, or none.

Reads the published rows, and the Hugging Face data set truthfulqa/truthful_qa, subset multiple_choice, split validation.
"""

from collections.abc import Iterator
from dataclasses import replace

from ..errors import TaskError
from . import claims
from .family import part_of
from .rows import GOLD, Row


def _expand(row: Row) -> Iterator[Row]:
    """Yield one row a choice, where a row has them all; sorted, since the data set puts the true one first."""
    targets = row.value("mc1_targets")
    if targets is None:
        yield row
        return
    try:
        pairs = sorted(zip(targets["choices"], targets["labels"], strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise TaskError(
            f"{row.where}: mc1_targets must hold two lists of one length, choices (texts) and labels"
        ) from error
    question = row.text("question")
    for number, (choice, label) in enumerate(pairs):
        yield part_of(row, f"-{number}", {"question": question, "choice": choice, GOLD: label})


FAMILY = replace(
    claims.FAMILY,
    conflict_rule=None,
    check=None,
    expand=_expand,
    group=claims.question_of,
    group_prefix="question",
)
