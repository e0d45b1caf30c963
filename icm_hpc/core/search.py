"""What search methods share: temperature, acceptance, evaluation, the last pass; as generators that ask and are sent scores.

Each generator yields asks that may be answered together, and is sent their answers (Scores for a ScorePool, f64[L] for a
ScoreOne); it never waits itself.
"""

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from . import energy
from .types import (
    UNLABELLED,
    Annealing,
    Ask,
    Evaluation,
    Labelling,
    Labels,
    Problem,
    Purpose,
    ScoreOne,
    ScorePool,
    Scores,
    State,
    StepInfo,
    frozen_labels,
    pool_of,
    with_labels,
)
from .units import best_labels, links_of, units_of

R = TypeVar("R")
Answer: TypeAlias = npt.NDArray[np.float64]
Asking = Generator[Sequence[Ask], Sequence[Answer], R]


# (initial temperature, decay, flips) -> temperature.
SCHEDULES: dict[str, Callable[[float, float, int], float]] = {
    "log": lambda start, _, flips: start / (1 + 2 * math.log1p(flips)),
    "exp": lambda start, decay, flips: start * decay**flips,
    "constant": lambda start, _, __: start,
}


def temperature(annealing: Annealing, flips: int) -> float:
    """Return the temperature after `flips` accepted proposals, never under the final one."""
    falling = SCHEDULES[annealing.schedule](annealing.initial_temperature, annealing.decay, flips)
    return max(annealing.final_temperature, falling)


def accepts(u: float, difference: float, temperature: float) -> bool:
    """Return whether u < exp(difference / temperature), decided in log space, where nothing overflows."""
    return u <= 0 or math.log(u) < difference / temperature


def complete(
    problem: Problem, annealing: Annealing, final: Labelling, *, shared_prefix: bool = True
) -> Asking[tuple[Labels, Scores]]:
    """Give every example without a label the one that is worth most given the pool, which must not be empty.

    Examples that rules link are labelled together: with the fewest broken conflicts, then what is worth most. None of them is
    shown to another.
    """
    left = np.flatnonzero(final.labels == UNLABELLED).tolist()
    answers = yield [ScoreOne(index, final.labels, shared_prefix=shared_prefix) for index in left]
    if not left:
        return final.labels, final.scores
    scores, values = final.scores.copy(), np.full(final.scores.shape, np.nan)
    scores[left] = np.stack(answers)
    scores.flags.writeable = False
    values[left] = energy.worth(annealing, scores[left], final.scores[pool_of(final.labels)])
    links = links_of(problem)
    found = best_labels(units_of(links, left), links, values, final.labels)
    return with_labels(final.labels, found), scores


def same(problem: Problem, label: int) -> Labels:
    """Return one label for all examples."""
    return frozen_labels(np.full(problem.n, label))


def uniform(problem: Problem, annealing: Annealing, label: int) -> Asking[Evaluation]:
    """Evaluate one label for all examples: a degenerate optimum that a result should beat.

    Nothing is asked where the scores make no difference: a calibrated objective leaves one label for all its log-odds.
    """
    labels = same(problem, label)
    if annealing.objective == "calibrated" and annealing.calibration == 1:
        return energy.evaluation(problem, annealing, labels, np.zeros((problem.n, problem.n_labels)))
    (found,) = yield from evaluate(problem, annealing, [labels], "eval")
    return found


def evaluate(
    problem: Problem, annealing: Annealing, labellings: Sequence[Labels], purpose: Purpose
) -> Asking[tuple[Evaluation, ...]]:
    """Evaluate each labelling."""
    answers = yield [ScorePool(labels, purpose) for labels in labellings]
    pairs = zip(labellings, answers, strict=True)
    return tuple(energy.evaluation(problem, annealing, labels, scores) for labels, scores in pairs)


def step_info(problem: Problem, after: State, **fields: Any) -> StepInfo:
    """Return what a step has led to, with what it did."""
    labels = after.current.labels
    counts = energy.counts(labels, problem.n_labels)
    return StepInfo(
        step=after.step,
        energy=after.current.energy,
        flips=after.flips,
        pool=sum(counts),
        counts=counts,
        conflicts=len(energy.broken(problem, labels)),
        **fields,
    )
