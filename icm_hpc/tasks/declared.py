"""Tasks that settings describe (task.prompt, task.columns, task.labels, task.rule): docs/your-data.md, "A task of your own"."""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from string import Formatter
from typing import Any

from ..config.schema import TaskConfig
from ..core.types import Rule
from ..errors import TaskError
from .family import GROUP, ID, Family, group_of, id_of
from .rows import GOLD, Dropped, Row, listed, shown
from .task import AT_MOST_ONE, EXACTLY_ONE, ConflictRule, Example, different, same

COLUMNS = {"id": ID, "group": GROUP, "label": GOLD}  # what task.columns may name -> what rows have it under
TEXT, KEY = "text", "key"  # what is made of the columns of a row
RULES = ("none", "at_most_one", "exactly_one", "same", "different")


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt up to the label word: literal texts, each before a column; the last one before none."""

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, text: str) -> "Template":
        """Read a template; raises TaskError for one that is none, or that names no column."""
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise TaskError(
                f"task.prompt={text!r}: {error}: a column stands in braces, as {{text}}, and a brace is written twice"
            ) from error
        if any(spec or conversion for _, _, spec, conversion in parsed):
            raise TaskError(f"task.prompt={text!r}: a column is its name alone, as {{text}}, without : or !")
        if "" in {column for _, column, _, _ in parsed}:
            raise TaskError(f"task.prompt={text!r}: {{}} names no column; a brace is written twice")
        found = cls(tuple((literal, column) for literal, column, _, _ in parsed))
        if not found.columns:
            raise TaskError(f"task.prompt={text!r}: names no column of the data: write one in braces, as {{text}}")
        if text.endswith("\n"):
            raise TaskError(
                "task.prompt: ends with a line break, which belongs to the label words: for a block of YAML write |- and not |"
            )
        if text != text.rstrip():
            raise TaskError(
                "task.prompt: ends with space, which belongs to the label words: write ' good', and no space here"
            )
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it shows."""
        return tuple(dict.fromkeys(column for _, column in self.parts if column is not None))

    def filled(self, row: Row) -> str:
        """Return the text of a row; raises Dropped where a column has no value."""
        return "".join(literal + ("" if column is None else _text(row, column)) for literal, column in self.parts)


def family(config: TaskConfig) -> Family:
    """Return the family that settings describe; raises TaskError for a description that is incomplete or contradicts itself."""
    template, names = Template.of(config.prompt), _columns(config)
    column_of = {own: names.get(key, own) for key, own in COLUMNS.items()}
    same_if = config.rule.get("same_if")
    used = [("columns.id", column_of[ID]), ("columns.group", column_of[GROUP]), ("rule", same_if)]
    for key, column in (*used, *(("prompt", column) for column in template.columns)):
        if column == column_of[GOLD]:
            raise TaskError(
                f"task.{key} uses the column {column!r}, which holds the gold labels: they cannot reach the search"
            )
    words, gold = _labels(config)
    rule = _rule(config.rule, len(words))

    def example(row: Row, place: int) -> Example:
        return Example(id_of(row, place), group_of(row, place), row.values[TEXT], row.values[KEY])

    def expand(row: Row) -> Iterator[Row]:
        values = {own: row.values.get(column) for own, column in column_of.items()}
        made = {TEXT: template.filled(row), KEY: _compared(row, same_if) if same_if else ""}
        yield Row(row.where, {**values, **made}, row.part, column_of)

    return Family(
        example,
        words,
        conflict_rule=rule,
        expand=expand,
        require=lambda rows: _require_columns(
            rows, [*names.values(), *template.columns, *([same_if] if same_if else [])]
        ),
        block_size=1,
        conflicting=f"share a group (column {names.get('group', GROUP)})",
        separator=config.separator,
        preamble=config.preamble,
        gold=gold,
        notes=_notes(config, words),
    )


def _columns(config: TaskConfig) -> dict[str, str]:
    for key in config.columns:
        if key not in COLUMNS:
            raise TaskError(
                f"task.columns.{key}: expected {', '.join(COLUMNS)}, each with the name of a column of the data"
            )
    return config.columns


def _labels(config: TaskConfig) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the label words, and the label of each gold value."""
    words = tuple(dict.fromkeys(config.labels.values()))
    if len(words) < 2:
        raise TaskError(
            "task.labels: two words or more: {bad: ' bad', good: ' good'} by gold value, or [' bad', ' good'] for 0 and 1"
        )
    found: dict[str, str] = {}
    for value, word in config.labels.items():
        if found.setdefault(gold_key(value), word) != word:
            raise TaskError(
                f"task.labels: the gold value {value!r} has two words: 'A' and 'a' are one value, and so are 1 and 1.0"
            )
    return words, {key: words.index(word) for key, word in found.items()}


def gold_key(value: Any) -> str:
    """Return a gold value as a text: 1, 1.0, "1" and " 1" are the same, and true and True."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().casefold()
    number = text.removesuffix(".0")
    return number if number.lstrip("-").isdecimal() else text


