"""Signs that a result is not to be trusted."""

import numpy as np
import pytest

from icm_hpc.core import alarms, energy
from icm_hpc.core.alarms import Permuted
from icm_hpc.core.types import Annealing, Conflict, Labels, Problem, Rule, ScorePool, Scores, frozen_labels

ANNEALING = Annealing(objective="calibrated")
EXACTLY_ONE = Rule("exactly_one", {(0, 0): ((0, 1),), (1, 1): ((0, 1),)})


def problem(n: int, n_labels: int = 2, conflicts: tuple[Conflict, ...] = ()) -> Problem:
    return Problem(np.arange(n), n_labels, conflicts)


def permuted(labels: Labels, scores_of: dict[bool, Scores]) -> Permuted | None:
    """Return what is found if the result has the scores of True, and the same labels on other texts those of False."""
    of = problem(len(labels))
    result = energy.evaluation(of, ANNEALING, labels, scores_of[True]).labelling
    asking = alarms.permuted(of, ANNEALING, result)
    (ask,) = next(asking)
    assert isinstance(ask, ScorePool)
    assert not np.array_equal(ask.labels, labels)
    with pytest.raises(StopIteration) as end:
        asking.send([scores_of[False]])
    found: Permuted | None = end.value.value
    return found


def scores(labels: Labels, certainty: float, seed: int) -> Scores:
    """Return noisy scores that prefer these labels by so many nats."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), 2))
    found: Scores = np.log(0.5) + noise + certainty * np.eye(2)[labels]
    return found


def test_labels_are_exchanged_within_their_counts_and_as_unlike_as_possible() -> None:
    labels = frozen_labels([0] * 6 + [1] * 2)
    other = alarms.permuted_labels(problem(8), labels)
    assert other is not None
    assert sorted(other) == sorted(labels)
    assert np.sum(other != labels) == 4
    again = alarms.permuted_labels(problem(8), labels)
    assert again is not None
    assert np.array_equal(other, again), "a resumed run asks for the same"


def test_labels_that_rules_link_move_together() -> None:
    pairs = tuple(Conflict(i, i + 1, EXACTLY_ONE) for i in range(0, 8, 2))
    other = alarms.permuted_labels(problem(8, conflicts=pairs), frozen_labels([0, 1, 0, 1, 1, 0, 1, 0]))
    assert other is not None
    assert not energy.broken(problem(8, conflicts=pairs), other)


def test_one_label_for_all_cannot_be_exchanged() -> None:
    asking = alarms.permuted(
        problem(4),
        ANNEALING,
        energy.evaluation(problem(4), ANNEALING, frozen_labels([1] * 4), np.zeros((4, 2))).labelling,
    )
    with pytest.raises(StopIteration) as end:
        next(asking)
    assert end.value.value is None


def test_labels_that_the_texts_tell_are_worth_more_than_on_other_texts() -> None:
    labels = frozen_labels(np.arange(32) % 2)
    found = permuted(labels, {True: scores(labels, 2, seed=0), False: scores(labels, 0, seed=1)})
    assert found is not None
    assert found.p < 0.01


def test_labels_that_the_texts_do_not_tell_are_worth_no_more_in_19_of_20_cases() -> None:
    labels = frozen_labels(np.arange(32) % 2)
    found = [
        permuted(labels, {own: scores(labels, 0, seed=2 * seed + own) for own in (True, False)}) for seed in range(100)
    ]
    assert sum(one is not None and one.p <= 0.05 for one in found) <= 11


def test_a_model_that_heeds_no_text_is_no_better_than_chance() -> None:
    labels, same = frozen_labels(np.arange(8) % 2), np.full((8, 2), -1.0)
    assert permuted(labels, {True: same, False: same}) == Permuted(0.0, 1.0)


@pytest.mark.parametrize(
    ("counts", "others", "label"),
    [
        ((24, 24), (5, 43), 0),
        ((5, 3), (2, 6), None),  # too few to say
        ((500, 500), (400, 600), None),  # certain, and little
        ((48, 0), (24, 24), 0),
        ((0, 0), (0, 0), None),
        ((48, 0), (48, 0), None),
        ((100, *[0] * 76), (2, *[2] * 49, *[0] * 27), 0),
    ],
)
def test_balances_differ_by_much_and_by_more_than_chance(
    counts: tuple[int, ...], others: tuple[int, ...], label: int | None
) -> None:
    found = alarms.shift(counts, others)
    assert (found and found.label) == label
