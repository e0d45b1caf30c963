"""What the page shows: plain values, each of bounded size; `None` or empty where a run has none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..heldout.results import Results
from ..heldout.statistics import Bin, Interval

Numbers: TypeAlias = npt.NDArray[np.float64]
Fact: TypeAlias = tuple[str, str]  # a name, and what it is

POOL = "pool"  # stands for a condition: the labels of the pool itself, of a run without held-out rows


@dataclass(frozen=True, slots=True)
class Bar:
    """The accuracy of a condition in a series: mean over its runs, and over the labellings of each."""

    condition: str
    # Of one run a bootstrap over rows; of several Student's t over runs, or the mean of their bootstraps where that is wider.
    accuracy: Interval
    accuracies: Sequence[float]  # of each run
    rows: int  # of each run, at most


@dataclass(frozen=True, slots=True)
class Series:
    """Runs that differ in their seed alone."""

    name: str  # the model, and the settings in which it differs from other series
    runs: Sequence[str]
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Share:
    """How many examples have a label."""

    word: str
    count: int
    share: float  # 0 to 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to know first."""

    tone: str  # good; bad: there are warnings; open: it has not ended, or whether it is stable is not known
    headline: str
    warnings: Sequence[str]
    more_warnings: int  # that are not listed
    notes: Sequence[str]
    facts: Sequence[Fact]
    balance: Sequence[Share]


@dataclass(frozen=True, slots=True)
class Course:
    """One search by step, thinned to what a plot can show."""

    name: str
    is_best: bool
    steps: Sequence[int]
    energy: Sequence[float]
    temperature: Sequence[float | None]
    pool: Sequence[int]
    counts: Sequence[Sequence[int]]  # by step, by label


@dataclass(frozen=True, slots=True)
class LabelMargins:
    """The margins of the examples of one label; nats."""

    word: str
    count: int
    mean: float
    low: float  # 10 of 100 are below
    median: float
    high: float  # 10 of 100 are above
    negative: int  # the model prefers another label


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """One search of a shard, as it ended."""

    shard: int
    restart: int
    is_best: bool
    energy: float
    steps: int
    scorings: int
    settled: bool


@dataclass(frozen=True, slots=True)
class OneLabel:
    """One label for all examples of a shard."""

    word: str
    energy: float | None  # None: not scored, because it breaks more rules than the result
    conflicts: int


@dataclass(frozen=True, slots=True)
class Degenerate:
    """The labellings beside which a shard's result must stand out."""

    shard: int
    energy: float  # of the result
    conflicts: int
    beats_them: bool
    labels: Sequence[OneLabel]  # the best of them first
    more: int  # that are not listed
    agree: float | None  # share of labels in which its searches agree
    agree_by_chance: float | None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text, without its middle where it is long."""

    head: str
    left_out: int = 0  # characters
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One example."""

    id: str
    group: str
    text: Excerpt
    word: str
    margin: float
    probability: float  # of the label among all label words
    by: str
    stability: float | None
    gold: str | None  # the gold label's word
    prompt: Excerpt | None  # None: not known
    place: int  # demonstrations before it


@dataclass(frozen=True, slots=True)
class Broken:
    """A pair that breaks a rule."""

    rule: str
    rows: tuple[Row, Row]


@dataclass(frozen=True, slots=True)
class GoldFigures:
    """The labels beside gold labels, which the search never saw."""

    compared: int
    agreeing: int
    low: float  # of the 95 % interval (Wilson)
    high: float
    majority: float  # what one label for all would reach
    balanced: float  # mean over gold labels of the share that agree
    words: Sequence[str]
    confusion: Sequence[Sequence[int]]  # by gold label, by label; empty for many labels
    confused: Sequence[tuple[str, str, int]]  # gold, label, count; the most frequent first
    bins: Sequence[Bin]
    calibration_error: float  # expected: mean of |probability - agreement| over examples

    @property
    def share(self) -> float:
        """Agreement, 0 to 1."""
        return self.agreeing / self.compared


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the driver."""

    started: str
    seconds: float | None  # None: it was killed, or goes on
    host: str
    job: str
    end: str


@dataclass(frozen=True, slots=True)
class Report:
    """A run."""

    name: str
    where: str  # run=NAME and run.root=FOLDER, for commands
    made: str  # when
    verdict: Verdict
    searches: int  # there are
    courses: Sequence[Course]  # of the first of them
    words: Sequence[str]
    labels: npt.NDArray[np.int64]  # [M], of the labelled examples
    margins: Numbers  # [M]; nats
    margins_by_label: Sequence[LabelMargins]
    stability: Numbers  # [M]; NaN where unknown; empty with one search
    ends: Sequence[SearchFigures]
    more_ends: int
    degenerate: Sequence[Degenerate]
    more_degenerate: int
    least_certain: Sequence[Row]
    broken: Sequence[Broken]
    all_broken: int
    held_out: Series | None  # the conditions of held-out rows
    test: Results | None  # all figures of the held-out rows
    gold: GoldFigures | None
    cost: Sequence[Fact]
    starts: Sequence[Start]
    more_starts: int
    provenance: Sequence[Fact]
    command: str
    command_note: str
    settings: str
