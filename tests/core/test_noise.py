"""Which steps an engine's noise may decide."""

import numpy as np
import pytest

from benchmarks.learner import Learner, problem_of
from icm_hpc.core import noise
from icm_hpc.core.energy import Values
from icm_hpc.core.methods import METHODS
from icm_hpc.core.types import Annealing, Labels, RandomDraws, StepInfo
from icm_hpc.tasks.task import EXACTLY_ONE
from tests.core.test_methods import answered

PROBLEM = problem_of([2] * 12, 2, EXACTLY_ONE)
METHODS_WATCHED = ("blocks", "single", "zero_shot", "random", "bootstrap")


def course(
    name: str, of_noise: float | None, *, step: float = 0.0, limit: int = 40
) -> tuple[list[StepInfo], list[bytes]]:
    """Return the first steps of a search, and what it asked; scores are multiples of `step`, if that is over 0."""
    learner, method = Learner(PROBLEM, seed=1), METHODS[name]

    def scores(labels: Labels) -> Values:
        found = learner.scores(labels)
        return np.round(found / step) * step if step else found

    annealing = Annealing(**method.defaults)
    watched = method if of_noise is None else noise.watched(method, of_noise)
    asked: list[object] = []
    state, info = answered(watched.seed(PROBLEM, annealing, RandomDraws.of(0, 0, 0)), scores, asked)
    infos = [info]
    while len(infos) < limit and not watched.finished(PROBLEM, annealing, state):
        draws = RandomDraws.of(0, 0, state.step + 1)
        asking = watched.step(PROBLEM, annealing, state, draws, steps_left=limit - len(infos))
        state, info = answered(asking, scores, asked)
        infos.append(info)
    return infos, [*(repr(ask).encode() for ask in asked), state.best.labels.tobytes()]


@pytest.mark.parametrize("limit", [2, 40])
@pytest.mark.parametrize("name", METHODS_WATCHED)
def test_a_search_that_is_watched_asks_and_decides_the_same(name: str, limit: int) -> None:
    plain, watched = course(name, None, limit=limit), course(name, 0.5, limit=limit)
    assert (plain[1] == watched[1]) is True
    assert [info.energy for info in plain[0]] == [info.energy for info in watched[0]]
    assert {info.within_noise for info in plain[0]} == {None}
    assert {info.within_noise for info in watched[0]} <= {True, False}


@pytest.mark.parametrize("name", ["blocks", "single"])
def test_more_noise_may_decide_more_steps_and_none_decides_none(name: str) -> None:
    within = [sum(bool(info.within_noise) for info in course(name, size)[0]) for size in (0.0, 1e-9, 0.3, 30.0)]
    assert within[:2] == [0, 0]
    assert within[2] > 0
    assert within[3] >= within[2]


def test_equal_scores_are_nearer_than_any_noise() -> None:
    assert any(info.within_noise for info in course("blocks", 1e-9, step=1.0)[0])
