"""A row of a data set, and the one place that decides which of its values are absent.

The published row format has `question`, `choice`, `choice_2` (comparisons), `answer` (solutions), `consistency_id`, and
the gold label under `label`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from ..errors import TaskError

GOLD = "label"
# What pandas and R write where a value is missing; of ids, groups and labels these texts are no value.
NO_NAME = {"NaN", "nan", "NAN", "None", "null", "NULL", "<NA>", "NaT", "NA", "N/A", "n/a", "#N/A"}
SHOWN_CHARACTERS = 60  # of a column's name, in messages
LISTED = 20  # columns, in messages
MAX_DEPTH = 100  # of brackets in a row

Id: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and where it stands, for messages."""

    where: str
    values: Mapping[str, Any]
    part: str = ""  # of one that is made of another row: what follows that row's id
    # By key, what the data call it, for messages; a key that is not there is its own name.
    columns: Mapping[str, str] = field(default_factory=dict)

    def without_gold(self) -> "Row":
        """Return the row as the search may see it."""
        return replace(self, values={key: value for key, value in self.values.items() if key != GOLD})

    def value(self, key: str) -> Any:
        """Return the value under `key`; None where it is absent: no such key, null, NaN, or a text without a character.

        Raises TaskError for a text that no file in UTF-8 can hold.
        """
        value = self.values.get(key)
        if isinstance(value, str):
            if not value.strip():
                return None
            self._require_characters(key, value)
            return value
        if isinstance(value, (float, Decimal)):
            return value if math.isfinite(value) else None
        # pandas.NA and NaT: neither is equal to itself, for certain
        return None if type(value).__name__ in ("NAType", "NaTType") else value

    def id(self, key: str) -> Id | None:
        """Return the text or number that identifies something under `key`, with its type, or None if there is nothing."""
        value = self.value(key)
        if value is None or (isinstance(value, str) and value.strip() in NO_NAME):
            return None
        if isinstance(value, (Decimal, date, UUID)):
            return str(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            column = self.columns.get(key, key)
            raise TaskError(f"{self.where}: {column} is {kind_of(value)}; expected: a text or a number")
        return value

    def name(self, key: str) -> str | None:
        """Return what identifies something under `key` as a text: 1, 1.0 and "1" are the same; None if there is nothing."""
        if isinstance(self.values.get(key), bool):
            return str(self.values[key])
        value = self.id(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return None if value is None else str(value).strip()

    def text(self, key: str) -> str:
        """Return the string under `key`; raises TaskError, naming the row, where there is none."""
        value = self.value(key)
        if not isinstance(value, str):
            others = listed([name for name in self.values if name not in ("id", "consistency_id")])
            found = (
                f"{key} is {kind_of(self.values[key])}"
                if key in self.values
                else f"has no {key}, only {others or 'nothing'}"
            )
            raise TaskError(f"{self.where}: {found}; expected: a text under {key!r}")
        return value

    def _require_characters(self, key: str, value: str) -> None:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise TaskError(
                f"{self.where}: {key} holds {half}, half of a surrogate pair, at character {error.start + 1}; expected: text"
                " that can be written as UTF-8"
            ) from error


class Dropped(Exception):  # noqa: N818
    """A row that cannot be an example, for a reason that is counted; not an error."""


def shown(name: object) -> str:
    """Return a name or an id as a message can hold it: on one line, and not long."""
    text = repr(name)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def listed(names: Sequence[str]) -> str:
    """Return the names of columns as a message can hold them."""
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(shown, names[:LISTED])) + more


def kind_of(value: Any) -> str:
    """Return what a value is, for messages: what it says is the user's, and stays out of logs."""
    match value:
        case None:
            return "null"
        case str():
            return f"a text of {len(value)} character{'s' * (len(value) != 1)}"
        case bool():
            return "a boolean"
        case int() | float() | Decimal():
            return "a number"
        case bytes():
            return f"{len(value)} bytes"
        case Mapping():
            return f"an object with {len(value)} keys"
        case Sequence():
            return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def require_shallow(where: str, value: Any) -> None:
    """Raise TaskError for a row that is nested so deeply that it cannot be compared or printed."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return
    raise TaskError(f"{where}: brackets are nested too deeply")


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return next(iter(str(error).splitlines()), type(error).__name__)
