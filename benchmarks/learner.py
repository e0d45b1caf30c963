"""A synthetic in-context learner: scores from zero-shot knowledge, attention over like demonstrations, and label frequency."""

import itertools
from collections.abc import Sequence

import numpy as np

from icm_hpc.core.energy import Values
from icm_hpc.core.types import UNLABELLED, Conflict, Labels, Problem, Rule, frozen_labels

CLUSTERS = 12
DIMENSIONS = 6


def problem_of(sizes: Sequence[int], n_labels: int, rule: Rule | None) -> Problem:
    """Return groups of these sizes, in each of which a rule holds between all."""
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    ends = np.cumsum([0, *sizes])
    pairs = [p for a, b in itertools.pairwise(ends.tolist()) for p in itertools.combinations(range(a, b), 2)]
    return Problem(groups, n_labels, tuple(Conflict(a, b, rule) for a, b in pairs) if rule else ())


class Learner:
    """Scores of every example given labels; examples of one cluster mostly have one label.

    Where groups are pairs of which exactly one is true, the second of a pair is of a cluster of the other label. With `shares`,
    as many examples have each label. `preference` is what it gives to one label whatever the text, nats.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        knowledge: float = 0.6,
        in_context: float = 4.0,
        shares: Sequence[float] = (),
        preference: float = 0.0,
    ) -> None:
        rng, n, k = np.random.default_rng([seed, problem.n]), problem.n, problem.n_labels
        centres = rng.normal(size=(CLUSTERS, DIMENSIONS)) * 1.5
        label_of = rng.permutation(np.arange(CLUSTERS) % k)
        cluster = rng.integers(CLUSTERS, size=n)
        truth = np.where(rng.random(n) < 0.92, label_of[cluster], rng.integers(k, size=n))
        for conflict in problem.conflicts if k == 2 else ():
            truth[conflict.second] = 1 - truth[conflict.first]
            cluster[conflict.second] = rng.choice(np.flatnonzero(label_of == truth[conflict.second]))
        if shares:
            truth = rng.permutation(np.repeat(np.arange(k), np.diff(np.round(np.cumsum([0, *shares]) * n).astype(int))))
            own = [rng.choice(np.flatnonzero(label_of == label)) for label in truth]
            cluster = np.where(rng.random(n) < 0.92, own, rng.integers(CLUSTERS, size=n))
        places = centres[cluster] + 0.6 * rng.normal(size=(n, DIMENSIONS))
        distances = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
        self._near = np.exp(-distances / (1.6 * DIMENSIONS))
        np.fill_diagonal(self._near, 0)
        self.truth: Labels = frozen_labels(truth)
        self._prior = knowledge * np.eye(k)[truth] + rng.normal(size=(n, k)) / np.sqrt(2)
        self.preferred = preference * np.eye(k)[rng.integers(k)]
        self._prior += self.preferred
        self._in_context, self._k = in_context, k

    def scores(self, labels: Labels) -> Values:
        """Return log P of each label of each example given the labels of all others: f64[N, L]."""
        shown = np.zeros((len(labels), self._k))
        on = np.flatnonzero(labels != UNLABELLED)
        shown[on, labels[on]] = 1
        near = self._near @ shown
        attention = (near - near.mean(axis=1, keepdims=True)) / (near.sum(axis=1, keepdims=True) + 1)
        others = shown.sum(axis=0) - shown
        frequency = others / np.maximum(1, others.sum(axis=1, keepdims=True))
        logits = self._prior + self._in_context * attention + frequency
        scores: Values = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        return scores
