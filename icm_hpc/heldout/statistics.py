"""How good labels of held-out rows are: accuracy, balanced accuracy, AUROC and calibration, with intervals, and their tests.

Intervals are 95 % bootstraps (scipy.stats.bootstrap) over groups of rows, since rows of a group are not independent: of
percentiles, but for the calibration error, whose resamples are biased upwards, reflected ("basic").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..core.energy import each_label, margins
from ..core.types import LabelNumber

RESAMPLES = 1000
SEED = 0  # of the resampling, so that the same labels have the same intervals
BATCH = 5_000_000  # numbers in memory at a time
BINS = 10  # of probability, with as many rows each
FEWEST = 5  # rows in a bin

Numbers: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Examples of about the same probability."""

    count: int
    probability: float  # mean, of their labels
    agreement: float  # share that carry the gold label


@dataclass(frozen=True, slots=True)
class Given:
    """What rows with gold labels were given by one labelling of the pool."""

    labels: Ints  # [M]
    logprobs: Numbers  # f64[M, L], nats

    @property
    def probabilities(self) -> Numbers:
        """P(label), of the label words alone: f64[M]."""
        from scipy.special import expit  # here: its import takes longer than most commands

        values: Numbers = expit(margins(self.logprobs, self.labels.astype(LabelNumber)))
        return values


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a condition: means over its labellings of the pool."""

    accuracy: Interval
    balanced_accuracy: Interval  # mean over gold labels of the share that carries each
    auroc: Interval | None  # mean over gold labels, each against the others; null if there is one gold label
    calibration_error: Interval  # expected, of ten bins with as many rows each
    accuracies: Sequence[float]  # of each labelling
    seed_error: float | None  # standard error of their mean; null of one
    reliability: Sequence[Bin]  # of the labelling that is the result


@dataclass(frozen=True, slots=True)
class Compared:
    """McNemar's exact test of two conditions, by the labellings that are the results."""

    first: str
    second: str
    only_first: int  # rows that only the first gives the gold label
    only_second: int
    p: float  # two-sided


def figures(true: Ints, groups: Ints, given: Sequence[Given], main: int) -> Figures:
    """Return the figures of labellings of rows with gold labels i64[M] and groups i64[M] (0, 1, ...)."""
    rights = [(one.labels == true).astype(np.float64) for one in given]
    errors = [_calibration(one.probabilities, right) for one, right in zip(given, rights, strict=True)]
    classes = np.unique(true)
    ranked = [_ranked(one, true, int(label)) for one in given for label in classes]
    accuracies = [float(right.mean()) for right in rights]
    seed_error = float(np.std(accuracies, ddof=1) / len(accuracies) ** 0.5) if len(accuracies) > 1 else None
    interval = partial(_interval, groups)
    return Figures(
        accuracy=interval([partial(_share, right) for right in rights]),
        balanced_accuracy=interval([partial(_balanced, right, true) for right in rights]),
        auroc=interval(ranked) if len(classes) > 1 else None,
        calibration_error=interval(errors, method="basic"),
        accuracies=accuracies,
        seed_error=seed_error,
        reliability=bins(given[main].probabilities, rights[main]),
    )


def mcnemar(true: Ints, first: tuple[str, Given], second: tuple[str, Given]) -> Compared:
    """Return whether two conditions differ in more rows than chance explains: a binomial test of those that they differ in."""
    from scipy import stats  # here: its import takes longer than most commands

    one, other = first[1].labels == true, second[1].labels == true
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    differing = only_one + only_other
    p = float(stats.binomtest(only_one, differing).pvalue) if differing else 1.0
    return Compared(first[0], second[0], only_one, only_other, p)


def bins(probabilities: Numbers, right: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> list[Bin]:
    """Return bins of equal counts, by probability."""
    return [
        Bin(len(part), float(probabilities[part].mean()), float(right[part].mean())) for part in _places(probabilities)
    ]


def _places(probabilities: Numbers) -> list[Ints]:
    order = np.argsort(probabilities, kind="stable")
    return np.array_split(order, max(1, min(BINS, len(order) // FEWEST)))


Statistic: TypeAlias = Callable[[Numbers], Numbers]  # of weights of rows f64[B, M]: f64[B]


def _interval(groups: Ints, of: Sequence[Statistic], *, method: str = "percentile") -> Interval:
    """Return the mean of statistics of all rows, with its interval."""
    count = int(groups.max()) + 1

    def resampled(drawn: Ints, axis: int = -1) -> Numbers:
        assert axis in (-1, drawn.ndim - 1)
        flat = drawn.reshape(-1, drawn.shape[-1])
        times = np.stack([np.bincount(row, minlength=count) for row in flat]).astype(np.float64)
        found = np.mean([statistic(times[:, groups]) for statistic in of], axis=0)
        values: Numbers = found.reshape(drawn.shape[:-1])
        return values

    value = float(np.mean([statistic(np.ones((1, len(groups))))[0] for statistic in of]))
    if count == 1:
        return Interval(value, 0.0, 1.0)  # rows of one group do not say how much groups differ
    from scipy import stats  # here: its import takes longer than most commands

    found = stats.bootstrap(
        (np.arange(count),),
        resampled,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH // len(groups)),
        vectorized=True,
        axis=-1,
        method=method,
        random_state=np.random.default_rng(SEED),
    )
    low, high = found.confidence_interval
    return Interval(value, max(0.0, float(low)), min(1.0, float(high)))


def _share(right: Numbers, weights: Numbers) -> Numbers:
    shares: Numbers = weights @ right / weights.sum(axis=1)
    return shares


def _balanced(right: Numbers, true: Ints, weights: Numbers) -> Numbers:
    with np.errstate(invalid="ignore"):  # a resample may lack a label
        shares = [weights @ (right * (true == label)) / (weights @ (true == label)) for label in np.unique(true)]
    balanced: Numbers = np.nanmean(shares, axis=0)
    return balanced


def _calibration(probabilities: Numbers, right: Numbers) -> Statistic:
    parts = _places(probabilities)

    def error(weights: Numbers) -> Numbers:
        apart = [np.abs(weights[:, part] @ (right[part] - probabilities[part])) for part in parts]
        errors: Numbers = np.sum(apart, axis=0) / weights.sum(axis=1)
        return errors

    return error


def _ranked(given: Given, true: Ints, label: int) -> Statistic:
    """Return the area under the ROC curve of one gold label against the others, by the label's margin; ties count half."""
    values = each_label(margins, given.logprobs)[:, label]
    order = np.argsort(values, kind="stable")
    is_label = (true[order] == label).astype(np.float64)
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)
    starts = starts if len(starts) and starts[0] == 0 else np.concatenate([[0], starts])

    def area(weights: Numbers) -> Numbers:
        ordered = weights[:, order]
        own = np.add.reduceat(ordered * is_label, starts, axis=1)
        others = np.add.reduceat(ordered * (1 - is_label), starts, axis=1)
        below = np.cumsum(others, axis=1) - others / 2
        with np.errstate(invalid="ignore"):  # a resample may lack the label
            areas: Numbers = (own * below).sum(axis=1) / (own.sum(axis=1) * others.sum(axis=1))
        return np.nan_to_num(areas, nan=0.5)

    return area
