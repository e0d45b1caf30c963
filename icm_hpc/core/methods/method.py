"""What a search method is: how it begins, what a step does, and what a refused step leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..search import Asking
from ..types import Annealing, Draws, Problem, State, StepInfo

Stepped: TypeAlias = tuple[State, StepInfo]


@dataclass(frozen=True, slots=True)
class Method:
    """A search method. Its functions are pure: all randomness is in the draws, all scores are asked for.

    `state` is `State` or a dataclass derived from it; a checkpoint saves its fields (numbers, arrays, and dataclasses of
    them) without knowing their names.
    """

    state: type[State]
    seed: Callable[[Problem, Annealing, Draws], Asking[Stepped]]  # step 0
    step: Callable[[Problem, Annealing, State, Draws], Asking[Stepped]]
    refused: Callable[[State], State]  # what a step leaves that is refused or abandoned; so are steps speculated on
