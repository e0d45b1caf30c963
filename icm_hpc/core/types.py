"""The values that the search works on; arrays are read-only."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int8]  # [N]; UNLABELLED, or a label's number
Scores = npt.NDArray[np.float64]  # [N, L]: log P(label word | prompt); NaN where nothing was asked
Indices = npt.NDArray[np.int64]

UNLABELLED = -1
Purpose = Literal["eval", "repair", "predict"]  # what a scoring is for; the published layout orders them differently


@dataclass(frozen=True, slots=True)
class Rule:
    """What two examples may not both be: the label pairs forbidden, and those that mend it, the first winning ties."""

    name: str
    forbidden: frozenset[tuple[int, int]]
    repairs: tuple[tuple[int, int], ...]


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
class Settings:
    """The annealing's parameters (Wen et al. 2025, algorithm 1)."""

    alpha: float = 30.0
    num_seeds: int = 8
    schedule: str = "log"
    initial_temperature: float = 10.0
    final_temperature: float = 0.01
    decay: float = 0.99
    repair_rounds: int = 10
    linked_weight: float = 100.0


@dataclass(frozen=True, slots=True)
class State:
    """A search between two steps."""

    step: int  # steps done; the first, number 0, seeds the pool
    flips: int  # proposals accepted: what the temperature depends on
    labels: Labels
    scores: Scores
    energy: float


@dataclass(frozen=True, slots=True)
class Repair:
    """A conflicting pair that was given the labels `labels`."""

    pair: tuple[int, int]
    labels: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What a step did: one line of the trace. Fields are None where the step ended before them."""

    step: int
    index: int | None  # the example drawn
    old: int | None
    new: int | None  # the label that the model proposed
    changed: tuple[tuple[int, int], ...]  # (example, label) of every label that the proposal with its repairs changes
    repairs: tuple[Repair, ...]
    temperature: float | None
    proposed_energy: float | None
    u: float | None
    accepted: bool
    energy: float  # after the step, as all below
    flips: int
    pool: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class ScorePool:
    """Asks for the scores of every labelled example given all the other labelled ones: Scores."""

    labels: Labels
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class ScoreOne:
    """Asks for the scores of example `index` given all the other labelled ones: f64[L]."""

    index: int
    labels: Labels


Ask = ScorePool | ScoreOne


class Draws(Protocol):
    """The random outcomes of one step."""

    def weighted_index(self, weights: npt.NDArray[np.float64]) -> int:
        """Return an index drawn in proportion to `weights`."""

    def permutation(self, n: int) -> Indices:
        """Return 0..n-1 in random order."""

    def uniform(self) -> float:
        """Return a number of [0, 1)."""


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


def frozen_labels(labels: npt.ArrayLike) -> Labels:
    """Return a read-only copy as i8[N]."""
    copy = np.array(labels, dtype=np.int8)
    copy.flags.writeable = False
    return copy


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
