"""What a search method is: how it begins, what a step does, what a refused step leaves, and when it ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ..search import Asking
from ..types import UNLABELLED, Annealing, Budget, Draws, Problem, State, StepInfo

Stepped: TypeAlias = tuple[State, StepInfo]


class Step(Protocol):
    """Does one step. The budget has room for `steps_left`, this one included, each with a scoring; None: for any number.

    A step that may be refused must not depend on it: it is speculated on before the scorings of those before it are counted.
    """

    def __call__(
        self, problem: Problem, annealing: Annealing, state: State, draws: Draws, *, steps_left: int | None = None
    ) -> Asking[Stepped]: ...


@dataclass(frozen=True, slots=True)
class Method:
    """A search method. Its functions are pure: all randomness is in the draws, all scores are asked for.

    `state` is `State` or a dataclass derived from it; a checkpoint saves its fields (numbers, arrays, and dataclasses of
    them) without knowing their names.
    """

    state: type[State]
    seed: Callable[[Problem, Annealing, Draws], Asking[Stepped]]  # step 0
    step: Step
    finished: Callable[[Problem, Annealing, State], bool]  # whether nothing is left to do, whatever the budget
    refused: Callable[[Annealing, State], State]  # what a step leaves that is refused
    abandoned: Callable[[Annealing, State], State]  # what a step leaves whose answers were no scores
    may_refuse: Callable[[State], bool]  # whether the next step may be: if so, those after it are speculated on
    budget: Callable[[int], Budget]  # of a search of N examples, unless the settings limit it
    forecast: Callable[[Problem, Annealing, Budget], Sequence[int]]  # examples in each scoring that is expected
    shares_last_prefix: bool = True  # the last pass shows the pool in one order; else in the layout's for each example
    defaults: Mapping[str, Any] = field(default_factory=dict)  # fields of Annealing that differ from its own defaults


def forecast_of(method: Method, problem: Problem, annealing: Annealing, budget: Budget) -> Sequence[int]:
    """Return the examples in each scoring that a search within its budget is expected to do."""
    most = [
        limit for limit in (budget.scorings, None if budget.steps is None else budget.steps + 1) if limit is not None
    ]
    return list(method.forecast(problem, annealing, budget))[: max(1, min(most)) if most else None]


def is_full(state: State) -> bool:
    """Return whether the search has labelled every example."""
    return not bool((state.current.labels == UNLABELLED).any())
