"""The search methods on small problems whose scores are made by a function; tests/core/test_search.py has the published one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.learner import Learner, problem_of
from icm_hpc.core import energy, growth, search
from icm_hpc.core.energy import Values
from icm_hpc.core.methods import METHODS, blocks
from icm_hpc.core.methods.method import Method, forecast_of, is_full
from icm_hpc.core.types import (
    UNLABELLED,
    Annealing,
    Budget,
    LabelNumber,
    Labels,
    Problem,
    RandomDraws,
    ScoreOne,
    ScorePool,
    State,
    StepInfo,
    frozen_labels,
    pool_of,
)
from icm_hpc.tasks.task import AT_MOST_ONE, EXACTLY_ONE, SAME, different

ANNEALING = Annealing(**METHODS["blocks"].defaults)
NO_LIMIT = Budget()


def answered(asking: search.Asking[Any], scores: Any, asked: list[Any]) -> Any:
    """Answer a method by a function from labels to the scores of every example."""
    try:
        asks = next(asking)
        while True:
            asked += asks
            asks = asking.send([_answer(ask, scores(ask.labels)) for ask in asks])
    except StopIteration as end:
        return end.value


def _answer(ask: Any, scores: Values) -> Values:
    if isinstance(ask, ScoreOne):
        one: Values = scores[ask.index]
        return one
    return np.where((ask.labels == UNLABELLED)[:, None], np.nan, scores)


def walked(
    method: Method, problem: Problem, annealing: Annealing, scores: Any, seed: int = 0, *, budget: Budget = NO_LIMIT
) -> tuple[State, list[StepInfo], list[Any]]:
    """Return where a search ends, its steps, and all that it asked."""
    asked: list[Any] = []
    state, info = answered(method.seed(problem, annealing, RandomDraws.of(seed, 0, 0)), scores, asked)
    infos, scorings = [info], info.scorings
    while not (method.finished(problem, annealing, state) or budget.is_spent(state.step, scorings)):
        draws, left = RandomDraws.of(seed, 0, state.step + 1), budget.left(state.step, scorings)
        state, info = answered(method.step(problem, annealing, state, draws, steps_left=left), scores, asked)
        infos.append(info)
        scorings += info.scorings
        assert len(infos) < 500, "it must end by itself"
    return state, infos, asked


RULES = {"none": None, "exactly one": EXACTLY_ONE, "at most one": AT_MOST_ONE, "same": SAME, "different": different(3)}


@given(
    rule=st.sampled_from(sorted(RULES)),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    seed=st.integers(0, 99),
    first=st.sampled_from(["zero_shot", "random"]),
    objective=st.sampled_from(sorted(energy.OBJECTIVES)),
)
def test_blocks_ends_with_every_example_labelled_and_no_rule_broken_that_need_not_be(
    rule: str, sizes: list[int], seed: int, first: str, objective: str
) -> None:
    n_labels = 3 if rule == "different" else 2
    members = [
        min(size, 3) if rule == "different" else min(size, 2) if rule == "exactly one" else size for size in sizes
    ]
    problem = problem_of(members, n_labels, RULES[rule])
    annealing = replace(ANNEALING, first_labels=first, objective=objective)
    state, infos, _ = walked(METHODS["blocks"], problem, annealing, Learner(problem, seed).scores, seed)
    assert is_full(state)
    assert energy.broken(problem, state.best.labels) == []
    assert infos[-1].pool == problem.n
    assert [info.step for info in infos] == list(range(len(infos)))


@given(
    method=st.sampled_from(["blocks", "bootstrap"]),
    rule=st.sampled_from(["none", "exactly one", "same"]),
    groups=st.integers(2, 25),
    seeds=st.sampled_from([1, 8, 100]),
    limit=st.integers(2, 25),
    is_of_steps=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_search_within_any_budget_of_two_scorings_or_more_labels_every_example(
    method: str, rule: str, groups: int, seeds: int, *, limit: int, seed: int, is_of_steps: bool
) -> None:
    problem = problem_of([{"exactly one": 2, "same": 5}.get(rule, 1)] * groups, 2, RULES[rule])
    annealing = replace(ANNEALING, num_seeds=seeds)
    budget = Budget(steps=limit - 1) if is_of_steps else Budget(scorings=limit)
    scores = Learner(problem, seed).scores
    state, infos, asked = walked(METHODS[method], problem, annealing, scores, seed, budget=budget)
    assert is_full(state)
    assert sum(isinstance(ask, ScorePool) for ask in asked) == sum(info.scorings for info in infos) <= limit


@pytest.mark.parametrize("size", [0, 1, 5, 64])
@pytest.mark.parametrize("growths", [None, 0, 1, 2, 7, 50])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_pool_is_full_after_as_many_growths_as_there_may_be(size: int, growths: int | None, share: float) -> None:
    sizes = growth.sizes(size, 64, share=share, growths=growths)
    assert max({size, *sizes}) == 64
    assert sizes == sorted(set(sizes))
    if growths is not None and size:
        assert len(sizes) <= max(1, growths)


@pytest.mark.parametrize("method", ["blocks", "bootstrap"])
def test_a_pool_that_is_empty_grows(method: str) -> None:
    problem = problem_of([1] * 12, 2, None)
    learner = Learner(problem, 0)
    nothing = frozen_labels(np.full(12, UNLABELLED))
    empty = energy.evaluation(problem, ANNEALING, nothing, np.full((12, 2), np.nan)).labelling
    state = METHODS[method].state(0, 0, current=empty, best=empty)
    after, _ = answered(
        METHODS[method].step(problem, ANNEALING, state, RandomDraws.of(0, 0, 1), steps_left=3), learner.scores, []
    )
    assert len(pool_of(after.current.labels)) == 1


def test_fewer_examples_are_added_after_each_growth_that_was_abandoned() -> None:
    problem = problem_of([1] * 64, 2, None)
    learner, method, asked = Learner(problem, 0), METHODS["blocks"], []
    state, _ = answered(method.seed(problem, ANNEALING, RandomDraws.of(0, 0, 0)), learner.scores, [])
    for _ in range(4):
        draws = RandomDraws.of(0, 0, state.step + 1)
        asked.append(len(next(method.step(problem, ANNEALING, state, draws, steps_left=1))))
        state = method.abandoned(ANNEALING, state)
    assert asked == [56, 28, 14, 7]


def test_a_pool_settles_between_its_growths_where_the_budget_has_room_for_it() -> None:
    problem = problem_of([1] * 64, 2, None)
    scores, pools = Learner(problem, 0).scores, {}
    for scorings in (None, 100, 12, 7, 3):
        _, infos, _ = walked(METHODS["blocks"], problem, ANNEALING, scores, budget=Budget(scorings=scorings))
        pools[scorings] = [info.pool for info in infos]
    assert pools[100] == pools[None]
    assert pools[12][:5] == [8, 12, 18, 27, 41]
    assert pools[7] == [8, 12, 18, 27, 41, 62, 64]
    assert pools[3] == [8, 23, 64]
    for scorings in (7, 3):
        assert forecast_of(METHODS["blocks"], problem, ANNEALING, Budget(scorings=scorings)) == pools[scorings]


def test_blocks_ends_where_no_unit_alone_would_raise_the_energy() -> None:
    problem = problem_of([2] * 16, 2, EXACTLY_ONE)
    learner = Learner(problem, 3)
    state, _, _ = walked(METHODS["blocks"], problem, ANNEALING, learner.scores)
    reached = state.current
    for first in range(0, problem.n, 2):
        labels = reached.labels.copy()
        labels[first : first + 2] = 1 - labels[first : first + 2]
        scores = learner.scores(labels)
        gains = reached.scores[first : first + 2, 1] - reached.scores[first : first + 2, 0]
        wanted = (gains * (labels[first : first + 2] * 2.0 - 1)).sum() > 0
        if wanted:  # else its own scores do not propose it
            assert energy.evaluation(problem, ANNEALING, labels, scores).labelling.energy <= reached.energy


@pytest.mark.parametrize("seed", range(6))
def test_kicks_never_end_with_less_energy_and_go_on_from_the_best_labelling(seed: int) -> None:
    problem = problem_of([2] * 12, 2, EXACTLY_ONE)
    scores, ends = Learner(problem, seed).scores, []
    for kicks in (0, 1, 3):
        state, infos, _ = walked(METHODS["blocks"], problem, replace(ANNEALING, kicks=kicks), scores, seed)
        ends.append((state, len(infos)))
    assert ends[0][0].best.energy <= ends[1][0].best.energy <= ends[2][0].best.energy
    assert ends[0][1] < ends[1][1] < ends[2][1]
    assert [end.kicks for end, _ in ends if isinstance(end, blocks.Blocks)] == [0, 1, 3]
    assert all(energy.broken(problem, end.current.labels) == [] for end, _ in ends)


def test_blocks_finds_labels_in_a_few_scorings_of_the_pool() -> None:
    problem = problem_of([2] * 32, 2, EXACTLY_ONE)
    learner = Learner(problem, 1)
    state, infos, asked = walked(METHODS["blocks"], problem, ANNEALING, learner.scores)
    pools = [ask for ask in asked if isinstance(ask, ScorePool)]
    assert len(pools) == sum(info.scorings for info in infos) < 40
    assert np.mean(state.best.labels == learner.truth) > 0.9


def test_growth_asks_each_example_once_behind_one_prefix() -> None:
    problem = problem_of([2] * 20, 2, EXACTLY_ONE)
    _, _, asked = walked(
        METHODS["blocks"], problem, replace(ANNEALING, first_labels="random"), Learner(problem, 0).scores
    )
    singles = [ask for ask in asked if isinstance(ask, ScoreOne)]
    assert all(ask.shared_prefix and ask.labels[ask.index] == UNLABELLED for ask in singles)
    assert len({ask.index for ask in singles}) == len(singles) == problem.n - 8


def test_the_first_labels_are_certain_and_balanced() -> None:
    problem = problem_of([1] * 30, 3, None)
    learner = Learner(problem, 2)
    _, infos, _ = walked(METHODS["blocks"], problem, replace(ANNEALING, num_seeds=9), learner.scores)
    assert infos[0].counts == (3, 3, 3)
    _, infos, _ = walked(
        METHODS["blocks"], problem, replace(ANNEALING, num_seeds=9, first_labels="random"), learner.scores
    )
    assert infos[0].counts == pytest.approx((3, 3, 3), abs=3)


def test_zero_shot_gives_each_example_its_label_without_demonstrations() -> None:
    problem = problem_of([1] * 10, 2, None)
    learner = Learner(problem, 0)
    state, _, _ = walked(METHODS["zero_shot"], problem, Annealing(), learner.scores)
    alone = learner.scores(np.full(10, UNLABELLED, dtype=LabelNumber))
    assert state.best.labels.tolist() == np.argmax(alone, axis=1).tolist()


def test_random_labels_are_balanced_and_bootstrap_only_grows() -> None:
    problem = problem_of([2] * 20, 2, EXACTLY_ONE)
    learner = Learner(problem, 0)
    state, _, _ = walked(METHODS["random"], problem, Annealing(), learner.scores)
    assert energy.counts(state.best.labels, 2) == (20, 20)
    state, infos, asked = walked(METHODS["bootstrap"], problem, Annealing(), learner.scores)
    assert [info.pool for info in infos] == [8, 16, 32, 40]
    assert all(info.accepted for info in infos)
    assert len([ask for ask in asked if isinstance(ask, ScorePool)]) == len(infos)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "single"])  # which has no end of its own
@pytest.mark.parametrize("seed", range(3))
def test_a_walk_is_a_function_of_its_seed(method: str, seed: int) -> None:
    problem = problem_of([2] * 6, 2, EXACTLY_ONE)
    annealing = replace(Annealing(**METHODS[method].defaults), first_labels="random")
    scores = Learner(problem, seed).scores
    ends = [walked(METHODS[method], problem, annealing, scores, seed)[0] for _ in range(2)]
    assert ends[0].current.labels.tolist() == ends[1].current.labels.tolist()
    assert ends[0].current.energy == ends[1].current.energy


def test_a_refused_step_leaves_what_speculation_expects() -> None:
    problem = problem_of([2] * 12, 2, EXACTLY_ONE)
    scores, method = Learner(problem, 5).scores, METHODS["blocks"]
    state, _ = answered(method.seed(problem, ANNEALING, RandomDraws.of(5, 0, 0)), scores, [])
    refusals = 0
    while not method.finished(problem, ANNEALING, state):
        draws = RandomDraws.of(5, 0, state.step + 1)
        after, info = answered(method.step(problem, ANNEALING, state, draws), scores, [])
        if not info.accepted:
            assert method.may_refuse(state) or not is_full(state)
            expected = method.refused(ANNEALING, state)
            assert isinstance(expected, blocks.Blocks)
            assert isinstance(after, blocks.Blocks)
            figures = [(one.step, one.proposals, one.share, one.refusals) for one in (after, expected)]
            assert figures[0] == figures[1]
            refusals += 1
        state = after
    assert refusals


def labels_of(n: int, label: int) -> Labels:
    """Return one label for all."""
    return np.full(n, label, dtype=LabelNumber)


def test_calibrated_one_label_for_all_earns_its_log_odds_and_nothing_more() -> None:
    problem = problem_of([1] * 12, 2, None)
    learner = Learner(problem, 0)
    for prior, expected in (((), (0.0, 0.0)), ((0.2, 0.8), (np.log(0.25), np.log(4)))):
        annealing = Annealing(alpha=1.0, objective="calibrated", label_prior=prior)
        for label in (0, 1):
            asked: list[Any] = []
            found = answered(search.uniform(problem, annealing, label), learner.scores, asked)
            assert found.labelling.energy == pytest.approx(expected[label])
            assert asked == [], "it is known without asking"
            labels = labels_of(12, label)
            one = energy.evaluation(problem, annealing, labels, learner.scores(labels))
            assert one.labelling.energy == pytest.approx(expected[label])


def test_uncalibrated_is_the_margin() -> None:
    scores = np.log(np.array([[0.3, 0.7], [0.6, 0.4]]))
    plain = energy.worth(Annealing(objective="margin"), scores)
    np.testing.assert_array_equal(energy.worth(Annealing(objective="calibrated", calibration=0.0), scores), plain)
    np.testing.assert_allclose(energy.worth(Annealing(objective="calibrated"), scores).sum(axis=0), 0, atol=1e-12)
