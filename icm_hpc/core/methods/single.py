"""The published search (Wen et al. 2025, algorithm 1): one example a step, its label by the model, conflicts repaired."""

from dataclasses import replace

import numpy as np

from .. import energy
from ..search import Asking, accepts, evaluate, step_info, temperature
from ..types import (
    UNLABELLED,
    Annealing,
    Budget,
    Conflict,
    Draws,
    Evaluation,
    Labelling,
    Labels,
    Problem,
    Round,
    ScoreOne,
    State,
    StepInfo,
    Trial,
    frozen_labels,
    pool_of,
    with_labels,
)
from .method import Method


def seed(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[tuple[State, StepInfo]]:
    """Do step 0: give the first examples balanced random labels, repair their conflicts, and evaluate."""
    count = min(annealing.num_seeds, problem.n)
    balanced = np.sort(np.arange(count) % problem.n_labels)[::-1]
    labels = frozen_labels(np.full(problem.n, UNLABELLED))
    labels = with_labels(labels, dict(enumerate(balanced[draws.permutation(count)].tolist())))
    (first,) = yield from evaluate(problem, annealing, [labels], "eval")
    rounds: tuple[Round, ...] = ()
    found = first
    if first.broken:
        limit = annealing.seed_repair_rounds
        repaired, rounds = yield from _repair(problem, annealing, labels, draws, rounds=limit, floor=first)
        found = repaired or first
    state = State(step=0, flips=0, current=found.labelling, best=found.labelling)
    changed = tuple((int(i), int(found.labelling.labels[i])) for i in pool_of(found.labelling.labels))
    return state, step_info(problem, state, rounds=rounds, proposal=first, changed=changed, accepted=True)


def step(
    problem: Problem,
    annealing: Annealing,
    state: State,
    draws: Draws,
    *,
    steps_left: int | None = None,  # noqa: ARG001
) -> Asking[tuple[State, StepInfo]]:
    """Do one step: draw an example, take the model's label for it, repair conflicts, accept or refuse; return what follows."""
    before, number = state.current, state.step + 1
    index = draws.weighted_index(energy.draw_weights(problem, before.labels, annealing.linked_weight))
    old = int(before.labels[index])
    if old != UNLABELLED and annealing.predict_from_pool:
        new = int(np.argmax(before.scores[index]))
    else:
        (answer,) = yield (ScoreOne(index, before.labels),)
        new = int(np.argmax(answer))
    if new == old:
        kept = replace(state, step=number)
        return kept, step_info(problem, kept, index=index, old=old, new=new)
    labels = with_labels(before.labels, {index: new})
    repaired, rounds = yield from _repair(problem, annealing, labels, draws, rounds=annealing.repair_rounds)
    proposed = repaired.labelling.labels if repaired else labels
    (proposal,) = yield from evaluate(problem, annealing, [proposed], "eval")
    heat, u = temperature(annealing, state.flips), draws.uniform()
    accepted = accepts(u, proposal.labelling.energy - before.energy, heat)
    after = _moved(state, proposal.labelling) if accepted else replace(state, step=number)
    return after, step_info(
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


def _repair(
    problem: Problem,
    annealing: Annealing,
    labels: Labels,
    draws: Draws,
    *,
    rounds: int,
    floor: Evaluation | None = None,
) -> Asking[tuple[Evaluation | None, tuple[Round, ...]]]:
    """Repair broken conflicts, the first improvement in each round; return the best found, or None if none was taken.

    A repair must not fall under `floor`. A proposal has none: its first broken conflict is always repaired, even when
    that lowers the energy, and acceptance decides (as in the published code).
    """
    best = floor
    found: Evaluation | None = None
    done: list[Round] = []
    for _ in range(rounds):
        listed = energy.broken(problem, labels)
        trials: list[Trial] = []
        for place in draws.permutation(len(listed)):
            trials.append((yield from _try(problem, annealing, labels, listed[place], best)))
            if trials[-1].taken:
                best = found = trials[-1].best
                break
        done.append(Round(labels, tuple(listed), tuple(trials)))
        stalled = not trials or not trials[-1].taken
        if found is None or not found.broken or (stalled and annealing.stalled_repair == "stop"):
            break
        labels = found.labelling.labels
    return found, tuple(done)


def _try(
    problem: Problem, annealing: Annealing, labels: Labels, conflict: Conflict, best: Evaluation | None
) -> Asking[Trial]:
    """Evaluate each repair of a conflict; the one of highest energy is taken unless it falls under `best`."""
    repairs = conflict.rule.repairs[int(labels[conflict.first]), int(labels[conflict.second])]
    repaired = [with_labels(labels, {conflict.first: first, conflict.second: second}) for first, second in repairs]
    evaluations = yield from evaluate(problem, annealing, repaired, "repair")
    energies = [evaluation.labelling.energy for evaluation in evaluations]
    chosen = int(np.argmax(energies))
    taken = best is None or energies[chosen] >= best.labelling.energy
    return Trial(conflict, evaluations, chosen, taken)


def _moved(state: State, found: Labelling) -> State:
    """Return the state after an accepted proposal. Energies of pools of different sizes do not compare: a growing pool
    starts a new best.
    """
    grown = len(pool_of(found.labels)) > len(pool_of(state.best.labels))
    best = found if grown or found.energy > state.best.energy else state.best
    return State(step=state.step + 1, flips=state.flips + 1, current=found, best=best)


def _differing(labels: Labels, before: Labels) -> tuple[tuple[int, int], ...]:
    return tuple((int(i), int(labels[i])) for i in np.flatnonzero(labels != before))


def refused(_: Annealing, state: State) -> State:
    """Return the state after a step that is refused or abandoned: the labels stay."""
    return replace(state, step=state.step + 1)


def forecast(problem: Problem, annealing: Annealing, budget: Budget) -> list[int]:
    """Return the examples in each scoring: one a step, of a pool that grows by one example a step, at most."""
    first = min(max(annealing.num_seeds, 2), problem.n)
    return [min(first + step, problem.n) for step in range(budget.steps or 0)]


METHOD = Method(
    state=State,
    seed=seed,
    step=step,
    finished=lambda _problem, _annealing, _state: False,
    refused=refused,
    abandoned=refused,
    shares_last_prefix=False,  # as before there were other methods: the labels of an earlier run do not change
    may_refuse=lambda _: True,
    budget=lambda n: Budget(steps=6 * n),
    forecast=forecast,
)
