"""What a file of this folder says of its kind of task: how rows become examples, and when two of them conflict."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..settings import TaskConfig
from . import rows
from .rows import Row
from .task import ConflictRule, Example


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of task. `example` is given each row, without its gold label, and the row's place."""

    example: Callable[[Row, int], Example]
    label_words: tuple[str, ...]  # by label; with the space that stands before it in running text
    conflict_rule: ConflictRule | None = None
    check: Callable[[Sequence[Example]], None] | None = None  # raises TaskError
    data: Path | None = None  # of a built-in task
    expand: Callable[[Row], Iterable[Row]] = lambda row: (row,)  # a row of another format -> published rows
    block_size: int = 4  # rows that the published code draws together


def read(family: Family, config: TaskConfig) -> list[Row]:
    """Return the rows of `task.data`, or the built-in ones, in the published format and with gold labels."""
    return [part for row in rows.read(config, family.data) for part in family.expand(row)]


def id_of(row: Row, place: int) -> str:
    """Return the row's own id, or its place."""
    return row.name("id") or f"row-{place}"


def group_of(row: Row, place: int) -> str:
    """Return the row's group; without one it is alone."""
    return row.name("consistency_id") or f"alone-{place}"
