"""Simulated annealing over labellings (Wen et al. 2025, algorithm 1), as generators that ask and are sent scores.

Each generator yields an Ask and is sent its answer (Scores for ScorePool, f64[L] for ScoreOne); it never waits itself.
"""

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from . import pool
from .types import (
    UNLABELLED,
    Ask,
    Conflict,
    Draws,
    Evaluation,
    Labelling,
    Labels,
    Problem,
    Purpose,
    Round,
    ScoreOne,
    ScorePool,
    Scores,
    Settings,
    State,
    StepInfo,
    Trial,
    frozen_labels,
    pool_of,
    with_labels,
)

R = TypeVar("R")
Asking = Generator[Ask, npt.NDArray[np.float64], R]


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
    first = yield from _evaluate(problem, settings, labels, "eval")
    rounds: tuple[Round, ...] = ()
    found = first
    if first.broken:
        limit = settings.seed_repair_rounds
        mended, rounds = yield from _repair(problem, settings, labels, draws, rounds=limit, floor=first)
        found = mended or first
    state = State(step=0, flips=0, current=found.labelling, best=found.labelling)
    changed = tuple((int(i), int(found.labelling.labels[i])) for i in pool_of(found.labelling.labels))
    return state, _info(problem, state, rounds=rounds, proposal=first, changed=changed, accepted=True)


def step(problem: Problem, settings: Settings, state: State, draws: Draws) -> Asking[tuple[State, StepInfo]]:
    """Do one step: draw an example, take the model's label for it, repair conflicts, accept or refuse; return what follows."""
    before, number = state.current, state.step + 1
    index = draws.weighted_index(pool.draw_weights(problem, before.labels, settings.linked_weight))
    answer = yield ScoreOne(index, before.labels)
    old, new = int(before.labels[index]), int(np.argmax(answer))
    if new == old:
        kept = replace(state, step=number)
        return kept, _info(problem, kept, index=index, old=old, new=new)
    labels = with_labels(before.labels, {index: new})
    mended, rounds = yield from _repair(problem, settings, labels, draws, rounds=settings.repair_rounds)
    proposal = yield from _evaluate(problem, settings, mended.labelling.labels if mended else labels, "eval")
    heat, u = temperature(settings, state.flips), draws.uniform()
    accepted = accepts(u, proposal.labelling.energy - before.energy, heat)
    after = _moved(state, proposal.labelling) if accepted else replace(state, step=number)
    return after, _info(
        problem,
        after,
        index=index,
        old=old,
        new=new,
        rounds=rounds,
        proposal=proposal,
        changed=_differing(proposal.labelling.labels, before.labels),
        temperature=heat,
        u=u,
        accepted=accepted,
    )


def complete(problem: Problem, final: Labelling) -> Asking[tuple[Labels, Scores]]:
    """Give every example that the search left unlabelled the model's label given the final pool.

    A label that would break a conflict is passed over where another one is free. Completed examples are shown to none.
    """
    labels, scores = final.labels, final.scores.copy()
    for index in np.flatnonzero(final.labels == UNLABELLED).tolist():
        scores[index] = yield ScoreOne(index, final.labels)
        ranked = np.argsort(-scores[index], kind="stable").tolist()
        before = len(pool.broken(problem, labels))
        free = [label for label in ranked if len(pool.broken(problem, with_labels(labels, {index: label}))) == before]
        labels = with_labels(labels, {index: (free or ranked)[0]})
    scores.flags.writeable = False
    return labels, scores


def uniform(problem: Problem, settings: Settings, labels: Labels) -> Asking[tuple[Evaluation, ...]]:
    """Evaluate, for each label, giving it to the whole pool: the degenerate optima that a result should beat."""
    found = []
    for label in range(problem.n_labels):
        same = with_labels(labels, dict.fromkeys(pool_of(labels).tolist(), label))
        found.append((yield from _evaluate(problem, settings, same, "eval")))
    return tuple(found)


def _evaluate(problem: Problem, settings: Settings, labels: Labels, purpose: Purpose) -> Asking[Evaluation]:
    scores = yield ScorePool(labels, purpose)
    return pool.evaluation(problem, settings, labels, scores)


def _repair(
    problem: Problem,
    settings: Settings,
    labels: Labels,
    draws: Draws,
    *,
    rounds: int,
    floor: Evaluation | None = None,
) -> Asking[tuple[Evaluation | None, tuple[Round, ...]]]:
    """Mend broken conflicts, the first improvement in each round; return the best found, or None if none was taken.

    A repair must not fall under `floor`. A proposal has none: its first broken conflict is always mended, even when
    that lowers the energy, and acceptance decides (as in the published code).
    """
    best = floor
    found: Evaluation | None = None
    done: list[Round] = []
    for _ in range(rounds):
        listed = pool.broken(problem, labels)
        trials: list[Trial] = []
        for place in draws.permutation(len(listed)):
            trials.append((yield from _try(problem, settings, labels, listed[place], best)))
            if trials[-1].taken:
                best = found = trials[-1].best
                break
        done.append(Round(labels, tuple(listed), tuple(trials)))
        stalled = not trials or not trials[-1].taken
        if found is None or not found.broken or (stalled and settings.stalled_repair == "stop"):
            break
        labels = found.labelling.labels
    return found, tuple(done)


def _try(
    problem: Problem, settings: Settings, labels: Labels, conflict: Conflict, best: Evaluation | None
) -> Asking[Trial]:
    """Evaluate each way to mend a conflict; the one of highest energy is taken unless it falls under `best`."""
    evaluations = []
    for first, second in conflict.rule.repairs[int(labels[conflict.first]), int(labels[conflict.second])]:
        mended = with_labels(labels, {conflict.first: first, conflict.second: second})
        evaluations.append((yield from _evaluate(problem, settings, mended, "repair")))
    energies = [evaluation.labelling.energy for evaluation in evaluations]
    chosen = int(np.argmax(energies))
    taken = best is None or energies[chosen] >= best.labelling.energy
    return Trial(conflict, tuple(evaluations), chosen, taken)


def _moved(state: State, found: Labelling) -> State:
    """Return the state after an accepted proposal. Energies of pools of different sizes do not compare: a growing pool
    starts a new best.
    """
    grown = len(pool_of(found.labels)) > len(pool_of(state.best.labels))
    best = found if grown or found.energy > state.best.energy else state.best
    return State(step=state.step + 1, flips=state.flips + 1, current=found, best=best)


def _differing(labels: Labels, before: Labels) -> tuple[tuple[int, int], ...]:
    return tuple((int(i), int(labels[i])) for i in np.flatnonzero(labels != before))


def _info(problem: Problem, after: State, **fields: Any) -> StepInfo:
    labels = after.current.labels
    counts = pool.counts(labels, problem.n_labels)
    return StepInfo(
        step=after.step,
        energy=after.current.energy,
        flips=after.flips,
        pool=sum(counts),
        counts=counts,
        conflicts=len(pool.broken(problem, labels)),
        **fields,
    )
