"""Whether an engine's noise can decide a step: each is done a second time with scores moved by it, and compared."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from . import energy
from .methods.method import Method, Stepped
from .search import Answer, Asking
from .types import Annealing, Ask, Draws, Labelling, Problem, ScoreOne, State, bytes_of

Moves = Callable[[Answer], Answer]


def watched(method: Method, noise: float) -> Method:
    """Return the method with steps that say in `StepInfo.within_noise` whether they would have come out otherwise.

    The second time, a step begins from the same state with the same draws, and each score, of the state and of what is
    answered, is moved by `noise` nats, up or down by chance. It asks the server nothing: it is sent what the first was. So it
    finds many decisions that are nearer to their threshold than the noise, of whatever kind, but not each of them.
    """

    def seed(problem: Problem, annealing: Annealing, draws: Draws) -> Asking[Stepped]:
        second = method.seed(problem, annealing, copy.deepcopy(draws))
        return _compared(method.seed(problem, annealing, draws), second, _moves(noise, 0))

    def step(
        problem: Problem, annealing: Annealing, state: State, draws: Draws, *, steps_left: int | None = None
    ) -> Asking[Stepped]:
        moved = _moves(noise, state.step + 1)

        def again(found: Labelling) -> Labelling:
            return energy.evaluation(problem, annealing, found.labels, moved(found.scores)).labelling

        current = again(state.current)
        best = current if state.best is state.current else again(state.best)
        start = replace(state, current=current, best=best)
        second = method.step(problem, annealing, start, copy.deepcopy(draws), steps_left=steps_left)
        return _compared(method.step(problem, annealing, state, draws, steps_left=steps_left), second, moved)

    return replace(method, seed=seed, step=step)


def _moves(noise: float, step: int) -> Moves:
    """Return what moves scores by chance, for a step always the same."""
    rng = np.random.default_rng(step)
    return lambda scores: scores + noise * rng.choice((-1.0, 1.0), size=scores.shape)


class _Step:
    """A step while it asks: what it asks, then what it gave."""

    def __init__(self, asking: Asking[Stepped]) -> None:
        self._asking = asking
        self.asks: Sequence[Ask] = ()
        self.gave: Stepped | None = None
        self.go_on(None)

    def go_on(self, answers: Sequence[Answer] | None) -> None:
        """Send it answers; None begins it."""
        try:
            self.asks = next(self._asking) if answers is None else self._asking.send(answers)
        except StopIteration as end:
            self.gave = end.value

    def so_far(self) -> object:
        """Return what differs where a decision did."""
        if self.gave is None:
            return [_key(ask) for ask in self.asks]
        state, info = self.gave
        return bytes_of(state.current.labels), bytes_of(state.best.labels), info.accepted, info.changed


def _key(ask: Ask) -> object:
    kind = (ask.index, ask.shared_prefix) if isinstance(ask, ScoreOne) else ask.purpose
    return kind, bytes_of(ask.labels)


def _compared(asking: Asking[Stepped], second: Asking[Stepped], moved: Moves) -> Asking[Stepped]:
    first, other = _Step(asking), _Step(second)
    same = first.so_far() == other.so_far()
    while first.gave is None:
        answers: Sequence[Answer | None] = yield first.asks  # None: a single example that cannot be scored
        first.go_on(answers)  # type: ignore[arg-type]
        if same:
            other.go_on([answer if answer is None else moved(answer) for answer in answers])  # type: ignore[misc]
            same = first.so_far() == other.so_far()
    state, info = first.gave
    return state, replace(info, within_noise=not same)
