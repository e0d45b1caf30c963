"""Speculative steps: several steps of a method are scored together, each as if those before it were refused."""

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar, cast

from .methods.method import Method, Stepped
from .search import Answer, Asking, step_info
from .types import Annealing, Ask, Draws, Problem, State, StepInfo

R = TypeVar("R")
AskingOrNot = Generator[Sequence[Ask], Sequence[Answer | None], R]  # may be sent None for what cannot be scored


def begin(
    method: Method, problem: Problem, annealing: Annealing, draws_of: Callable[[int], Draws]
) -> AskingOrNot[list[Stepped]]:
    """Do step 0 with its draws. It may be sent None for a single example, not for a pool."""
    return [(yield from cast(AskingOrNot[Stepped], method.seed(problem, annealing, draws_of(0))))]


def steps(
    method: Method,
    problem: Problem,
    annealing: Annealing,
    state: State,
    draws_of: Callable[[int], Draws],
    *,
    ahead: int,
    steps_left: int | None = None,
) -> AskingOrNot[list[Stepped]]:
    """Do the steps that follow `state`, up to the first that is accepted, and `ahead` at most; return what each gave. The
    budget has room for `steps_left`.

    Speculative: each step begins at once, from the state that those before it leave if they are refused, with the draws of
    its own number (`draws_of`). That is what a sequence of single steps does, in fewer rounds of asking. Steps after an
    accepted one are dropped, and those after one that is sent None: it is abandoned, and leaves the labels as they were.
    """
    waiting: dict[int, tuple[Asking[Stepped], Sequence[Ask]]] = {}
    done: dict[int, Stepped] = {}

    def go_on(place: int, asking: Asking[Stepped], answers: Sequence[Answer | None] | None) -> None:
        scored = [answer for answer in answers or () if answer is not None]
        if len(scored) < len(answers or ()):
            kept = method.abandoned(annealing, starts[place])
            waiting.pop(place)
            done[place] = kept, step_info(problem, kept, abandoned=True)
            return
        try:
            waiting[place] = asking, (next(asking) if answers is None else asking.send(scored))
        except StopIteration as end:
            waiting.pop(place, None)
            done[place] = end.value

    starts = [state]
    for place in range(ahead if steps_left is None else min(ahead, steps_left)):
        begun, left = starts[place], None if steps_left is None else steps_left - place
        go_on(place, method.step(problem, annealing, begun, draws_of(begun.step + 1), steps_left=left), None)
        starts.append(method.refused(annealing, begun))
        if not method.may_refuse(begun):
            break
    while True:
        last = min(
            (place for place, (_, info) in done.items() if info.accepted or info.abandoned), default=len(starts) - 2
        )
        open_asks = [(place, *waiting[place]) for place in sorted(waiting) if place <= last]
        if not open_asks:
            return [done[place] for place in range(last + 1)]
        answers = yield [ask for _, _, asks in open_asks for ask in asks]
        taken = 0
        for place, asking, asks in open_asks:
            go_on(place, asking, answers[taken : taken + len(asks)])
            taken += len(asks)


class Ahead:
    """How many speculative steps begin at once: it changes the work, never a decision.

    As many as are likely to be refused in a row, as long as their scorings together do not fill a step of the server's
    engine: what is sent beyond that only waits. `scorings_at_once` fill this search's share of one.
    """

    MOST = 64
    MEMORY = 16  # steps

    def __init__(self, fixed: int | None, scorings_at_once: float) -> None:
        self._fixed = fixed
        self._room = scorings_at_once
        self._accepted, self._scored = 0.5, 1.0  # shares of the steps; moving averages
        self.steps = fixed or 1

    def note(self, info: StepInfo) -> None:
        """Learn from a step that was done."""
        self._accepted += (info.accepted - self._accepted) / self.MEMORY
        self._scored += ((info.proposal is not None) - self._scored) / self.MEMORY
        wanted = min(1 / max(self._accepted, 1e-3), self._room / max(self._scored, 1e-3), self.MOST)
        self.steps = self._fixed or max(1, int(wanted))
