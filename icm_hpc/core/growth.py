"""How a pool begins and grows: its first labels, the units that are added next, and what their labels are worth."""

import math
from collections.abc import Sequence

import numpy as np

from .energy import Values, counts, worth
from .search import Answer, Asking
from .types import (
    UNLABELLED,
    Annealing,
    Draws,
    Labelling,
    Labels,
    Problem,
    ScoreOne,
    frozen_labels,
    pool_of,
    with_labels,
)
from .units import Joint, Unit, joints, links_of, units_of

# How the first examples get their labels: those that the model is most certain of without demonstrations, or random ones.
FIRST_LABELS = ("zero_shot", "random")


def zero_shot(problem: Problem) -> Asking[Values]:
    """Ask for the scores of every example without demonstrations: f64[N, L], nats; NaN where no answer was a score."""
    none = frozen_labels(np.full(problem.n, UNLABELLED))
    answers: Sequence[Answer | None] = yield [ScoreOne(i, none, shared_prefix=True) for i in range(problem.n)]
    unknown = np.full(problem.n_labels, np.nan)
    return np.stack([unknown if answer is None else answer for answer in answers])


def zero_shot_labels(scores: Values) -> Labels:
    """Return the label that the model finds most probable for each example; UNLABELLED where no answer was a score."""
    known = np.isfinite(scores).all(axis=1)
    return frozen_labels(np.where(known, np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=1), UNLABELLED))


def first_labels(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[tuple[Labels, tuple[int, ...]]]:
    """Label about `num_seeds` examples, whole units, as many of each label as rules allow: those that the model is most
    certain of without demonstrations, or random ones. Return them, and the counts of all zero-shot labels, if there are any.
    """
    counted: tuple[int, ...] = ()
    none = frozen_labels(np.full(problem.n, UNLABELLED))
    if annealing.first_labels == "random":
        values = draws.uniforms(problem.n * problem.n_labels).reshape(problem.n, problem.n_labels)
    else:
        scores = yield from zero_shot(problem)
        counted = counts(zero_shot_labels(scores), problem.n_labels)
        known = np.isfinite(scores).all(axis=1)
        values = scores.copy()
        values[known] = worth(annealing, scores[known])
        values[known] -= values[known].mean(
            axis=0
        )  # else most labels are the one that the model prefers without a text
    links = links_of(problem)
    units = (unit for unit in units_of(links, range(problem.n)) if np.isfinite(values[list(unit)]).all())
    ways = [(unit, joints(unit, links, values, none)) for unit in units]
    ranked = sorted(
        (-_lead(place, found), unit, found[place].labels) for unit, found in ways for place in range(len(found))
    )
    return with_labels(none, _balanced(ranked, annealing.num_seeds, problem.n_labels)), counted


def _lead(place: int, found: Sequence[Joint]) -> float:
    """Return by how much one of the best two ways to label a unit is worth more than the other; breaking more is worst."""
    if len(found) == 1 or found[0].broken != found[1].broken:
        return math.inf if place == 0 else -math.inf
    return found[place].value - found[1 - place].value


def _balanced(ranked: Sequence[tuple[float, Unit, tuple[int, ...]]], count: int, n_labels: int) -> dict[int, int]:
    """Return labels of the first units until `count` examples have one; each time of those with the label that is scarcest."""
    labels: dict[int, int] = {}
    given_to = np.zeros(n_labels, dtype=np.int64)
    while len(labels) < max(1, count):
        left = [(unit, given) for _, unit, given in ranked if unit[0] not in labels]
        if not left:
            break
        scarcest = np.argsort(given_to, kind="stable").tolist()
        unit, given = next(one for label in scarcest for one in left if label in one[1])
        labels.update(zip(unit, given, strict=True))
        np.add.at(given_to, list(given), 1)
    return labels


def share_within(size: int, n: int, *, share: float, growths: int | None) -> float:
    """Return how much a pool of `size` of `n` examples grows next, as a share of itself: `share`, or more if it would not be
    full within so many growths (None: any number). An empty pool has no share that would fill it.
    """
    return share if growths is None or not size else max(share, (n / size) ** (1 / max(1, growths)) - 1)


def sizes(size: int, n: int, *, share: float, growths: int | None = None) -> list[int]:
    """Return the sizes of a pool of `size` examples after each growth until it is full, within so many growths."""
    found = [size]
    while found[-1] < n:
        left = None if growths is None else growths + 1 - len(found)
        found.append(min(n, found[-1] + _room(found[-1], share_within(found[-1], n, share=share, growths=left))))
    return found[1:]


def _room(size: int, share: float) -> int:
    """Return how many examples a pool of `size` grows by."""
    return max(1, math.ceil(share * size))


def next_units(problem: Problem, labels: Labels, draws: Draws, *, share: float) -> list[Unit]:
    """Return units of unlabelled examples, `share` of the pool's size: first those whose group has begun, else at random."""
    left = np.flatnonzero(labels == UNLABELLED).tolist()
    units = units_of(links_of(problem), left)
    begun = set(problem.groups[pool_of(labels)].tolist())
    order = [units[place] for place in draws.permutation(len(units))]
    order.sort(key=lambda unit: int(problem.groups[unit[0]]) not in begun)
    room = _room(problem.n - len(left), share)
    added: list[Unit] = []
    for unit in order:
        if sum(map(len, added)) >= room:
            break
        added.append(unit)
    return added


def values_given_pool(annealing: Annealing, pool: Labelling, added: Sequence[Unit]) -> Asking[Values]:
    """Ask for the scores of unlabelled examples given the pool; return what labels of both are worth: f64[N, L], else NaN."""
    asked = [index for unit in added for index in unit]
    answers = yield [ScoreOne(index, pool.labels, shared_prefix=True) for index in asked]
    members, values = pool_of(pool.labels), np.full(pool.scores.shape, np.nan)
    together = np.concatenate([members, np.array(asked, dtype=np.int64)])
    values[together] = worth(annealing, np.concatenate([pool.scores[members], np.stack(answers)]))
    return values
