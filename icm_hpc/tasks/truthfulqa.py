"""TruthfulQA: is this answer to the question true? No structural conflict: several answers may be true, or none.

Reads the published rows, and the Hugging Face data set truthfulqa/truthful_qa, subset multiple_choice, split validation.
"""

from collections.abc import Iterator
from dataclasses import replace

from ..errors import TaskError
from . import claims
from .rows import GOLD, Row


def _expand(row: Row) -> Iterator[Row]:
    """Yield one row a choice, where a row has them all; sorted, since the data set puts the true one first."""
    targets = row.values.get("mc1_targets")
    if targets is None:
        yield row
        return
    try:
        pairs = sorted(zip(targets["choices"], targets["labels"], strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise TaskError(f"{row.where}: mc1_targets wants choices and labels, as many of each") from error
    question = row.text("question")
    for choice, label in pairs:
        yield Row(row.where, {"question": question, "choice": choice, GOLD: label, "consistency_id": question})


FAMILY = replace(claims.FAMILY, conflict_rule=None, check=None, expand=_expand)
