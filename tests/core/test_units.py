"""Units that rules link, and the labels that are chosen for them together."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc.core import energy
from icm_hpc.core.types import UNLABELLED, Conflict, Labels, Problem, Rule, frozen_labels
from icm_hpc.core.units import best_labels, joints, links_of, units_of
from icm_hpc.tasks.task import AT_MOST_ONE, EXACTLY_ONE, SAME, different

RULES = {"exactly one": EXACTLY_ONE, "at most one": AT_MOST_ONE, "same": SAME, "different": different(2)}


def group(rule: Rule, n: int, n_labels: int = 2) -> Problem:
    """Return one group in which a rule holds between all."""
    conflicts = tuple(Conflict(a, b, rule) for a, b in itertools.combinations(range(n), 2))
    return Problem(np.zeros(n, dtype=np.int64), n_labels, conflicts)


def broken_and_value(problem: Problem, values: energy.Values, labels: Labels) -> tuple[int, float]:
    """Return how good a labelling is; less is better."""
    return len(energy.broken(problem, labels)), -float(sum(values[i, label] for i, label in enumerate(labels)))


@given(
    rule=st.sampled_from(sorted(RULES)),
    n=st.integers(1, 6),
    values=st.lists(st.floats(-9, 0, width=16), min_size=12, max_size=12),
)
def test_a_unit_gets_the_labels_that_no_other_labels_beat(rule: str, n: int, values: list[float]) -> None:
    problem, worth = group(RULES[rule], n), np.array(values).reshape(6, 2)[:n]
    none = frozen_labels(np.full(n, UNLABELLED))
    (found, *_) = joints(tuple(range(n)), links_of(problem), worth, none)
    every = (frozen_labels(one) for one in itertools.product(range(2), repeat=n))
    best = min(broken_and_value(problem, worth, labels) for labels in every)
    assert broken_and_value(problem, worth, frozen_labels(found.labels)) == pytest.approx(best)


def test_labels_outside_a_unit_count_and_stay() -> None:
    problem = group(EXACTLY_ONE, 2)
    values = np.array([[0.0, 0.0], [-5.0, 0.0]])
    labels = frozen_labels([1, UNLABELLED])
    assert best_labels([(1,)], links_of(problem), values, labels) == {1: 0}


def test_more_members_than_labels_break_as_few_rules_as_possible() -> None:
    problem = group(different(2), 3)
    best = best_labels([(0, 1, 2)], links_of(problem), np.zeros((3, 2)), frozen_labels([UNLABELLED] * 3))
    assert len(energy.broken(problem, frozen_labels(list(best.values())))) == 1


def test_a_group_of_sixty_members_is_labelled_by_its_one_true_member() -> None:
    problem, values = group(AT_MOST_ONE, 60), np.tile([-1.0, -2.0], (60, 1))
    values[41] = [-3.0, -0.1]
    best = best_labels([tuple(range(60))], links_of(problem), values, frozen_labels([UNLABELLED] * 60))
    assert [i for i, label in best.items() if label] == [41]


def test_the_last_of_a_hundred_members_can_be_the_true_one() -> None:
    problem, values = group(AT_MOST_ONE, 100), np.tile([0.0, 1.0], (100, 1))
    values[99] = [0.0, 50.0]
    best = best_labels([tuple(range(100))], links_of(problem), values, frozen_labels([UNLABELLED] * 100))
    assert [i for i, label in best.items() if label] == [99]


def test_units_are_what_conflicts_connect_among_the_members() -> None:
    chain = Problem(np.zeros(5, dtype=np.int64), 2, (Conflict(0, 1, SAME), Conflict(1, 4, SAME)))
    assert units_of(links_of(chain), range(5)) == [(0, 1, 4), (2,), (3,)]
    assert units_of(links_of(chain), [0, 2, 4]) == [(0,), (2,), (4,)]
