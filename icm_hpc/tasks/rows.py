"""Rows of a data set: from a JSON or JSONL file, or by the name of a Hugging Face data set.

The published row format has `question`, `choice`, `choice_2` (comparisons), `answer` (solutions), `consistency_id`, and
the gold label under `label`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import home
from ..errors import TaskError
from ..settings import TaskConfig

GOLD = "label"


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and where it stands, for messages."""

    where: str
    values: Mapping[str, Any]

    def without_gold(self) -> "Row":
        """Return the row as the search may see it."""
        return Row(self.where, {key: value for key, value in self.values.items() if key != GOLD})

    def name(self, key: str) -> str | None:
        """Return what identifies something under `key`, a number or a text, or None if there is nothing."""
        value = self.values.get(key)
        return None if value is None else str(value)

    def text(self, key: str) -> str:
        """Return the string under `key`; raises TaskError, naming the row, where there is none."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            found = f"{key} is {value!r}" if key in self.values else f"has no {key}"
            raise TaskError(f"{self.where}: {found}; wanted: a text under {key!r}")
        return value


def read(config: TaskConfig, built_in: Path | None) -> list[Row]:
    """Return the rows that `task.data` names, or the built-in ones, with their gold labels.

    Raises TaskError for a missing file or a row that is not an object.
    """
    if not config.data and built_in:
        return read_file(built_in)
    if not config.data:
        raise TaskError(
            f"task={config.name} needs data: task.data=FILE (.json, .jsonl) or a Hugging Face data set name"
        )
    path = home.expanded(config.data, instead="task.data without ~")
    if path.suffix in (".json", ".jsonl"):
        return read_file(path)
    return list(_read_hub(config.data, config.subset, config.split))


def read_file(path: Path) -> list[Row]:
    """Return the rows of a .jsonl file (one object a line) or a .json file (one list of objects)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TaskError(f"task.data={path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"task.data={path}: cannot be read: {error}") from error
    rows = list(_lines(path, text) if path.suffix == ".jsonl" else _list(path, text))
    if not rows:
        raise TaskError(f"task.data={path}: holds no rows")
    return rows


def _lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield _row(where, _parse(where, line))


def _list(path: Path, text: str) -> Iterator[Row]:
    values = _parse(str(path), text)
    if not isinstance(values, list):
        raise TaskError(f"{path}: wanted a JSON list of objects (or one object a line in a .jsonl file)")
    for number, value in enumerate(values, start=1):
        yield _row(f"{path}, row {number}", value)


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TaskError(f"{where}: is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error


def _row(where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f"{where}: wanted an object with keys and values, found {type(value).__name__}")
    return Row(where, value)


def _read_hub(name: str, subset: str | None, split: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise TaskError(
            f"task.data={name} is not a .json or .jsonl file, and data sets by name need: pip install 'icm-hpc[hub]'"
        ) from error
    try:
        rows = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # the library raises many kinds; each ends the command with its text
        raise TaskError(f"task.data={name}, split {split}: cannot be loaded: {error}") from error
    for number, values in enumerate(rows):
        yield Row(f"{name}, split {split}, row {number}", dict(values))
