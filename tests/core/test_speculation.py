"""Steps worked out ahead are the steps that would have been done one by one."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc.core import speculation
from icm_hpc.core.methods import METHODS
from icm_hpc.core.methods.method import Method
from icm_hpc.core.search import Asking
from icm_hpc.core.types import Annealing, Ask, Conflict, Problem, RandomDraws, ScoreOne, State, StepInfo, bytes_of
from icm_hpc.tasks.task import EXACTLY_ONE

N = 8
PROBLEM = Problem(np.arange(N) // 2, 2, tuple(Conflict(i, i + 1, EXACTLY_ONE) for i in range(0, N, 2)))

SINGLE = METHODS["single"]
BLOCKS = METHODS["blocks"]


def row(ask: Ask, index: int) -> list[float]:
    """Return the scores of one prompt: a function of the example and of the other labels."""
    others = bytes_of(np.delete(ask.labels, index))
    share = int.from_bytes(hashlib.sha256(others + bytes([index])).digest()[:4], "big") / 2**32
    return [float(np.log(0.02 + 0.96 * share)), float(np.log(0.98 - 0.96 * share))]


def answered(asking: Asking[Any]) -> tuple[Any, list[Sequence[Ask]]]:
    """Answer a search; return its result and all that it asked."""
    rounds: list[Sequence[Ask]] = []
    try:
        asks = next(asking)
        while True:
            rounds.append(asks)
            asks = asking.send(
                [
                    np.array(row(ask, ask.index) if isinstance(ask, ScoreOne) else [row(ask, i) for i in range(N)])
                    for ask in asks
                ]
            )
    except StopIteration as end:
        return end.value, rounds


def walked(
    annealing: Annealing, seed: int, steps: int, ahead: int, problem: Problem = PROBLEM, *, method: Method = SINGLE
) -> tuple[list[StepInfo], State, int]:
    """Return the steps of a whole search, its end, and how often it asked."""

    def draws_of(step: int) -> RandomDraws:
        return RandomDraws.of(seed, 0, step)

    done, rounds = answered(speculation.begin(method, problem, annealing, draws_of))
    state, infos, asked = done[-1][0], [info for _, info in done], len(rounds)
    while state.step < steps:
        done, rounds = answered(
            speculation.steps(method, problem, annealing, state, draws_of, ahead=ahead, steps_left=steps - state.step)
        )
        state, asked = done[-1][0], asked + len(rounds)
        infos += [info for _, info in done]
    return infos, state, asked


def told(info: StepInfo) -> tuple[Any, ...]:
    """Return a step's decisions and figures."""
    return (
        info.step,
        info.index,
        info.new,
        info.changed,
        info.temperature,
        info.u,
        info.accepted,
        info.energy,
        info.flips,
    )


@given(
    seed=st.integers(0, 999),
    ahead=st.sampled_from([2, 3, 7, 40]),
    heat=st.sampled_from([0.1, 3.0, 100.0]),
    schedule=st.sampled_from(["log", "constant"]),
    from_pool=st.booleans(),
    steps=st.sampled_from([1, 2, 3, 6, 40]),
    method=st.sampled_from([SINGLE, BLOCKS]),
)
def test_any_number_of_steps_ahead_gives_the_same_trajectory(
    seed: int, ahead: int, heat: float, schedule: str, steps: int, *, from_pool: bool, method: Method
) -> None:
    annealing = Annealing(
        num_seeds=2, schedule=schedule, initial_temperature=heat, final_temperature=0.01, predict_from_pool=from_pool
    )
    one, end, _ = walked(annealing, seed, steps, 1, method=method)
    many, same_end, _ = walked(annealing, seed, steps, ahead, method=method)
    assert list(map(told, many)) == list(map(told, one))
    assert same_end.current.labels.tolist() == end.current.labels.tolist()
    assert same_end.best.energy == end.best.energy


def test_refused_steps_are_asked_for_together() -> None:
    annealing = Annealing(num_seeds=N, schedule="constant", initial_temperature=0.01, final_temperature=0.01)
    free = Problem(np.arange(N), 2)
    rounds = {ahead: walked(annealing, 1, 80, ahead, free)[2] for ahead in (1, 16)}
    assert rounds[16] < rounds[1] / 2


@pytest.mark.parametrize("ahead", [1, 5])
def test_a_step_that_keeps_a_labelled_examples_label_asks_nothing(ahead: int) -> None:
    annealing = Annealing(num_seeds=N, schedule="constant", initial_temperature=0.01, final_temperature=0.01)
    (start,), _ = answered(speculation.begin(SINGLE, PROBLEM, annealing, lambda step: RandomDraws.of(1, 0, step)))
    state = start[0]
    agreed = [i for i in range(N) if np.argmax(state.current.scores[i]) == state.current.labels[i]]

    class Same(RandomDraws):
        def weighted_index(self, weights: Any) -> int:
            return agreed[0]

    draws = Same(np.random.default_rng(0))
    done, rounds = answered(speculation.steps(SINGLE, PROBLEM, annealing, state, lambda _: draws, ahead=ahead))
    assert (len(done), rounds) == (ahead, [])
