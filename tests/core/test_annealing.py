"""The annealing visits labellings as often as the documented chain does, which is enumerated exactly.

The chain, from a labelling x: draw an example; its new label is the likelier one given the others; if that is its label
already, stay. Else repair conflicts: in each round, a random one of those whose better repair does not fall under the
best so far (in the first round: of all); until none is broken, none can be repaired, or the rounds are over. Accept the
outcome y with probability min(1, exp((E(y) - E(x)) / T)), where T depends on the number of proposals accepted so far.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from icm_hpc.core import search
from icm_hpc.core.methods import single
from icm_hpc.core.types import Annealing, Conflict, Problem, RandomDraws, ScoreOne, State
from icm_hpc.tasks.task import EXACTLY_ONE

Labelling = tuple[int, ...]
FAILURE = 1e-6  # probability with which a right search fails one of these tests


@dataclass(frozen=True)
class Instance:
    """A random scorer of labellings of up to ten examples, and pairs of which exactly one is true."""

    n: int
    pairs: tuple[tuple[int, int], ...]
    alpha: float
    seed: int

    @cache  # noqa: B019 - instances live as long as the tests
    def score(self, index: int, others: Labelling) -> tuple[float, float]:
        """Return log P of both labels given the other examples' labels."""
        digits = int("".join(map(str, others)) or "0", 2)
        logits = np.random.default_rng([self.seed, index, digits]).normal(size=2)
        low, high = logits - np.logaddexp(*logits)
        return float(low), float(high)

    def scores(self, x: Labelling) -> npt.NDArray[np.float64]:
        """Return the scores of a whole labelling."""
        return np.array([self.score(i, (*x[:i], *x[i + 1 :])) for i in range(self.n)])

    @cache  # noqa: B019
    def energy(self, x: Labelling) -> float:
        """Return the energy, from its definition."""
        signed = [(1 if label else -1) * (high - low) for label, (low, high) in zip(x, self.scores(x), strict=True)]
        return float(self.alpha * sum(signed) / self.n - len(self.broken(x)))

    def broken(self, x: Labelling) -> list[tuple[int, int]]:
        """Return the pairs of which not exactly one is true."""
        return [(a, b) for a, b in self.pairs if x[a] == x[b]]

    def better_repair(self, x: Labelling, pair: tuple[int, int]) -> Labelling:
        """Return the better way to repair a pair, the first of equals."""
        ways = [tuple({pair[0]: a, pair[1]: b}.get(i, label) for i, label in enumerate(x)) for a, b in ((0, 1), (1, 0))]
        return max(ways, key=self.energy)

    def repaired(self, x: Labelling, floor: float, rounds: int) -> dict[Labelling, float]:
        """Return where repairs lead, with probabilities."""
        better = [y for pair in self.broken(x) if self.energy(y := self.better_repair(x, pair)) >= floor]
        if not better or not rounds:
            return {x: 1.0}
        ends: dict[Labelling, float] = {}
        for y in better:
            for end, share in self.repaired(y, self.energy(y), rounds - 1).items():
                ends[end] = ends.get(end, 0.0) + share / len(better)
        return ends

    def labellings(self) -> list[Labelling]:
        """Return all labellings."""
        return list(product((0, 1), repeat=self.n))


@dataclass(frozen=True)
class Chain:
    """The exact distribution of the chain after each step, and how probably it has met the best labelling by then."""

    labellings: list[Labelling]
    distributions: list[npt.NDArray[np.float64]]
    met_best: float


def exact(instance: Instance, annealing: Annealing, steps: int) -> Chain:
    """Enumerate the chain."""
    xs = instance.labellings()
    place = {x: i for i, x in enumerate(xs)}
    energies = np.array([instance.energy(x) for x in xs])
    proposals = np.zeros((len(xs), len(xs)))
    for x in xs:
        for i in range(instance.n):
            low, high = instance.score(i, (*x[:i], *x[i + 1 :]))
            new = int(high > low)
            flipped = (*x[:i], new, *x[i + 1 :])
            ends = {x: 1.0} if new == x[i] else instance.repaired(flipped, -math.inf, annealing.repair_rounds)
            for y, share in ends.items():
                proposals[place[x], place[y]] += share / instance.n
    moves = {
        flips: proposals
        * np.exp(np.minimum(0, (energies[None] - energies[:, None]) / search.temperature(annealing, flips)))
        for flips in range(steps + 1)
    }
    # A proposal that leads back to x is accepted and counts as a flip; one that keeps the label is none.
    kept = np.array([_share_kept(instance, x) for x in xs])
    start = np.zeros((steps + 2, len(xs)))
    for x, share in _starts(instance, annealing).items():
        start[0, place[x]] += share
    best = int(np.argmax(energies))
    spread, unmet, distributions = start, start.copy(), []
    unmet[:, best] = 0
    for _ in range(steps):
        spread, unmet = _stepped(spread, moves, proposals, kept), _stepped(unmet, moves, proposals, kept)
        unmet[:, best] = 0
        distributions.append(spread.sum(axis=0))
    return Chain(xs, distributions, 1 - float(unmet.sum()))


def _share_kept(instance: Instance, x: Labelling) -> float:
    likelier = [int(np.argmax(instance.score(i, (*x[:i], *x[i + 1 :])))) for i in range(instance.n)]
    return sum(new == old for new, old in zip(likelier, x, strict=True)) / instance.n


