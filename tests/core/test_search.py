"""Steps of the search on small hand-made problems; tests/core/test_annealing.py has its statistics."""

import math
from typing import Any

import numpy as np
import pytest

from icm_hpc.core import published, search
from icm_hpc.core.methods import single
from icm_hpc.core.types import Annealing, Conflict, Labelling, Problem, RandomDraws, ScoreOne, State, frozen_labels
from icm_hpc.tasks.task import EXACTLY_ONE


def answered(asking: search.Asking[Any], favoured: list[int], strength: float = 1.0) -> Any:
    """Answer a search by a model that favours one label of each example, whatever the others are."""
    scores = np.log(np.full((len(favoured), 2), 1 / (1 + math.exp(strength))))
    scores[range(len(favoured)), favoured] += strength
    try:
        asks = next(asking)
        while True:
            asks = asking.send([scores[ask.index] if isinstance(ask, ScoreOne) else scores for ask in asks])
    except StopIteration as end:
        return end.value


def walked(problem: Problem, annealing: Annealing, favoured: list[int], steps: int) -> State:
    """Return the state after some steps."""
    state: State = answered(single.seed(problem, annealing, RandomDraws.of(0, 0, 0)), favoured)[0]
    for step in range(1, steps):
        state, _ = answered(single.step(problem, annealing, state, RandomDraws.of(0, 0, step)), favoured)
    return state


def test_seeds_are_balanced_and_the_first_examples() -> None:
    problem = Problem(np.arange(8), 2)
    state, info = answered(single.seed(problem, Annealing(num_seeds=5), RandomDraws.of(3, 0, 0)), [0] * 8)
    assert sorted(state.current.labels[:5].tolist()) == [0, 0, 0, 1, 1]
    assert state.current.labels[5:].tolist() == [-1] * 3
    assert info.counts == (3, 2)


def test_a_pool_without_conflicts_ends_as_the_model_would_have_it() -> None:
    favoured = [0, 1, 1, 0, 1, 0]
    state = walked(Problem(np.arange(6), 2), Annealing(num_seeds=2), favoured, 80)
    assert state.current.labels.tolist() == favoured


def test_the_best_labelling_of_a_grown_pool_starts_again() -> None:
    labels = frozen_labels([1, 1, -1])
    start = Labelling(labels, np.zeros((3, 2)), 99.0)
    state = State(step=0, flips=0, current=start, best=start)
    annealing = Annealing(initial_temperature=1e6, final_temperature=1e6)
    for step in range(1, 60):
        state, _ = answered(
            single.step(Problem(np.arange(3), 2), annealing, state, RandomDraws.of(0, 0, step)), [0, 0, 0]
        )
    assert state.best.labels.min() == 0, "all three are labelled"
    assert state.best.energy < 99


def test_acceptance_is_decided_where_exp_would_overflow() -> None:
    assert search.accepts(0.999, 1e6, 1e-3)
    assert not search.accepts(1e-300, -1e6, 1e-3)
    assert search.accepts(0.0, -1.0, 1.0)


@pytest.mark.parametrize(
    ("schedule", "after_3"), [("log", 10 / (1 + 2 * math.log(4))), ("exp", 10 * 0.5**3), ("constant", 10)]
)
def test_temperatures_fall_with_flips_to_the_final_one(schedule: str, after_3: float) -> None:
    annealing = Annealing(schedule=schedule, initial_temperature=10, final_temperature=0.5, decay=0.5)
    assert search.temperature(annealing, 3) == pytest.approx(after_3)
    assert search.temperature(annealing, 10**6) >= 0.5


def test_what_the_search_left_unlabelled_is_completed_without_breaking_a_conflict() -> None:
    problem = Problem(np.array([0, 0, 1]), 2, (Conflict(0, 1, EXACTLY_ONE),))
    final = Labelling(frozen_labels([1, -1, -1]), np.full((3, 2), np.nan), 0.0)
    labels, scores = answered(search.complete(problem, Annealing(), final), [1, 1, 1])
    assert labels.tolist() == [1, 0, 1]
    assert np.isfinite(scores[1:]).all()


def test_the_last_pass_is_calibrated_as_the_search_is() -> None:
    problem, annealing = Problem(np.arange(4), 2), Annealing(objective="calibrated")
    sure_of_0 = np.log(np.array([[0.99, 0.01], [0.90, 0.10], [0.99, 0.01], [0.90, 0.10]]))
    scores = np.where(np.arange(4)[:, None] < 2, sure_of_0, np.nan)
    final = Labelling(frozen_labels([0, 1, -1, -1]), scores, 0.0)
    asking = search.complete(problem, annealing, final)
    next(asking)
    with pytest.raises(StopIteration) as end:
        asking.send([sure_of_0[2], sure_of_0[3]])
    assert end.value.value[0].tolist() == [0, 1, 0, 1]


def test_one_label_for_all_is_evaluated_for_each_label() -> None:
    problem = Problem(np.array([0, 0]), 2, (Conflict(0, 1, EXACTLY_ONE),))
    zeros, ones = (answered(search.uniform(problem, Annealing(alpha=1), label), [1, 1]) for label in (0, 1))
    assert [len(zeros.broken), len(ones.broken)] == [1, 1]
    assert (zeros.labelling.energy, ones.labelling.energy) == (pytest.approx(-2), pytest.approx(0))


def test_a_token_that_names_two_labels_or_none_counts_for_neither() -> None:
    scores = published.label_scores({"True": -1.0, " true": -2.0, "falsetrue": -0.1, "yes": -0.1}, ("false", "true"))
    assert scores == [math.log(1e-5), math.log(1e-5 + math.exp(-1) + math.exp(-2))]
