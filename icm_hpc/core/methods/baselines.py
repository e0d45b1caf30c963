"""Methods without a search, which show what a search adds: zero-shot labels, random labels, and a pool that only grows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import growth
from ..energy import counts
from ..search import Asking, evaluate, step_info
from ..types import (
    Annealing,
    Budget,
    Draws,
    Labels,
    Problem,
    State,
    StepInfo,
    frozen_labels,
    pool_of,
    with_labels,
)
from ..units import best_labels, links_of, units_of
from .method import Method, Stepped, is_full

GROWTH = 1.0  # a pool that only grows doubles


def zero_shot(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[Stepped]:  # noqa: ARG001
    """Give each example the label that the model finds most probable without demonstrations, whatever the rules."""
    scores = yield from growth.zero_shot(problem)
    labels = growth.zero_shot_labels(scores)
    return (yield from _begun(problem, annealing, labels, counts(labels, problem.n_labels)))


def random(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[Stepped]:
    """Give as many examples as possible each label, at random, whatever the rules."""
    labels = (np.arange(problem.n) % problem.n_labels)[draws.permutation(problem.n)]
    return (yield from _begun(problem, annealing, frozen_labels(labels)))


def bootstrap(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[Stepped]:
    """Give the first examples their labels, as `blocks` does."""
    labels, zero_shot_counts = yield from growth.first_labels(problem, annealing, draws)
    return (yield from _begun(problem, annealing, labels, zero_shot_counts))


def grow(
    problem: Problem,
    annealing: Annealing,
    state: State,
    draws: Draws,
    *,
    steps_left: int | None = None,
) -> Asking[Stepped]:
    """Double the pool, or more where few steps are left, and label all of it again, given the pool before; accepted whatever
    its energy.
    """
    before = state.current.labels
    added = growth.next_units(
        problem,
        before,
        draws,
        share=growth.share_within(len(pool_of(before)), problem.n, share=GROWTH, growths=steps_left),
    )
    values = yield from growth.values_given_pool(annealing, state.current, added)
    links = links_of(problem)
    members = [*pool_of(before).tolist(), *(index for unit in added for index in unit)]
    labels = with_labels(before, best_labels(units_of(links, members), links, values, before))
    (found,) = yield from evaluate(problem, annealing, [labels], "eval")
    now = found.labelling
    after = replace(state, step=state.step + 1, flips=state.flips + 1, current=now, best=now)
    changed = tuple((int(i), int(labels[i])) for i in np.flatnonzero(labels != before))
    return after, step_info(problem, after, proposal=found, changed=changed, accepted=True)


def _begun(
    problem: Problem, annealing: Annealing, labels: Labels, zero_shot_counts: tuple[int, ...] = ()
) -> Asking[tuple[State, StepInfo]]:
    (found,) = yield from evaluate(problem, annealing, [labels], "eval")
    state = State(0, 0, current=found.labelling, best=found.labelling, zero_shot_counts=zero_shot_counts)
    changed = tuple((int(i), int(labels[i])) for i in pool_of(labels))
    return state, step_info(problem, state, proposal=found, changed=changed, accepted=True)


def _doubling(problem: Problem, annealing: Annealing, budget: Budget) -> Sequence[int]:
    first = min(problem.n, max(1, annealing.num_seeds))
    return [first, *growth.sizes(first, problem.n, share=GROWTH, growths=budget.left(0, 1))]


def _once(problem: Problem, _annealing: Annealing, _budget: Budget) -> Sequence[int]:
    return [problem.n]


def _passed(_: Annealing, state: State) -> State:
    return replace(state, step=state.step + 1)


BOOTSTRAP = Method(
    state=State,
    seed=bootstrap,
    step=grow,
    finished=lambda _problem, _annealing, state: is_full(state),
    refused=_passed,
    abandoned=_passed,
    may_refuse=lambda _: False,
    budget=lambda _: Budget(),
    forecast=_doubling,
)
ZERO_SHOT = replace(BOOTSTRAP, seed=zero_shot, finished=lambda *_: True, forecast=_once)
RANDOM = replace(ZERO_SHOT, seed=random)