def _rule(told: Mapping[str, str], n_labels: int) -> ConflictRule | None:
    """Return the conflict rule that settings name."""
    unknown = set(told) - {"same_if", "else"}
    if unknown:
        raise TaskError(
            f"task.rule.{min(unknown)}: expected one of {', '.join(RULES)}, or {{same_if: COLUMN, else: RULE}}"
        )
    otherwise = told.get("else", "none")
    other = _named(otherwise, n_labels)
    if "same_if" not in told:
        return (lambda _a, _b: other) if other else None
    if not told["same_if"]:
        raise TaskError("task.rule: same_if names no column")
    equal = same(n_labels)

    def rule(a: Example, b: Example) -> Rule | None:
        if not a.key or not b.key:
            return None
        return equal if a.key == b.key else other

    return rule


def _named(name: str, n_labels: int) -> Rule | None:
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TaskError(
            f"task.rule={name}: expected one of {', '.join(RULES)}, or {{same_if: COLUMN, else: RULE}}{hint}"
        )
    if name in ("at_most_one", "exactly_one") and n_labels != 2:
        raise TaskError(
            f"task.rule={name}: is of two labels, the second of which {name.replace('_', ' ')} has; there are {n_labels}"
        )
    made: dict[str, Callable[[], Rule | None]] = {
        "none": lambda: None,
        "at_most_one": lambda: AT_MOST_ONE,
        "exactly_one": lambda: EXACTLY_ONE,
        "same": lambda: same(n_labels),
        "different": lambda: different(n_labels),
    }
    return made[name]()


def _require_columns(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Raise TaskError for a column that no row has, with the nearest one that there is."""
    there = dict.fromkeys(name for row in rows for name in row.values)
    for column in columns:
        if column not in there:
            near = difflib.get_close_matches(column, list(there), n=1, cutoff=0.5)
            hint = f"did you mean {shown(near[0])}? " if near else ""
            raise TaskError(f"no row of the data has a column {shown(column)}: {hint}There are {listed(list(there))}")


def _text(row: Row, column: str) -> str:
    value = row.value(column)
    if value is None:
        raise Dropped(f"{column} is missing")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (str, int, float, Decimal)):
        return str(value)
    raise Dropped(f"{column} is a {type(value).__name__}, and no text or number")


def _compared(row: Row, column: str) -> str:
    value = row.value(column)
    return (
        ""
        if value is None
        else json.dumps(
            gold_key(value) if isinstance(value, (str, int, float, Decimal)) else value, default=str, sort_keys=True
        )
    )


def _notes(config: TaskConfig, words: Sequence[str]) -> tuple[str, ...]:
    """Return what may not be meant, with what to write instead."""
    return (*_escapes(config, words), *_shifted(config), *_glued(config, words))


def _escapes(config: TaskConfig, words: Sequence[str]) -> Iterator[str]:
    texts = {"prompt": [config.prompt], "preamble": [config.preamble], "separator": [config.separator], "labels": words}
    for key, values in texts.items():
        if any("\\n" in text for text in values):
            yield f"task.{key} has a backslash and an n, no new line: YAML reads \\n as a new line only within double quotes"


def _shifted(config: TaskConfig) -> Iterator[str]:
    """Yield a note on a list of labels whose words are other numbers than their places."""
    listed = list(config.labels) == [str(place) for place in range(len(config.labels))]
    others = [(value, word) for value, word in config.labels.items() if word.strip() != value]
    if listed and others and all(word.strip().isdecimal() for word in config.labels.values()):
        value, word = others[0]
        number = word.strip()
        yield (
            f"the gold value {value} is the label {word!r}, as in a list; if the gold value {number} is, write"
            f" {{{number}: {word!r}, ...}}"
        )


def _glued(config: TaskConfig, words: Sequence[str]) -> tuple[str, ...]:
    glued = [word for word in words if word[:1].isalnum() and not config.prompt[-1].isspace()]
    if not glued:
        return ()
    end = config.prompt.splitlines()[-1][-20:]
    return (f"the label word {glued[0]!r} follows {end!r} without a space: if one belongs there, write ' {glued[0]}'",)
