"""What is exported of a run: which rows of its labels.jsonl, or pairs of them, and in which order."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ..config.schema import Config
from ..driver.labels import LabelRow
from ..driver.summary import Summary
from ..tasks import Family
from .lines import Filter, Line, row_at
from .pairs import Pairs

ORDERS = ("data", "margin")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a writer is given."""

    config: Config
    family: Family
    words: tuple[str, ...]  # by label, as they stand behind a text
    summary: Summary | None  # None: not there, or of another version
    file: BinaryIO  # labels.jsonl
    lines: Sequence[Line]  # of the whole run, in the data's order
    filter: Filter
    order: str = "data"  # one of ORDERS
    pairs: Pairs | None = None  # of a format, or a task, that needs them
    chat: bool = False  # messages instead of plain text
    spreadsheet: bool = False
    gold: Mapping[str, int] | None = None  # by id; None: no column of gold labels

    @property
    def names(self) -> tuple[str, ...]:
        """The label words without the spaces around them."""
        return tuple(word.strip() for word in self.words)

    def kept(self) -> list[Line]:
        """Return the lines that pass the filter, in order."""
        kept = [line for line in self.lines if self.filter.refusal(line) is None]
        return sorted(kept, key=lambda line: line.margin) if self.order == "margin" else kept

    def left_out(self) -> Counter[str]:
        """Return how many rows, or pairs, are not exported, by reason."""
        if self.pairs:
            return self.pairs.left_out
        return Counter(reason for line in self.lines if (reason := self.filter.refusal(line)))

    def rows(self) -> Iterator[LabelRow]:
        """Yield the rows that pass the filter, in order; one at a time is in memory."""
        for line in self.kept():
            yield row_at(self.file, line)
