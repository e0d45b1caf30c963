"""The lines of labels.jsonl: an index of them all, and one row at a time."""

from dataclasses import dataclass
from typing import Any, BinaryIO

from ..core.json_values import from_json, typed
from ..driver.labels import LabelRow
from ..errors import DamagedFile


@dataclass(frozen=True, slots=True)
class Line:
    """A line of labels.jsonl: where it begins, and the values that decide whether and where it is exported."""

    offset: int  # bytes
    id: str
    label: int
    margin: float
    stability: float | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are exported; None: all."""

    min_margin: float | None = None  # nats
    stable: float | None = None  # share of the other restarts that agree, at least

    def refusal(self, line: Line) -> str | None:
        """Return the name of the filter that a row does not pass, or None; a row of unknown stability is not stable."""
        if self.min_margin is not None and line.margin < self.min_margin:
            return "min_margin"
        if self.stable is not None and (line.stability is None or line.stability < self.stable):
            return "stable"
        return None


def lines_of(file: BinaryIO) -> list[Line]:
    """Return the lines of labels.jsonl; raises DamagedFile for a damaged one."""
    lines = []
    offset = 0
    for number, text in enumerate(file, start=1):
        try:
            row = _row(from_json(text))
        except ValueError as error:
            raise DamagedFile(
                f"{file.name}, line {number}: is damaged; python -m icm_hpc.resume run=NAME writes the file again"
            ) from error
        lines.append(Line(offset, str(row.id), row.label, row.margin, row.stability))
        offset += len(text)
    return lines


def row_at(file: BinaryIO, line: Line) -> LabelRow:
    """Return the row of a line."""
    file.seek(line.offset)
    return _row(from_json(file.readline()))


def _row(values: Any) -> LabelRow:
    whole = typed(dict[str, Any], values)
    row: LabelRow = typed(LabelRow, {"stability": None, **whole})  # which earlier versions did not write
    if row.word not in row.logprobs or not 0 <= row.label < len(row.logprobs):
        raise ValueError("its label is none of its label words")
    return row
