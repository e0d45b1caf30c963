"""The values that the search works on; arrays are read-only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

LabelNumber = np.int16
Labels = npt.NDArray[LabelNumber]  # [N]; UNLABELLED, or a label's number
Scores = npt.NDArray[np.float64]  # [N, L]: log P(label word | prompt); NaN where nothing was asked
Indices = npt.NDArray[np.int64]

LabelPair: TypeAlias = tuple[int, int]

UNLABELLED = -1
Purpose = Literal["eval", "repair", "predict"]  # what a scoring is for; the reference layout orders them differently


@dataclass(frozen=True, slots=True)
class Rule:
    """Which pairs of labels two examples may not have, and for each the pairs that repair it, the first winning ties."""

    name: str
    repairs: Mapping[LabelPair, Sequence[LabelPair]]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A rule that holds between the examples `first` < `second`."""

    first: int
    second: int
    rule: Rule


@dataclass(frozen=True, slots=True)
class Problem:
    """What the search knows of a task: no text and no gold label."""

    groups: Indices  # [N]
    n_labels: int
    conflicts: tuple[Conflict, ...] = ()

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.groups)


@dataclass(frozen=True, slots=True)
class Annealing:
    """The annealing's parameters (Wen et al. 2025, algorithm 1); SearchConfig says what each means."""

    alpha: float = 30.0
    objective: str = "margin"
    num_seeds: int = 8
    schedule: str = "log"
    initial_temperature: float = 10.0
    final_temperature: float = 0.01
    decay: float = 0.99
    seed_repair_rounds: int = 10
    repair_rounds: int = 10
    stalled_repair: str = "stop"
    linked_weight: float = 100.0
    first_labels: str = "zero_shot"
    label_prior: tuple[float, ...] = ()  # by label; empty: all equal
    calibration: float = 1.0
    kicks: int = 1  # in a row without a better labelling, before a search by blocks ends
    predict_from_pool: bool = (
        True  # a labelled example's label from the pool's scores: where the layout makes no difference
    )


@dataclass(frozen=True, slots=True)
class Budget:
    """What one search may spend; None: no limit."""

    steps: int | None = None
    scorings: int | None = None  # of the whole pool, those that are remembered included

    def left(self, steps: int, scorings: int) -> int | None:
        """Return how many steps may follow, each with a scoring; None: any number."""
        pairs = ((self.steps, steps), (self.scorings, scorings))
        return min((limit - done for limit, done in pairs if limit is not None), default=None)

    def is_spent(self, steps: int, scorings: int) -> bool:
        """Return whether a search that has done so much must end."""
        return (self.steps is not None and steps >= self.steps) or (
            self.scorings is not None and scorings >= self.scorings
        )


@dataclass(frozen=True, slots=True)
class Labelling:
    """Labels with the scores that they were given together, and their energy."""

    labels: Labels
    scores: Scores
    energy: float


