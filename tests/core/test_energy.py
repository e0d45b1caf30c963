"""Margins, energies and balance of labelled pools."""

import numpy as np
import pytest

from icm_hpc.core import energy
from icm_hpc.core.types import Annealing, Conflict, Problem, frozen_labels
from icm_hpc.tasks.task import EXACTLY_ONE, different

P = np.log(np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.25, 0.25, 0.5]]))
LABELS = frozen_labels([2, 0, -1, 1])
THREE = Problem(np.array([0, 0, 1, 1]), 3, (Conflict(0, 1, different(3)), Conflict(2, 3, different(3))))


def test_a_margin_is_the_log_odds_of_the_label_against_all_others() -> None:
    np.testing.assert_allclose(energy.margins(P, LABELS), np.log([0.5 / 0.5, 0.6 / 0.4, 0.25 / 0.75]))


@pytest.mark.parametrize(
    ("objective", "mean"),
    [("margin", np.mean(np.log([1, 1.5, 1 / 3]))), ("logprob", np.mean(np.log([0.5, 0.6, 0.25])))],
)
def test_energy_is_alpha_times_the_mean_of_the_objective_less_the_broken_conflicts(objective: str, mean: float) -> None:
    found = energy.evaluation(THREE, Annealing(alpha=7, objective=objective), LABELS, P)
    assert found.predictability == pytest.approx(mean)
    assert found.labelling.energy == pytest.approx(7 * mean)
    broken = energy.evaluation(THREE, Annealing(alpha=7, objective=objective), frozen_labels([0, 0, 1, 1]), P)
    assert len(broken.broken) == 2
    assert broken.labelling.energy == pytest.approx(7 * broken.predictability - 2)


def test_an_empty_pool_has_no_predictability() -> None:
    assert energy.evaluation(THREE, Annealing(), frozen_labels([-1] * 4), P).labelling.energy == 0


def test_a_conflict_with_an_unlabelled_example_is_not_broken() -> None:
    assert energy.broken(THREE, frozen_labels([1, -1, -1, -1])) == []


def test_a_broken_pair_of_different_is_repaired_by_changing_either_label() -> None:
    assert different(3).repairs[1, 1] == [(1, 0), (1, 2), (0, 1), (2, 1)]
    assert set(EXACTLY_ONE.repairs) == {(0, 0), (1, 1)}


def test_entropy_tells_balance_from_collapse() -> None:
    assert energy.counts(LABELS, 3) == (1, 1, 1)
    assert energy.entropy((1, 1, 1)) == pytest.approx(np.log(3))
    assert energy.entropy((4, 0)) == 0
    assert energy.entropy((0, 0)) == 0


def test_an_unlabelled_example_is_drawn_more_often_where_its_group_has_begun() -> None:
    weights = energy.draw_weights(THREE, frozen_labels([0, -1, -1, -1]), 100)
    assert weights.tolist() == [1, 100, 1, 1]
