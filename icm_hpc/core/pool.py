"""Functions of a labelled pool: margins, conflicts, energy, draw weights."""

import numpy as np
import numpy.typing as npt

from .types import UNLABELLED, Conflict, Labels, Problem, Scores, pool_of


def margins(scores: Scores, labels: Labels) -> npt.NDArray[np.float64]:
    """Return, for each labelled example, log P(its label) - log P(any other label): f64[pool].

    With two labels and label 1 this is log P(True) - log P(False), the published score; nats.
    """
    pool = pool_of(labels)
    rows = scores[pool]
    own = np.take_along_axis(rows, labels[pool, None].astype(np.int64), axis=1)[:, 0]
    others = rows.copy()
    np.put_along_axis(others, labels[pool, None].astype(np.int64), -np.inf, axis=1)
    top = others.max(axis=1, initial=-np.inf)
    rest: npt.NDArray[np.float64] = top + np.log(np.exp(others - top[:, None]).sum(axis=1))
    return np.subtract(own, rest)


def broken(problem: Problem, labels: Labels) -> list[Conflict]:
    """Return the conflicts that `labels` breaks.

    Order: groups by their first labelled member, ascending inside a group, as the published code lists them.
    """
    listed = [
        c
        for c in problem.conflicts
        if UNLABELLED not in (labels[c.first], labels[c.second])
        and (int(labels[c.first]), int(labels[c.second])) in c.rule.forbidden
    ]
    if len(listed) < 2:
        return listed
    leader: dict[int, int] = {}
    for index in pool_of(labels):
        leader.setdefault(int(problem.groups[index]), int(index))
    return sorted(listed, key=lambda c: (leader[int(problem.groups[c.first])], c.first, c.second))


def energy(problem: Problem, labels: Labels, scores: Scores, alpha: float) -> float:
    """Return alpha * mean margin - number of broken conflicts (Wen et al. 2025, equation 3); 0 margin for an empty pool."""
    signed = margins(scores, labels)
    mean = float(np.mean(signed)) if len(signed) else 0.0
    return alpha * mean - len(broken(problem, labels))


def draw_weights(problem: Problem, labels: Labels, linked_weight: float) -> npt.NDArray[np.float64]:
    """Return each example's draw weight: `linked_weight` if unlabelled with a labelled one in its group, else 1."""
    weights = np.ones(problem.n)
    labelled = labels != UNLABELLED
    started = np.isin(problem.groups, np.unique(problem.groups[labelled]))
    weights[started & ~labelled] = linked_weight
    return weights
