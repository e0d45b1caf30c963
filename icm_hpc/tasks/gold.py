"""Gold labels, for evaluation only: import-linter keeps this module out of the search's reach.

They are optional: what cannot be read as a label is a note and no comparison, never an error.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from ..config.schema import TaskConfig
from ..core.json_values import from_json, typed
from ..errors import TaskError
from . import family_of
from .declared import gold_key
from .family import read
from .rows import GOLD, NO_NAME, Row, kind_of

SHOWN = 8  # label words in a note, at most
TRUTH = {"false": 0, "true": 1}
WHOLE = re.compile(r"([+-]?\d{1,9})(?:\.0*)?")


@dataclass(frozen=True, slots=True)
class Gold:
    """The gold label of each example that has one, by id as a text; and what could not be read."""

    labels: Mapping[str, int]
    notes: tuple[str, ...] = ()


def load(config: TaskConfig) -> dict[str, int]:
    """Return the gold label of each example that has one, by id as a text."""
    return dict(found(config).labels)


def found(config: TaskConfig) -> Gold:
    """Return the gold labels of `task.data`, or the built-in ones.

    A value that is no label is left out. A number that is no label's says that labels are counted in another way: then none
    is used.
    """
    family = family_of(config)
    words = [family.label_words] if config.label_words is None else [config.label_words, family.label_words]
    labels: dict[str, int] = {}
    unread: list[Row] = []
    beyond: list[Row] = []
    rows, column = read(family, config).rows, config.columns.get("label", GOLD)
    shifted = _counted_from_one(rows, family.gold)
    if shifted:
        first = family.label_words[0]
        reason = (
            f"no row has 0, and task.labels is 0 to {len(family.gold or ()) - 1}: write a map, as {{1: {first!r}, ...}}"
        )
        return Gold({}, (_note(shifted, f"none is compared, because {reason}", column),))
    for place, row in enumerate(rows):
        label = _label(row, words, family.gold)
        if label is None:
            continue
        if label == UNREAD:
            unread.append(row)
        elif not 0 <= label < len(family.label_words):
            beyond.append(row)
        else:
            labels[str(family.example(row.without_gold(), place).id)] = label
    last = len(family.label_words) - 1
    if beyond:
        return Gold({}, (_note(beyond, f"none is compared, because this task's labels are 0 to {last}", column),))
    values = list(config.labels)
    of_own = f"a gold value of task.labels ({', '.join(values[:SHOWN])}{', ...' if len(values) > SHOWN else ''})"
    names = of_own if family.gold else f"0 to {last}, true, false"
    expected = (
        f"{names}, {' or '.join(word.strip() for word in words[0][:SHOWN])}{' ...' if last >= SHOWN else ''}, or none"
    )
    return Gold(labels, (_note(unread, f"not compared; expected: {expected}", column),) if unread else ())


def _counted_from_one(rows: Sequence[Row], known: Mapping[str, int] | None) -> list[Row]:
    """Return the rows with a number beyond those of a list of labels, if no row has 0: these labels count from 1."""
    if known is None or list(known) != [str(number) for number in range(len(known))]:
        return []
    told = [gold_key(row.values.get(GOLD)) for row in rows]
    return (
        []
        if "0" in told
        else [row for row, key in zip(rows, told, strict=True) if key.isdecimal() and key not in known]
    )


def _note(rows: Sequence[Row], consequence: str, column: str) -> str:
    first = rows[0]
    count = f"{len(rows)} gold {'label' if len(rows) == 1 else 'labels'} cannot be used"
    return f"{count}: {consequence}; first is {first.where}: {column} is {kind_of(first.values[GOLD])}"


UNREAD = -2
NONE = -1  # what data sets without gold labels have in their place


def _label(row: Row, words: Sequence[Sequence[str]], known: Mapping[str, int] | None) -> int | None:
    """Return the label that a row's gold label says, None if it has none, UNREAD for what says none."""
    value = row.values.get(GOLD)
    if known is not None and isinstance(value, (str, int, float, Decimal)) and gold_key(value) in known:
        return known[gold_key(value)]
    if value is None or value != value or (isinstance(value, str) and value.strip() in {"", *NO_NAME}):
        return None
    text = str(value).strip().casefold() if isinstance(value, (str, int, float, Decimal)) else ""
    for own in words:
        named = {word.strip().casefold(): label for label, word in enumerate(own)}
        if isinstance(value, str) and text in named:
            return named[text]
    if known is not None:
        return None if text == str(NONE) else UNREAD
    if text in TRUTH and len(words[0]) == len(TRUTH):
        return TRUTH[text]
    whole = WHOLE.fullmatch(text)
    if whole is None:
        return UNREAD
    number = int(whole[1])
    return None if number == NONE else number if number >= 0 else UNREAD


def packed(labels: Mapping[str, int]) -> bytes:
    """Return gold labels as a run's folder keeps them."""
    return json.dumps(labels).encode()


def unpacked(path: Path) -> dict[str, int]:
    """Return the gold labels of a run's folder; raises TaskError if they are damaged."""
    try:
        found: dict[str, int] = typed(dict[str, int], from_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: the run's gold labels cannot be read: {error}") from error
    return found