@dataclass(frozen=True, slots=True)
class State:
    """A search between two steps."""

    step: int  # steps done; the first, number 0, seeds the pool
    flips: int  # proposals accepted: what the temperature depends on
    current: Labelling
    best: Labelling  # of those that were current since the pool last grew, the first of highest energy
    # How many examples get each label without demonstrations; empty if the search has not asked.
    zero_shot_counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A labelling, with what its energy is made of."""

    labelling: Labelling
    predictability: float  # mean over the pool, before alpha; nats
    broken: tuple[Conflict, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """The ways to repair one broken conflict, each evaluated."""

    conflict: Conflict
    evaluations: tuple[Evaluation, ...]  # one for each repair of what is broken
    chosen: int  # of highest energy, the first of equals
    taken: bool

    @property
    def best(self) -> Evaluation:
        """The evaluation chosen."""
        return self.evaluations[self.chosen]

    def pair_labels(self, evaluation: Evaluation) -> LabelPair:
        """Return what an evaluation gives to the two examples in conflict."""
        labels = evaluation.labelling.labels
        return int(labels[self.conflict.first]), int(labels[self.conflict.second])


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over the conflicts that `labels` broke, up to the first trial that was taken."""

    labels: Labels
    broken: tuple[Conflict, ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What a step did. Fields are None, or empty, where the step ended before them."""

    step: int
    energy: float  # after the step, as the four below
    flips: int
    pool: int
    counts: tuple[int, ...]  # examples of each label
    conflicts: int
    index: int | None = None  # the example drawn
    old: int | None = None
    new: int | None = None  # the label that the model proposed
    rounds: tuple[Round, ...] = ()  # of repair
    proposal: Evaluation | None = None  # what was accepted or refused; at step 0 the seeds before any repair
    changed: tuple[tuple[int, int], ...] = ()  # (example, label) of every label that accepting it changes
    temperature: float | None = None
    u: float | None = None
    accepted: bool = False
    abandoned: bool = False  # what it needed to know could not be scored
    within_noise: bool | None = None  # whether the engine's noise may have decided it; None if that is not watched

    @property
    def scorings(self) -> int:
        """Scorings of the whole pool that the step asked for."""
        repairs = sum(len(trial.evaluations) for done in self.rounds for trial in done.trials)
        return repairs + (self.proposal is not None)


@dataclass(frozen=True, slots=True)
class ScorePool:
    """Asks for the scores of every labelled example given all the other labelled ones: Scores."""

    labels: Labels
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class ScoreOne:
    """Asks for the scores of example `index` given all the other labelled ones: f64[L].

    With `shared_prefix` the example is not labelled, and the others stand in one order for all such asks: each then costs
    little more than its own tokens.
    """

    index: int
    labels: Labels
    shared_prefix: bool = False


Ask = ScorePool | ScoreOne


class Draws(Protocol):
    """The random outcomes of one step."""

    def weighted_index(self, weights: npt.NDArray[np.float64]) -> int:
        """Return an index drawn in proportion to `weights`."""

    def permutation(self, n: int) -> Indices:
        """Return 0..n-1 in random order."""

    def uniform(self) -> float:
        """Return a number of [0, 1)."""

    def uniforms(self, n: int) -> npt.NDArray[np.float64]:
        """Return n numbers of [0, 1)."""


@dataclass(frozen=True, slots=True)
class RandomDraws:
    """Draws that are a pure function of (seed, shard, step)."""

    rng: np.random.Generator

    @classmethod
    def of(cls, seed: int, shard: int, step: int) -> "RandomDraws":
        """Return the draws of step number `step`."""
        return cls(np.random.default_rng([seed, shard, step]))

    def weighted_index(self, weights: npt.NDArray[np.float64]) -> int:
        """Return an index drawn in proportion to `weights`."""
        return int(self.rng.choice(len(weights), p=weights / weights.sum()))

    def permutation(self, n: int) -> Indices:
        """Return 0..n-1 in random order."""
        return self.rng.permutation(n).astype(np.int64)

    def uniform(self) -> float:
        """Return a number of [0, 1)."""
        return float(self.rng.random())

    def uniforms(self, n: int) -> npt.NDArray[np.float64]:
        """Return n numbers of [0, 1)."""
        return self.rng.random(n)


def frozen_labels(labels: npt.ArrayLike) -> Labels:
    """Return a read-only copy as i16[N]."""
    copy = np.array(labels, dtype=LabelNumber)
    copy.flags.writeable = False
    return copy


def bytes_of(labels: Labels) -> bytes:
    """Return what is the same for the same labels, in each version and of each type: a byte each where one suffices."""
    return labels.astype(np.int8 if labels.max(initial=0) < 128 else LabelNumber).tobytes()


def with_labels(labels: Labels, changes: dict[int, int]) -> Labels:
    """Return a read-only copy of `labels` in which example i has the label changes[i]."""
    copy = labels.copy()
    for index, label in changes.items():
        copy[index] = label
    copy.flags.writeable = False
    return copy


def pool_of(labels: Labels) -> Indices:
    """Return the labelled examples, ascending."""
    return np.flatnonzero(labels != UNLABELLED)
