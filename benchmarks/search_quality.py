"""`python -m benchmarks.search_quality n=64,256 seeds=12`: search methods on a synthetic in-context learner.

Three kinds of data: pairs of which exactly one is true, no rule, and four labels without a rule. For each method, over seeds:
the energy of the labels of all examples less that of the true ones, accuracy, demonstrations computed by an ideal trie, and
scorings of the pool. `methods=blocks,single` picks methods. No server and no model; costs are counts.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.learner import Learner, problem_of
from benchmarks.serving import arguments
from icm_hpc.core import energy, search
from icm_hpc.core.methods import METHODS
from icm_hpc.core.methods.method import forecast_of
from icm_hpc.core.search import Answer, Asking
from icm_hpc.core.types import (
    UNLABELLED,
    Annealing,
    Ask,
    Budget,
    Labels,
    Problem,
    RandomDraws,
    ScoreOne,
    State,
    pool_of,
)
from icm_hpc.tasks.task import EXACTLY_ONE

SHOWN = ("blocks", "blocks x4", "blocks in 20 scorings", "single", "bootstrap", "zero_shot")
KINDS = ("pairs", "no rule", "four labels")
COLUMNS = (
    *("data", "N", "method", "energy over truth: mean; worst", "accuracy: mean; worst", "demonstrations"),
    *("fewer than single", "scorings", "forecast"),
)


@dataclass(frozen=True, slots=True)
class Way:
    """A method with the settings that differ from its own."""

    method: str
    restarts: int = 1
    scorings: int | None = None  # the limit; None: the method's own

    def budget(self, n: int) -> Budget:
        """Return what one search of n examples may spend."""
        usual = METHODS[self.method].budget(n)
        return usual if self.scorings is None else dataclasses.replace(usual, scorings=self.scorings)


VARIANTS = {"blocks x4": Way("blocks", restarts=4), "blocks in 20 scorings": Way("blocks", scorings=20)}


def way(name: str) -> Way:
    """Return a variant, or a method as it is."""
    return VARIANTS.get(name, Way(name))


@dataclass(slots=True)
class Oracle:
    """Answers a search by a learner, each ask once, and counts what an ideal trie computes."""

    learner: Learner
    demonstrations: float = 0.0
    scorings: int = 0
    _known: dict[Any, Answer] = field(default_factory=dict)

    def run(self, asking: Asking[Any]) -> Any:
        """Answer all that is asked, and return what the search returns."""
        try:
            asks = next(asking)
            while True:
                asks = asking.send([self._answer(ask) for ask in asks])
        except StopIteration as end:
            return end.value

    def _answer(self, ask: Ask) -> Answer:
        key = (ask.labels.tobytes(), ask.index if isinstance(ask, ScoreOne) else None)
        if key not in self._known:
            self._known[key] = self._scored(ask)
        return self._known[key]

    def _scored(self, ask: Ask) -> Answer:
        scores = self.learner.scores(ask.labels)
        if isinstance(ask, ScoreOne):
            self.demonstrations += 1 if ask.shared_prefix else math.log2(max(2, len(pool_of(ask.labels))))
            one: Answer = scores[ask.index]
            return one
        pool = len(pool_of(ask.labels))
        self.demonstrations += pool * math.log2(max(2, pool)) + pool
        self.scorings += 1
        return np.where((ask.labels == UNLABELLED)[:, None], np.nan, scores)


@dataclass(frozen=True, slots=True)
class Result:
    """One search at its end."""

    over_truth: float  # energy
    accuracy: float
    demonstrations: float
    scorings: int


def problem(kind: str, n: int) -> Problem:
    """Return N examples of a kind of data."""
    if kind == "pairs":
        return problem_of([2] * (n // 2), 2, EXACTLY_ONE)
    return problem_of([1] * n, 4 if kind == "four labels" else 2, None)


def searched(name: str, given: Problem, learner: Learner, annealing: Annealing, seed: int) -> tuple[Labels, Oracle]:
    """Return the labels of all examples by one method, and what they cost."""
    chosen, oracle = way(name), Oracle(learner)
    method, budget = METHODS[chosen.method], chosen.budget(given.n)
    finals = []
    for restart in range(chosen.restarts):
        mine = dataclasses.replace(annealing, first_labels="random" if restart else annealing.first_labels)
        state: State
        state, info = oracle.run(method.seed(given, mine, RandomDraws.of(seed + restart, 0, 0)))
        scorings = info.scorings
        while not budget.is_spent(state.step, scorings) and not method.finished(given, mine, state):
            draws = RandomDraws.of(seed + restart, 0, state.step + 1)
            left = budget.left(state.step, scorings)
            state, info = oracle.run(method.step(given, mine, state, draws, steps_left=left))
            scorings += info.scorings
        finals.append(state.best)
    best = max(finals, key=lambda one: (len(pool_of(one.labels)), one.energy))
    labels, _ = oracle.run(search.complete(given, annealing, best))
    return labels, oracle


def annealing_of(method: str) -> Annealing:
    """Return the parameters of a method, with the default objective."""
    return Annealing(objective="calibrated", **METHODS[method].defaults)


def measured(name: str, kind: str, n: int, seed: int) -> Result:
    """Search once."""
    given = problem(kind, n)
    learner = Learner(given, seed, knowledge=0.6)
    annealing = annealing_of(way(name).method)
    labels, oracle = searched(name, given, learner, annealing, seed * 100)

    def energy_of(given_labels: Labels) -> float:
        return energy.evaluation(given, annealing, given_labels, learner.scores(given_labels)).labelling.energy

    over = energy_of(labels) - energy_of(learner.truth)
    accuracy = float(np.mean(labels == learner.truth))
    return Result(over, accuracy, oracle.demonstrations, oracle.scorings)


def row(kind: str, n: int, name: str, results: Sequence[Result], reference: float) -> str:
    """Return a row of the table."""
    over, accuracy = ([getattr(one, key) for one in results] for key in ("over_truth", "accuracy"))
    cost = float(np.mean([one.demonstrations for one in results]))
    fewer = f"{reference / cost:.1f}" if reference else "-"
    scorings = [one.scorings for one in results]
    chosen, given = way(name), problem(kind, n)
    method = chosen.method
    expected = forecast_of(METHODS[method], given, annealing_of(method), chosen.budget(n))
    return (
        f"| {kind} | {n} | {name} | {np.mean(over):.1f}; {min(over):.1f} | {np.mean(accuracy):.2f}; {min(accuracy):.2f}"
        f" | {cost:,.0f} | {fewer} | {np.mean(scorings):.0f} ({min(scorings)} to {max(scorings)})"
        f" | {len(expected) * chosen.restarts} |"
    )


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"n": "64,256", "seeds": "12", "methods": ",".join(SHOWN), "kinds": ",".join(KINDS)})
    if rest:
        sys.exit(f"not known: {' '.join(rest)}")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for kind in mine["kinds"].split(","):
        for n in map(int, mine["n"].split(",")):
            methods = mine["methods"].split(",")
            found = {name: [measured(name, kind, n, seed) for seed in range(int(mine["seeds"]))] for name in methods}
            single = [one.demonstrations for one in found.get("single", [])]
            for name, results in found.items():
                print(row(kind, n, name, results, float(np.mean(single)) if single else 0.0), flush=True)


if __name__ == "__main__":
    main()
