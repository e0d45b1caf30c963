"""Whether searches that began differently end in the same labels: the first thing to look at where there is no gold label."""

from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .types import UNLABELLED, LabelNumber, Labels
from .units import Unit, exchanged

SHUFFLES = 200
Shares: TypeAlias = npt.NDArray[np.float64]  # [N], 0 to 1; NaN where nothing is known


def aligned(labels: Labels, reference: Labels, n_labels: int) -> Labels:
    """Return `labels` with the names of the labels exchanged so that as many examples as possible agree with `reference`."""
    from scipy.optimize import linear_sum_assignment  # here: its import takes longer than most commands

    both = (labels != UNLABELLED) & (reference != UNLABELLED)
    together = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(together, (labels[both], reference[both]), 1)
    # Of equals, names that are kept: a whole number of agreements outweighs all names together.
    rows, columns = linear_sum_assignment(together * (n_labels + 1) + np.eye(n_labels, dtype=np.int64), maximize=True)
    name = np.append(columns[np.argsort(rows)], UNLABELLED).astype(LabelNumber)
    return name[labels]


def with_result(result: Labels, others: Sequence[Labels], n_labels: int) -> Shares:
    """Return, for each example, the share of the other labellings, aligned with the result, that agree with it."""
    known = np.stack([labels != UNLABELLED for labels in others])
    agree = np.stack([aligned(labels, result, n_labels) == result for labels in others]) & known
    counts = known.sum(axis=0)
    shares: Shares = np.divide(agree.sum(axis=0), counts, out=np.full(len(result), np.nan), where=counts > 0)
    return shares


def pairwise(labellings: Sequence[Labels], n_labels: int) -> float | None:
    """Return the mean over pairs of labellings of the share of examples that agree, aligned; None of less than two."""
    shares = []
    for one, other in combinations(labellings, 2):
        both = (one != UNLABELLED) & (other != UNLABELLED)
        if both.any():
            shares.append(float(np.mean(aligned(one, other, n_labels)[both] == other[both])))
    return float(np.mean(shares)) if shares else None


def by_chance(labellings: Sequence[Labels], units: Sequence[Unit], n_labels: int) -> float:
    """Return the `pairwise` agreement that 95 of 100 sets of random labellings do not exceed.

    Random: in each labelling, units of equal size exchange their labels, so that counts and rules stay as they are. The random
    numbers are fixed.
    """
    rng, drawn = np.random.default_rng(0), []
    known = [unit for unit in units if all((labels[list(unit)] != UNLABELLED).all() for labels in labellings)]
    for _ in range(SHUFFLES):
        shuffled = [exchanged(labels, known, rng) for labels in labellings]
        drawn.append(pairwise(shuffled, n_labels) or 0.0)
    return float(np.quantile(drawn, 0.95))
