"""Functions of a labelled pool: predictability, conflicts, energy, balance, draw weights."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .types import UNLABELLED, Annealing, Conflict, Evaluation, Labelling, LabelNumber, Labels, Problem, Scores, pool_of

Values: TypeAlias = npt.NDArray[np.float64]  # [P, L]: of each label of each example, or [P]: of its own; nats


def margins(scores: Scores, labels: Labels) -> Values:
    """Return, for each labelled example, log P(its label) - log P(any other label): f64[pool], nats.

    With two labels and label 1 this is log P(True) - log P(False), the published score.
    """
    own = logprobs(scores, labels)
    pool = pool_of(labels)
    others = scores[pool]  # a copy
    np.put_along_axis(others, labels[pool, None].astype(np.int64), -np.inf, axis=1)
    top = others.max(axis=1, initial=-np.inf)
    rest: Values = top + np.log(np.exp(others - top[:, None]).sum(axis=1))
    return np.subtract(own, rest)


def logprobs(scores: Scores, labels: Labels) -> Values:
    """Return, for each labelled example, log P(its label): f64[pool], nats."""
    pool = pool_of(labels)
    return np.take_along_axis(scores[pool], labels[pool, None].astype(np.int64), axis=1)[:, 0]


def each_label(of: Callable[[Scores, Labels], Values], scores: Scores) -> Values:
    """Return `of` for each label as if all examples had it: f64[P, L], of scores f64[P, L]."""
    n, n_labels = scores.shape
    return np.stack([of(scores, np.full(n, label, dtype=LabelNumber)) for label in range(n_labels)], axis=1)


def calibrated(annealing: Annealing, scores: Scores, pool: Scores) -> Values:
    """Return the margin of each label, less its mean over `pool`, plus the log-odds of the label's prior: f64[P, L], nats.

    So one label for all examples earns its log-odds and nothing more (batch calibration, Zhou et al. 2023,
    arXiv 2309.17249). `annealing.calibration` is the share of that correction that is applied.
    """
    margin, n_labels = each_label(margins, scores), scores.shape[1]
    if not len(pool):
        return margin
    prior = np.array(annealing.label_prior or [1 / n_labels] * n_labels)
    expected: Values = np.log(prior / (1 - prior))
    mean = margin.mean(axis=0) if pool is scores else each_label(margins, pool).mean(axis=0)
    shifted: Values = margin - annealing.calibration * (mean - expected)
    return shifted


# What is averaged over the pool, for each label that an example may have. margin: the published code's; logprob: the
# paper's (its equation 1); calibrated: the margin less what the pool gives to a label whatever the text.
OBJECTIVES: dict[str, Callable[[Annealing, Scores, Scores], Values]] = {
    "margin": lambda _, scores, __: each_label(margins, scores),
    "logprob": lambda _, scores, __: each_label(logprobs, scores),
    "calibrated": calibrated,
}


def worth(annealing: Annealing, scores: Scores, pool: Scores | None = None) -> Values:
    """Return what each label of each example adds to the mean objective: f64[P, L], nats, of the scores f64[P, L].

    They are those of the pool, or of other examples given `pool`, whose scores f64[M, L] they are calibrated by.
    """
    return OBJECTIVES[annealing.objective](annealing, scores, scores if pool is None else pool)


def broken(problem: Problem, labels: Labels) -> list[Conflict]:
    """Return the conflicts that `labels` breaks.

    Order: groups by their first labelled member, ascending inside a group, as the published code lists them.
    """
    listed = [
        c
        for c in problem.conflicts
        if UNLABELLED not in (labels[c.first], labels[c.second])
        and (int(labels[c.first]), int(labels[c.second])) in c.rule.repairs
    ]
    if len(listed) < 2:
        return listed
    leader: dict[int, int] = {}
    for index in pool_of(labels):
        leader.setdefault(int(problem.groups[index]), int(index))
    return sorted(listed, key=lambda c: (leader[int(problem.groups[c.first])], c.first, c.second))


def evaluation(problem: Problem, annealing: Annealing, labels: Labels, scores: Scores) -> Evaluation:
    """Return the labelling's energy, alpha * predictability - broken conflicts (Wen et al. 2025, equation 3), and its parts.

    The predictability of an empty pool is 0.
    """
    pool = pool_of(labels)
    terms = np.take_along_axis(worth(annealing, scores[pool]), labels[pool, None].astype(np.int64), axis=1)[:, 0]
    predictability = float(np.mean(terms)) if len(terms) else 0.0
    found = tuple(broken(problem, labels))
    energy = annealing.alpha * predictability - len(found)
    return Evaluation(Labelling(labels, scores, energy), predictability, found)


def counts(labels: Labels, n_labels: int) -> tuple[int, ...]:
    """Return how many examples have each label."""
    return tuple(np.bincount(labels[labels != UNLABELLED], minlength=n_labels).tolist())


def entropy(label_counts: tuple[int, ...]) -> float:
    """Return the entropy of the labels' shares: 0 if all are the same, log L if all are as many; nats."""
    shares = np.array([count for count in label_counts if count], dtype=np.float64) / max(1, sum(label_counts))
    return float(-(shares * np.log(shares)).sum()) + 0.0  # no -0.0


def draw_weights(problem: Problem, labels: Labels, linked_weight: float) -> npt.NDArray[np.float64]:
    """Return each example's draw weight: `linked_weight` if unlabelled with a labelled one in its group, else 1."""
    weights = np.ones(problem.n)
    labelled = labels != UNLABELLED
    started = np.isin(problem.groups, np.unique(problem.groups[labelled]))
    weights[started & ~labelled] = linked_weight
    return weights
