"""Simulated annealing over labellings (Wen et al. 2025, algorithm 1), as generators that ask and are sent scores.

Each generator yields asks that may be answered together, and is sent their answers (Scores for a ScorePool, f64[L] for a
ScoreOne); it never waits itself.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from . import energy
from .types import (
    UNLABELLED,
    Annealing,
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
    State,
    StepInfo,
    Trial,
    frozen_labels,
    pool_of,
    with_labels,
)

R = TypeVar("R")
Answer: TypeAlias = npt.NDArray[np.float64]
Asking = Generator[Sequence[Ask], Sequence[Answer], R]
AskingInVain = Generator[Sequence[Ask], Sequence[Answer | None], R]  # may be sent None for what cannot be scored


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


def seed(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[tuple[State, StepInfo]]:
    """Do step 0: give the first examples balanced random labels, repair their conflicts, and evaluate."""
    count = min(annealing.num_seeds, problem.n)
    balanced = np.sort(np.arange(count) % problem.n_labels)[::-1]
    labels = frozen_labels(np.full(problem.n, UNLABELLED))
    labels = with_labels(labels, dict(enumerate(balanced[draws.permutation(count)].tolist())))
    (first,) = yield from _evaluate(problem, annealing, [labels], "eval")
    rounds: tuple[Round, ...] = ()
    found = first
    if first.broken:
        limit = annealing.seed_repair_rounds
        mended, rounds = yield from _repair(problem, annealing, labels, draws, rounds=limit, floor=first)
        found = mended or first
    state = State(step=0, flips=0, current=found.labelling, best=found.labelling)
    changed = tuple((int(i), int(found.labelling.labels[i])) for i in pool_of(found.labelling.labels))
    return state, step_info(problem, state, rounds=rounds, proposal=first, changed=changed, accepted=True)


def step(problem: Problem, annealing: Annealing, state: State, draws: Draws) -> Asking[tuple[State, StepInfo]]:
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
    mended, rounds = yield from _repair(problem, annealing, labels, draws, rounds=annealing.repair_rounds)
    proposed = mended.labelling.labels if mended else labels
    (proposal,) = yield from _evaluate(problem, annealing, [proposed], "eval")
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


def begin(
    problem: Problem, annealing: Annealing, draws_of: Callable[[int], Draws]
) -> Asking[list[tuple[State, StepInfo]]]:
    """Do step 0 with its draws."""
    return [(yield from seed(problem, annealing, draws_of(0)))]


def steps(
    problem: Problem, annealing: Annealing, state: State, draws_of: Callable[[int], Draws], ahead: int
) -> AskingInVain[list[tuple[State, StepInfo]]]:
    """Do the steps that follow `state`, up to the first that is accepted, and `ahead` at most; return what each gave.

    Each is worked out from `state` at the same time, as if those before it were refused, with the draws of its own
    number (`draws_of`): what a sequence of single steps would do, in fewer rounds of asking. Steps behind an accepted one
    are dropped. A step that is sent None is abandoned: it leaves the labels as they were.
    """
    waiting: dict[int, tuple[Asking[tuple[State, StepInfo]], Sequence[Ask]]] = {}
    done: dict[int, tuple[State, StepInfo]] = {}

    def go_on(place: int, asking: Asking[tuple[State, StepInfo]], answers: Sequence[Answer | None] | None) -> None:
        scored = [answer for answer in answers or () if answer is not None]
        if len(scored) < len(answers or ()):
            kept = replace(state, step=state.step + place + 1)
            waiting.pop(place)
            done[place] = kept, step_info(problem, kept, abandoned=True)
            return
        try:
            waiting[place] = asking, (next(asking) if answers is None else asking.send(scored))
        except StopIteration as end:
            waiting.pop(place, None)
            done[place] = end.value

    for place in range(ahead):
        begun = replace(state, step=state.step + place)
        go_on(place, step(problem, annealing, begun, draws_of(begun.step + 1)), None)
    while True:
        last = min((place for place, (_, info) in done.items() if info.accepted), default=ahead - 1)
        open_asks = [(place, *waiting[place]) for place in sorted(waiting) if place <= last]
        if not open_asks:
            return [done[place] for place in range(last + 1)]
        answers = yield [ask for _, _, asks in open_asks for ask in asks]
        taken = 0
        for place, asking, asks in open_asks:
            go_on(place, asking, answers[taken : taken + len(asks)])
            taken += len(asks)


def complete(problem: Problem, final: Labelling) -> Asking[tuple[Labels, Scores]]:
    """Give every example that the search left unlabelled the model's label given the final pool.

    A label that would break a conflict is passed over where another one is free. Completed examples are shown to none.
    """
    labels, scores = final.labels, final.scores.copy()
    left = np.flatnonzero(final.labels == UNLABELLED).tolist()
    answers = yield [ScoreOne(index, final.labels) for index in left]
    for index, answer in zip(left, answers, strict=True):
        scores[index] = answer
        ranked = np.argsort(-scores[index], kind="stable").tolist()
        before = len(energy.broken(problem, labels))
        free = [label for label in ranked if len(energy.broken(problem, with_labels(labels, {index: label}))) == before]
        labels = with_labels(labels, {index: (free or ranked)[0]})
    scores.flags.writeable = False
    return labels, scores


def uniform(problem: Problem, annealing: Annealing, labels: Labels) -> Asking[tuple[Evaluation, ...]]:
    """Evaluate, for each label, giving it to the whole pool: the degenerate optima that a result should beat."""
    members = pool_of(labels).tolist()
    same = [with_labels(labels, dict.fromkeys(members, label)) for label in range(problem.n_labels)]
    return (yield from _evaluate(problem, annealing, same, "eval"))


def _evaluate(
    problem: Problem, annealing: Annealing, labellings: Sequence[Labels], purpose: Purpose
) -> Asking[tuple[Evaluation, ...]]:
    answers = yield [ScorePool(labels, purpose) for labels in labellings]
    pairs = zip(labellings, answers, strict=True)
    return tuple(energy.evaluation(problem, annealing, labels, scores) for labels, scores in pairs)


def _repair(
    problem: Problem,
    annealing: Annealing,
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
    """Evaluate each way to mend a conflict; the one of highest energy is taken unless it falls under `best`."""
    repairs = conflict.rule.repairs[int(labels[conflict.first]), int(labels[conflict.second])]
    mended = [with_labels(labels, {conflict.first: first, conflict.second: second}) for first, second in repairs]
    evaluations = yield from _evaluate(problem, annealing, mended, "repair")
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