def _starts(instance: Instance, annealing: Annealing) -> dict[Labelling, float]:
    balanced = [x for x in instance.labellings() if sum(x) == (instance.n + 1) // 2]
    ends: dict[Labelling, float] = {}
    for x in balanced:
        for y, share in instance.repaired(x, instance.energy(x), annealing.seed_repair_rounds).items():
            ends[y] = ends.get(y, 0.0) + share / len(balanced)
    return ends


def _stepped(
    spread: npt.NDArray[np.float64],
    moves: dict[int, npt.NDArray[np.float64]],
    proposals: npt.NDArray[np.float64],
    kept: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the distribution over (flips, labelling) after one more step."""
    after = np.zeros_like(spread)
    diagonal = np.arange(spread.shape[1])
    for flips, row in enumerate(spread[:-1]):
        if row.any():
            accepted = moves[flips].copy()
            accepted[diagonal, diagonal] -= kept
            after[flips + 1] += row @ accepted
            after[flips] += row * (1 - accepted.sum(axis=1))
    return after


def run(instance: Instance, annealing: Annealing, steps: int, seed: int) -> list[State]:
    """Return the states of our search after each step; the first is that of the seeds."""
    rules = tuple(Conflict(a, b, EXACTLY_ONE) for a, b in instance.pairs)
    groups = np.arange(instance.n)
    for a, b in instance.pairs:
        groups[b] = groups[a]
    problem = Problem(groups, 2, rules)
    state = answered(instance, single.seed(problem, annealing, RandomDraws.of(seed, 0, 0)))
    states = [state]
    for step in range(1, steps + 1):
        states.append(answered(instance, single.step(problem, annealing, states[-1], RandomDraws.of(seed, 0, step))))
    return states


def answered(instance: Instance, asking: search.Asking[Any]) -> State:
    """Answer what a step asks."""
    try:
        asks = next(asking)
        while True:
            tables = [(ask, instance.scores(tuple(ask.labels.tolist()))) for ask in asks]
            asks = asking.send([scores[ask.index] if isinstance(ask, ScoreOne) else scores for ask, scores in tables])
    except StopIteration as end:
        state: State = end.value[0]
        return state


INSTANCES = [
    Instance(n=4, pairs=(), alpha=4, seed=1),
    Instance(n=6, pairs=(), alpha=6, seed=2),
    Instance(n=6, pairs=((0, 1), (2, 3), (4, 5)), alpha=6, seed=3),
    Instance(n=10, pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)), alpha=10, seed=4),
]
RUNS, STEPS = 600, 30


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda i: f"{i.n}-examples-{len(i.pairs)}-pairs")
@pytest.mark.parametrize("schedule", ["constant", "log"])
def test_visits_are_as_frequent_as_the_enumerated_chain_says(instance: Instance, schedule: str) -> None:
    """Bound on the distance between the observed shares of S labellings after R independent runs and the exact ones:
    E|p - q|_1 <= sum over S of sqrt(q (1 - q) / R), and by McDiarmid it exceeds its mean by t with probability at most
    exp(-R t^2 / 2).
    """
    annealing = Annealing(
        alpha=instance.alpha, num_seeds=instance.n, schedule=schedule, initial_temperature=4, final_temperature=0.01
    )
    chain = exact(instance, annealing, STEPS)
    place = {x: i for i, x in enumerate(chain.labellings)}
    histories = [run(instance, annealing, STEPS, seed) for seed in range(RUNS)]
    slack = math.sqrt(2 * math.log(2 / FAILURE) / RUNS)
    for step in (3, STEPS):
        wanted = chain.distributions[step - 1]
        found = np.zeros(len(wanted))
        for states in histories:
            found[place[tuple(states[step].current.labels.tolist())]] += 1 / RUNS
        bound = float(np.sqrt(wanted * (1 - wanted) / RUNS).sum()) + slack
        assert np.abs(found - wanted).sum() <= bound
    best = max(map(instance.energy, chain.labellings))
    met = np.mean([any(s.current.energy >= best - 1e-9 for s in states) for states in histories])
    if instance.energy(chain.labellings[int(np.argmax(chain.distributions[0]))]) < best:
        assert abs(met - chain.met_best) <= slack
    for states in histories:
        assert states[-1].best.energy == max(s.current.energy for s in states), "the best that was seen is kept"


def test_at_a_fixed_temperature_the_distribution_is_the_chains_stationary_one() -> None:
    instance = Instance(n=6, pairs=(), alpha=6, seed=3)
    warm, cool = (Annealing(alpha=6, num_seeds=6, schedule="constant", initial_temperature=t) for t in (30, 3))
    chain = exact(instance, warm, 120)
    stationary = chain.distributions[-1]
    assert np.abs(chain.distributions[-2] - stationary).sum() < 1e-6
    place = {x: i for i, x in enumerate(chain.labellings)}
    found = np.zeros(len(stationary))
    for seed in range(RUNS):
        found[place[tuple(run(instance, warm, 120, seed)[-1].current.labels.tolist())]] += 1 / RUNS
    bound = float(np.sqrt(stationary * (1 - stationary) / RUNS).sum()) + math.sqrt(2 * math.log(1 / FAILURE) / RUNS)
    assert np.abs(found - stationary).sum() <= bound
    assert np.abs(exact(instance, cool, 120).distributions[-1] - stationary).sum() > bound, (
        "temperatures can be told apart"
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_best_labelling_is_found_where_the_schedule_allows_it(seed: int) -> None:
    instance = Instance(n=6, pairs=((0, 1), (2, 3)), alpha=6, seed=100 + seed)
    annealing = Annealing(alpha=6, num_seeds=6, schedule="log", initial_temperature=50, final_temperature=0.01)
    chance = exact(instance, annealing, 200).met_best
    best = max(map(instance.energy, instance.labellings()))
    found = [run(instance, annealing, 200, s)[-1].best.energy >= best - 1e-9 for s in range(40)]
    if chance > 1 - FAILURE / 40:
        assert all(found)
    else:  # Hoeffding
        assert abs(np.mean(found) - chance) <= math.sqrt(math.log(2 / FAILURE) / 80)
