"""Blocks: simulated annealing on the published energy with proposals that change many labels at once.

The pool starts with the labels that the model is most certain of, grows by whole units whose labels are chosen given the
pool, and is relabelled in between and afterwards: the pool's own scores, which each evaluation returns, propose new labels
for a share of its units. The share is halved by a refusal and doubled by an acceptance. (Block proposals that are locally
informed; the published search is the share of one example. A kick, once nothing more is accepted, makes it an iterated
local search; Lourenço, Martin and Stützle 2003.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from .. import growth
from ..energy import Values, worth
from ..search import Asking, accepts, evaluate, step_info, temperature
from ..types import Annealing, Budget, Draws, Evaluation, Labels, Problem, State, pool_of, with_labels
from ..units import Links, Unit, best_labels, joints, links_of, units_of
from .method import Method, Stepped, is_full

GROWTH = 0.5  # examples that a growth adds, as a share of the pool
SETTLING = 2  # proposals of new labels between two growths, at most
PATIENCE = 3  # units that are tried one by one, at the final temperature, before the search ends
NOISE = 0.5  # nats of noise in the scores that propose, for each unit of temperature
SMALLEST_SHARE = 2.0**-12
STEPS_EACH = 4  # steps, for each scoring that is allowed: some find nothing to propose
KICKED = 0.5  # of the units, those that are least certain; a kick changes half of these


@dataclass(frozen=True, slots=True)
class Blocks(State):
    """A search by blocks between two steps."""

    proposals: int = 0  # since the pool grew: what the temperature depends on
    share: float = 1.0  # of the units that would gain by other labels, how many are proposed together
    refusals: int = 0  # in a row, at the final temperature
    failures: int = 0  # of these, or since the pool grew, what could not be scored
    kicks: int = 0  # since the best labelling was found


def seed(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[Stepped]:
    """Do step 0: give the first examples their labels, and evaluate."""
    labels, zero_shot = yield from growth.first_labels(problem, annealing, draws)
    (found,) = yield from evaluate(problem, annealing, [labels], "eval")
    state = Blocks(0, 0, current=found.labelling, best=found.labelling, zero_shot_counts=zero_shot)
    changed = tuple((int(i), int(labels[i])) for i in pool_of(labels))
    return state, step_info(problem, state, proposal=found, changed=changed, accepted=True)


def step(
    problem: Problem, annealing: Annealing, state: State, draws: Draws, *, steps_left: int | None = None
) -> Asking[Stepped]:
    """Do one step: propose new labels for units of the pool or, once these have settled, let the pool grow; or kick it.

    Where too few steps are left for the pool to settle before each growth that is to come, it grows at once.
    """
    now = cast(Blocks, state)
    if _is_settled(problem, annealing, now):
        return (yield from _kick(problem, annealing, now, draws))
    heat = _heat(annealing, now)
    proposed = _relabelled(problem, annealing, now, draws)
    size = len(pool_of(now.current.labels))
    if not is_full(now) and (proposed is None or not _may_settle(size, problem.n, now.proposals, steps_left)):
        return (yield from _grow(problem, annealing, now, draws, steps_left))
    if proposed is None:
        after = refused(annealing, now)
        return after, step_info(problem, after, temperature=heat)
    (proposal,) = yield from evaluate(problem, annealing, [proposed], "eval")
    difference, u = proposal.labelling.energy - now.current.energy, draws.uniform()
    accepted = difference > 0 or (heat > annealing.final_temperature and accepts(u, difference, heat))
    after = _moved(now, proposal) if accepted else refused(annealing, now)
    changed = tuple((int(i), int(proposed[i])) for i in np.flatnonzero(proposed != now.current.labels))
    return after, step_info(
        problem, after, proposal=proposal, changed=changed, temperature=heat, u=u, accepted=accepted
    )


def _heat(annealing: Annealing, state: Blocks) -> float:
    """Return the temperature of the next proposal: falling once the pool is full, and the final one before."""
    return temperature(annealing, state.proposals) if is_full(state) else annealing.final_temperature


def _gaining(problem: Problem, labels: Labels, values: Values, noisy: Values) -> list[tuple[Unit, dict[int, int]]]:
    """Return the units of the pool that `noisy` values give other labels, with these: the greatest gain in `values` first."""
    links, found = links_of(problem), []
    for unit in units_of(links, pool_of(labels).tolist()):
        best = best_labels([unit], links, noisy, labels)
        gain = sum(float(values[i, label] - values[i, labels[i]]) for i, label in best.items())
        if any(labels[i] != label for i, label in best.items()):
            found.append((-gain, unit, best))
    return [(unit, best) for _, unit, best in sorted(found, key=lambda one: one[:2])]


def _values(annealing: Annealing, labels: Labels, scores: Values) -> Values:
    """Return what each label of each example of the pool is worth: f64[N, L], NaN outside the pool."""
    pool, values = pool_of(labels), np.full(scores.shape, np.nan)
    values[pool] = worth(annealing, scores[pool])
    return values


def _relabelled(problem: Problem, annealing: Annealing, state: Blocks, draws: Draws) -> Labels | None:
    """Return the labels to propose, or None if the scores propose no others."""
    labels, heat = state.current.labels, _heat(annealing, state)
    values = _values(annealing, labels, state.current.scores)
    is_cold, noisy = heat <= annealing.final_temperature, values
    if not is_cold:
        uniforms = np.clip(draws.uniforms(values.size), 1e-12, 1 - 1e-12).reshape(values.shape)
        noisy = values - NOISE * heat * np.log(-np.log(uniforms))  # Gumbel's: the best is drawn from a softmax
    moves = _gaining(problem, labels, values, noisy)
    if not moves:
        return None
    if is_cold and is_full(state):
        moves = _in_turn(moves, state.refusals)
    else:
        count = math.ceil(state.share * len(moves))
        moves = [moves[place] for place in sorted(draws.permutation(len(moves))[:count].tolist())]
    return with_labels(labels, {i: label for _, best in moves for i, label in best.items()})


def _halvings(moves: int) -> int:
    """Return how many proposals of more than one of so many moves there are: all, half of them, a quarter."""
    return max(0, moves - 1).bit_length()


def _in_turn(moves: list[tuple[Unit, dict[int, int]]], refusals: int) -> list[tuple[Unit, dict[int, int]]]:
    """Return what is proposed after so many refusals: all moves, the better half, ..., then each by itself."""
    single = refusals - _halvings(len(moves))
    if single >= 0:
        return [moves[single % len(moves)]]
    return moves[: math.ceil(len(moves) * 0.5**refusals)]


def _may_settle(size: int, n: int, proposals: int, steps_left: int | None) -> bool:
    """Return whether a pool of `size` may have another proposal before it grows: the steps suffice for each later pool to
    have as many.
    """
    needed = (1 + SETTLING) * len(growth.sizes(size, n, share=GROWTH))
    return proposals < SETTLING and (steps_left is None or proposals + steps_left >= needed)


def _grow(
    problem: Problem, annealing: Annealing, state: Blocks, draws: Draws, steps_left: int | None
) -> Asking[Stepped]:
    """Label more examples given the pool; each is asked once, behind one order of the pool.

    Fewer are added after each growth that was abandoned, since an example may have no score.
    """
    size = len(pool_of(state.current.labels))
    share = growth.share_within(size, problem.n, share=GROWTH, growths=steps_left)
    added = growth.next_units(problem, state.current.labels, draws, share=share * 0.5**state.failures)
    values = yield from growth.values_given_pool(annealing, state.current, added)
    changes = best_labels(added, links_of(problem), values, state.current.labels)
    labels = with_labels(state.current.labels, changes)
    (found,) = yield from evaluate(problem, annealing, [labels], "eval")
    after = replace(_moved(state, found), proposals=0, share=1.0)
    return after, step_info(problem, after, proposal=found, changed=tuple(sorted(changes.items())), accepted=True)


def _kick(problem: Problem, annealing: Annealing, state: Blocks, draws: Draws) -> Asking[Stepped]:
    """Go on from the best labelling with other labels for some units: of the half that is least certain, half."""
    base, links = state.best, links_of(problem)
    values = _values(annealing, base.labels, base.scores)
    others = sorted(_other_labels(unit, links, values, base.labels) for unit in units_of(links, range(problem.n)))
    weakest = others[: math.ceil(KICKED * len(others))]
    chosen = [weakest[place] for place in draws.permutation(len(weakest))[: math.ceil(len(weakest) / 2)]]
    changes = {i: label for _, unit, labels in chosen for i, label in zip(unit, labels, strict=True)}
    (found,) = yield from evaluate(problem, annealing, [with_labels(base.labels, changes)], "eval")
    after = replace(_moved(state, found), kicks=0 if found.labelling.energy > base.energy else state.kicks + 1)
    return after, step_info(problem, after, proposal=found, changed=tuple(sorted(changes.items())), accepted=True)


def _other_labels(unit: Unit, links: Links, values: Values, labels: Labels) -> tuple[float, Unit, tuple[int, ...]]:
    """Return by how much a unit's labels are worth more than its best other ones, and these; where others break more
    conflicts, its own labels, last.
    """
    own = tuple(int(labels[i]) for i in unit)
    ways = joints(unit, links, values, labels)
    other = next((way for way in ways if way.labels != own and way.broken == ways[0].broken), None)
    if other is None:
        return math.inf, unit, own
    worth_now = sum(float(values[i, label]) for i, label in zip(unit, own, strict=True))
    return worth_now - other.value, unit, other.labels


def _moved(state: Blocks, found: Evaluation) -> Blocks:
    """Return the state after an accepted proposal. Energies of pools of different sizes do not compare: a growing pool
    starts a new best.
    """
    grown = len(pool_of(found.labelling.labels)) > len(pool_of(state.best.labels))
    best = found.labelling if grown or found.labelling.energy > state.best.energy else state.best
    return Blocks(
        step=state.step + 1,
        flips=state.flips + 1,
        current=found.labelling,
        best=best,
        zero_shot_counts=state.zero_shot_counts,
        proposals=state.proposals + 1,
        share=min(1.0, 2 * state.share),
        kicks=0 if best is found.labelling else state.kicks,
    )


def refused(annealing: Annealing, state: State) -> State:
    """Return the state after a step that is refused: the labels stay, half as many are proposed next."""
    now = cast(Blocks, state)
    is_cold = is_full(now) and _heat(annealing, now) <= annealing.final_temperature
    return replace(
        now,
        step=now.step + 1,
        proposals=now.proposals + 1,
        share=max(SMALLEST_SHARE, now.share / 2),
        refusals=now.refusals + is_cold,
    )


def abandoned(annealing: Annealing, state: State) -> State:
    """Return the state after a step that could not be scored: what comes next is another proposal; it is no refusal."""
    after = cast(Blocks, refused(annealing, state))
    now = cast(Blocks, state)
    counts = after.refusals > now.refusals or not is_full(now)
    return replace(after, failures=now.failures + counts)


def finished(problem: Problem, annealing: Annealing, state: State) -> bool:
    """Return whether nothing more is accepted, and kicks lead no further."""
    now = cast(Blocks, state)
    return (now.kicks >= annealing.kicks or now.failures >= PATIENCE) and _is_settled(problem, annealing, now)


def _is_settled(problem: Problem, annealing: Annealing, now: Blocks) -> bool:
    """Return whether the pool is full and, at the final temperature, proposals down to single units were refused."""
    if not is_full(now) or _heat(annealing, now) > annealing.final_temperature:
        return False
    labels = now.current.labels
    values = _values(annealing, labels, now.current.scores)
    left = len(_gaining(problem, labels, values, values))
    singles = now.refusals - _halvings(left)
    return singles >= left or singles - now.failures >= min(left, PATIENCE)


def budget(n: int) -> Budget:
    """Return a limit that searches reach only where they do not settle."""
    scorings = 16 * max(4, n.bit_length())
    return Budget(steps=STEPS_EACH * scorings, scorings=scorings)


def forecast(problem: Problem, annealing: Annealing, budget: Budget) -> Sequence[int]:
    """Return the examples in each scoring that is expected: a fit to what benchmarks.search_quality counts.

    One for each growth, another one for each where examples have no rule and the budget has room, and of the full pool
    L^1.2 units^0.35.
    """
    n, units = problem.n, len(units_of(links_of(problem), range(problem.n)))
    size, left = min(n, max(1, annealing.num_seeds)), budget.left(0, 1)
    found = [size]
    for grown in growth.sizes(size, n, share=GROWTH, growths=left):
        if units == n and _may_settle(size, n, 0, None if left is None else left + 1 - len(found)):
            found.append(size)
        size = grown
        found.append(size)
    full = math.ceil(problem.n_labels**1.2 * units**0.35)
    return [*found, *[n] * full]


METHOD = Method(
    state=Blocks,
    seed=seed,
    step=step,
    finished=finished,
    refused=refused,
    abandoned=abandoned,
    may_refuse=is_full,
    budget=budget,
    forecast=forecast,
    defaults={"schedule": "exp", "initial_temperature": 1.0, "decay": 0.5},
)
