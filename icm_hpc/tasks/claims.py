"""Claims that are true or false; rows `question`, `choice`, `consistency_id` and, for evaluation only, `label`.

The format and the prompt are those of the published code (Wen et al. 2025). A claim has no structural conflict: the
published rule is made of the gold labels.
"""

from ..config import TaskConfig
from . import rows
from .task import Example, Task


def load(config: TaskConfig) -> Task:
    """Return the claims of `task.data`; raises TaskError, naming the row, where one is malformed."""
    examples = tuple(_example(row, place) for place, row in enumerate(rows.read(config)))
    return Task("claims", examples, (" False", " True"))


def id_of(row: rows.Row, place: int) -> str:
    """Return the row's own id, or its place in the file."""
    own = row.values.get("id")
    return f"row-{place}" if own is None else str(own)


def _example(row: rows.Row, place: int) -> Example:
    group = row.values.get("consistency_id")
    text = f"Question: {row.text('question')}\nClaim: {row.text('choice')}\nI think this claim is"
    return Example(id_of(row, place), f"alone-{place}" if group is None else str(group), text)
