"""What a file of this folder says of its kind of task: how rows become examples, and when two of them conflict."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.schema import TaskConfig
from ..errors import TaskError
from . import files
from .rows import NO_NAME, Dropped, Id, Row
from .task import SEPARATOR, ConflictRule, Example

ID, GROUP = "id", "consistency_id"


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of task. `example` is given each row, without its gold label, and the row's place."""

    example: Callable[[Row, int], Example]
    label_words: tuple[str, ...]  # by label; with the space that stands before it in running text
    conflict_rule: ConflictRule | None = None
    check: Callable[[Sequence[Example]], None] | None = None  # raises TaskError
    data: Path | None = None  # of a built-in task
    # A row of another format -> published rows, which may have ids of their own; raises Dropped for one that is no example.
    expand: Callable[[Row], Iterable[Row]] = lambda row: (row,)
    block_size: int = 4  # rows that the published code draws together
    group_columns: tuple[str, ...] = (GROUP,)  # that may name a row's group, the first one first
    group: Callable[[Row], str | None] = lambda _row: None  # what rows without one are grouped by; None: a row is alone
    group_prefix: str = "group"  # of the names of such groups
    conflicting: str = "share a consistency_id"  # what two rows do to which the conflict rule applies
    require: Callable[[Sequence[Row]], None] | None = None  # raises TaskError for rows as they are read
    separator: str = SEPARATOR
    preamble: str = ""
    gold: Mapping[str, int] | None = (
        None  # the label of each gold value (declared.gold_key); None: 0, 1, ..., or the word
    )
    notes: tuple[str, ...] = ()  # for the user
    # For exports: the question and the answer that an example calls true, or the question and two answers that it compares.
    claimed: Callable[[Example], tuple[str, str]] | None = None
    compared: Callable[[Example], tuple[str, str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """The rows of `task.data` in the published format, each with an id and a group; and notes on those that were dropped."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def read(family: Family, config: TaskConfig) -> Data:
    """Return the rows of `task.data`, or the built-in ones, with gold labels; raises TaskError if none can be used."""
    kept: list[tuple[str, Row]] = []
    dropped: dict[str, list[str]] = {}
    rows = files.read(config, family.data)
    if family.require:
        family.require(rows)
    for place, row in enumerate(rows):
        try:
            parts = list(family.expand(row))
        except Dropped as reason:
            dropped.setdefault(str(reason), []).append(row.where)
            continue
        kept += [(f"row-{place}{part.part}", part) for part in parts]
    dropped_notes = tuple(
        f"{len(places)} {'row' if len(places) == 1 else 'rows'} dropped: {reason}, first is {places[0]}"
        for reason, places in dropped.items()
    )
    if not kept:
        raise TaskError(f"task.data={config.data}: no row can be used: {'; '.join(dropped_notes)}")
    return Data(tuple(_identified(family, kept)), (*dropped_notes, *_taken_for_none(family, [row for _, row in kept])))


def _taken_for_none(family: Family, rows: Sequence[Row]) -> Iterable[str]:
    """Yield notes on ids and groups that count as absent, since programs write such texts for what is missing."""
    for key in (ID, *family.group_columns):
        texts = [(row, row.values.get(key)) for row in rows]
        found = [(row, text) for row, text in texts if isinstance(text, str) and text.strip() in NO_NAME]
        if found:
            row, text = found[0]
            count = (
                f"{len(found)} {'row has' if len(found) == 1 else 'rows have'} the {row.columns.get(key, key)} {text!r}"
            )
            yield f"{count} or the like: they count as having none, first is {row.where}"


def part_of(row: Row, suffix: str, values: dict[str, object]) -> Row:
    """Return a row that is made of another, with its id and a suffix, and with its group if it has one."""
    kept = {key: row.values[key] for key in (ID, GROUP) if key in row.values}
    return Row(row.where, {**kept, **values}, part=suffix)


def _identified(family: Family, rows: Sequence[tuple[str, Row]]) -> Iterable[Row]:
    """Yield rows with an id and a group each; names that are made up differ from all that the data have."""
    ids = {f"{row.name(ID)}{row.part}" for _, row in rows}
    named = [next(filter(None, map(row.name, family.group_columns)), None) for _, row in rows]
    groups = set(named)
    made: dict[str, str] = {}
    for place, ((made_id, row), group) in enumerate(zip(rows, named, strict=True)):
        own = row.id(ID)
        if own is None:
            own = _unused(made_id, ids)
            ids.add(own)
        elif row.part:
            own = f"{row.name(ID)}{row.part}"
        if group is None:
            shared = family.group(row)
            key = f"alone {place}" if shared is None else f"shared {shared}"
            if key not in made:
                prefix = "alone" if shared is None else family.group_prefix
                made[key] = _unused(f"{prefix}-{place}", groups)
                groups.add(made[key])
            group = made[key]
        yield Row(row.where, {**row.values, ID: own, GROUP: group}, columns=row.columns)


def _unused(name: str, taken: Container[str | None]) -> str:
    number = 1
    unused = name
    while unused in taken:
        number += 1
        unused = f"{name}-{number}"
    return unused


def id_of(row: Row, place: int) -> Id:
    """Return the row's own id, or its place."""
    own = row.id(ID)
    return f"row-{place}" if own is None else own


def group_of(row: Row, place: int) -> str:
    """Return the row's group; without one it is alone."""
    return row.name(GROUP) or f"alone-{place}"
