"""Signs, without gold labels, that a result is not to be trusted: its labels do not depend on the texts, or its balance is
another than that of zero-shot labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import energy
from .agreement import aligned
from .search import Asking, evaluate
from .types import Annealing, Labelling, Labels, Problem, frozen_labels
from .units import exchanged, links_of, units_of

CANDIDATES = 200  # random exchanges of labels
DIFFERENCE = 0.2  # of a label's share of the examples
SIGNIFICANT = 0.01


@dataclass(frozen=True, slots=True)
class Permuted:
    """The result's labels on other texts."""

    energy: float
    p: float  # of a one-sided paired t-test that each unit's own labels are worth more; 1: nothing differs


def permuted_labels(problem: Problem, labels: Labels) -> Labels | None:
    """Return labels exchanged among units of equal size, so that counts and rules stay: of random exchanges the one that agrees
    least with `labels`, names of labels aligned. None if all agree. The random numbers are fixed.
    """
    rng, units = np.random.default_rng(0), units_of(links_of(problem), range(problem.n))
    drawn = [frozen_labels(exchanged(labels, units, rng)) for _ in range(CANDIDATES)]
    agreement = [float(np.mean(aligned(labels, other, problem.n_labels) == other)) for other in drawn]
    return drawn[int(np.argmin(agreement))] if min(agreement) < 1 else None


def permuted(problem: Problem, annealing: Annealing, result: Labelling) -> Asking[Permuted | None]:
    """Evaluate a full labelling with its labels on other texts; None if they cannot be exchanged."""
    labels = permuted_labels(problem, result.labels)
    if labels is None:
        return None
    (other,) = yield from evaluate(problem, annealing, [labels], "eval")
    gains = _worth(annealing, result) - _worth(annealing, other.labelling)
    units = units_of(links_of(problem), range(problem.n))
    return Permuted(other.labelling.energy, _p_greater([float(gains[list(unit)].sum()) for unit in units]))


def _p_greater(differences: Sequence[float]) -> float:
    """Return the one-sided p of a t-test that differences are greater than 0 on the mean; there are at least two."""
    from scipy.special import stdtr  # here: its import takes longer than most commands

    mean, n = np.mean(differences), len(differences)
    error = np.std(differences, ddof=1) / math.sqrt(n)
    return float(stdtr(n - 1, -mean / error)) if error > 0 else float(mean <= 0)


def _worth(annealing: Annealing, one: Labelling) -> energy.Values:
    """Return what the label of each example adds to the mean objective: f64[N], nats."""
    values: energy.Values = energy.worth(annealing, one.scores)[np.arange(len(one.labels)), one.labels]
    return values


@dataclass(frozen=True, slots=True)
class Shift:
    """A label that one labelling gives to many more, or fewer, examples than another."""

    label: int
    shares: tuple[float, float]


def shift(counts: Sequence[int], others: Sequence[int]) -> Shift | None:
    """Return the label whose shares of two labellings differ most, if they differ by DIFFERENCE and by more than chance.

    Chance: a two-proportion z-test, with Bonferroni's correction for the number of labels, at SIGNIFICANT. Labellings of the
    same examples differ less by chance than independent ones, so that the test rather reports too few.
    """
    n, m = sum(counts), sum(others)
    if not n or not m:
        return None
    label = int(np.argmax([abs(one * m - other * n) for one, other in zip(counts, others, strict=True)]))
    shares = counts[label] / n, others[label] / m
    difference = abs(shares[0] - shares[1])
    together = (counts[label] + others[label]) / (n + m)
    error = math.sqrt(together * (1 - together) * (1 / n + 1 / m))
    if difference < DIFFERENCE:
        return None
    p = len(counts) * math.erfc(difference / error / math.sqrt(2))
    return Shift(label, shares) if p < SIGNIFICANT else None
