"""Simulated annealing over labellings (Wen et al. 2025, algorithm 1), as generators that ask and are sent scores.

Each generator yields an Ask and is sent its answer (Scores for ScorePool, f64[L] for ScoreOne); it never waits itself.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from . import pool
from .types import (
    UNLABELLED,
    Ask,
    Draws,
    Labels,
    Problem,
    Repair,
    ScoreOne,
    ScorePool,
    Scores,
    Settings,
    State,
    StepInfo,
    frozen_labels,
    pool_of,
    with_labels,
)

R = TypeVar("R")
Asking = Generator[Ask, npt.NDArray[np.float64], R]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A labelling with its scores."""

    labels: Labels
    scores: Scores
    energy: float
    conflicts: int


def temperature(settings: Settings, flips: int) -> float:
    """Return the temperature after `flips` accepted proposals, never under the final one."""
    start = settings.initial_temperature
    falling = {
        "log": start / (1 + 2 * math.log1p(flips)),
        "exp": start * settings.decay**flips,
        "constant": start,
    }[settings.schedule]
    return max(settings.final_temperature, falling)


def accepts(u: float, difference: float, temperature: float) -> bool:
    """Return whether u < exp(difference / temperature), decided in log space, where nothing overflows."""
    return u <= 0 or math.log(u) < difference / temperature


def seed(problem: Problem, settings: Settings, draws: Draws) -> Asking[tuple[State, StepInfo]]:
    """Do step 0: give the first examples balanced random labels, repair their conflicts, and evaluate."""
    count = min(settings.num_seeds, problem.n)
    balanced = np.sort(np.arange(count) % problem.n_labels)[::-1]
    labels = frozen_labels(np.full(problem.n, UNLABELLED))
    labels = with_labels(labels, dict(enumerate(balanced[draws.permutation(count)].tolist())))
    found = yield from _evaluate(problem, settings, labels, "eval")
    repairs: tuple[Repair, ...] = ()
    if found.conflicts:
        mended, repairs = yield from _repair(problem, settings, labels, found, draws)
        found = mended or found
    state = State(step=0, flips=0, labels=found.labels, scores=found.scores, energy=found.energy)
    changed = tuple((int(i), int(found.labels[i])) for i in pool_of(found.labels))
    return state, _info(problem, state, changed=changed, repairs=repairs, accepted=True)


def step(problem: Problem, settings: Settings, state: State, draws: Draws) -> Asking[tuple[State, StepInfo]]:
    """Do one step: draw an example, take the model's label for it, repair conflicts, accept or refuse; return what follows."""
    number = state.step + 1
    index = draws.weighted_index(pool.draw_weights(problem, state.labels, settings.linked_weight))
    answer = yield ScoreOne(index, state.labels)
    old, new = int(state.labels[index]), int(np.argmax(answer))
    if new == old:
        kept = replace(state, step=number)
        return kept, _info(problem, kept, index=index, old=old, new=new)
    labels = with_labels(state.labels, {index: new})
    mended, repairs = yield from _repair(problem, settings, labels, None, draws)
    found = yield from _evaluate(problem, settings, mended.labels if mended else labels, "eval")
    heat, u = temperature(settings, state.flips), draws.uniform()
    accepted = accepts(u, found.energy - state.energy, heat)
    after = (
        State(step=number, flips=state.flips + 1, labels=found.labels, scores=found.scores, energy=found.energy)
        if accepted
        else replace(state, step=number)
    )
    differing = np.flatnonzero(found.labels != state.labels)
    return after, _info(
        problem,
        after,
        index=index,
        old=old,
        new=new,
        changed=tuple((int(i), int(found.labels[i])) for i in differing),
        repairs=repairs,
        temperature=heat,
        proposed_energy=found.energy,
        u=u,
        accepted=accepted,
    )


def complete(problem: Problem, state: State) -> Asking[tuple[Labels, Scores]]:
    """Give every example that the search left unlabelled the model's label given the final pool.

    A label that would break a conflict is passed over where another one is free. Completed examples are shown to none.
    """
    labels, scores = state.labels, state.scores.copy()
    for index in np.flatnonzero(state.labels == UNLABELLED).tolist():
        scores[index] = yield ScoreOne(index, state.labels)
        ranked = np.argsort(-scores[index], kind="stable").tolist()
        before = len(pool.broken(problem, labels))
        free = [label for label in ranked if len(pool.broken(problem, with_labels(labels, {index: label}))) == before]
        labels = with_labels(labels, {index: (free or ranked)[0]})
    scores.flags.writeable = False
    return labels, scores


def _evaluate(problem: Problem, settings: Settings, labels: Labels, purpose: Any) -> Asking[Evaluated]:
    scores = yield ScorePool(labels, purpose)
    energy = pool.energy(problem, labels, scores, settings.alpha)
    return Evaluated(labels, scores, energy, len(pool.broken(problem, labels)))


def _repair(
    problem: Problem, settings: Settings, labels: Labels, best: Evaluated | None, draws: Draws
) -> Asking[tuple[Evaluated | None, tuple[Repair, ...]]]:
    """Resolve broken conflicts, the first improvement in each round; return the best found, or None if none was taken.

    `best` is what a repair must not fall under. A proposal has None: its first broken pair is always resolved, even
    when that lowers the energy, and acceptance decides (as in the published code).
    """
    taken: list[Repair] = []
    found = None
    for _ in range(settings.repair_rounds):
        listed = pool.broken(problem, labels)
        order = draws.permutation(len(listed))
        improved = None
        for conflict in (listed[place] for place in order):
            pair = (conflict.first, conflict.second)
            trials = []
            for pair_labels in conflict.rule.repairs:
                trial = with_labels(labels, dict(zip(pair, pair_labels, strict=True)))
                trials.append((yield from _evaluate(problem, settings, trial, "repair")))
            chosen = max(range(len(trials)), key=lambda place: trials[place].energy)  # the first of equals
            if best is None or trials[chosen].energy >= best.energy:
                improved = trials[chosen]
                taken.append(Repair(pair, conflict.rule.repairs[chosen]))
                break
        if improved is None:
            break
        best = found = improved
        labels = improved.labels
        if improved.conflicts == 0:
            break
    return found, tuple(taken)


def _info(problem: Problem, after: State, **fields: Any) -> StepInfo:
    blank: dict[str, Any] = {
        "index": None, "old": None, "new": None, "changed": (), "repairs": (),
        "temperature": None, "proposed_energy": None, "u": None, "accepted": False,
    }  # fmt: skip
    return StepInfo(
        step=after.step,
        energy=after.energy,
        flips=after.flips,
        pool=len(pool_of(after.labels)),
        conflicts=len(pool.broken(problem, after.labels)),
        **{**blank, **fields},
    )
