"""How a shard ended: saved whole once its last pass is done, so that no later start sends a prompt for it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import agreement
from ..core.alarms import Permuted
from ..core.types import Budget, LabelNumber, Labels, Scores, StepInfo
from . import sealed

NAME = "outcome.h5"  # in the folder of the shard's first search
FORMAT = 3  # what another version has saved is worked out again, from the searches' saved states


@dataclass(frozen=True, slots=True)
class End:
    """How one search of a shard ended."""

    info: StepInfo  # figures of its last state
    scorings: int  # of the whole pool, those that were remembered included
    settled: bool  # nothing was left to do; else its budget was spent
    labels: Labels  # of its result; what it left is UNLABELLED


@dataclass(frozen=True, slots=True)
class Outcome:
    """A shard at its end."""

    searched: Labels  # of the best search, as it ended
    labels: Labels  # with the last pass: no example is unlabelled
    scores: Scores  # of each example given the labels of all others
    energy: float  # of `labels`
    searched_energy: float  # of `searched`
    restart: int  # of the best search
    ends: tuple[End, ...]  # by restart
    # Of one label for all examples, by label: energy, NaN if it breaks more than the result or has no score, and conflicts.
    uniform: tuple[tuple[float, int], ...]
    zero_shot_counts: tuple[int, ...] = ()  # of labels that examples get alone; empty if no search has asked
    permuted: Permuted | None = None  # None if its labels cannot be exchanged, or that has no score


@dataclass(frozen=True, slots=True)
class Asked:
    """What an outcome is of: another configuration, another budget or more restarts end otherwise."""

    fingerprint: str
    budget: Budget
    restarts: int

    def mark(self) -> str:
        """Return it as JSON."""
        budget = [self.budget.steps, self.budget.scorings]
        return json.dumps([FORMAT, json.loads(self.fingerprint), budget, self.restarts], sort_keys=True)


def save(folder: Path, outcome: Outcome, asked: Asked) -> None:
    """Save an outcome, whole or not at all. Raises CheckpointError, or OSError if it may be written a moment later."""
    figures = [[e.info.step, e.info.flips, e.info.conflicts, e.scorings, e.settled] for e in outcome.ends]

    def fill(file: Any) -> None:
        file.create_dataset("asked", data=asked.mark())
        file.attrs.update({name: getattr(outcome, name) for name in ("energy", "searched_energy", "restart")})
        for name in ("searched", "labels", "scores"):
            file.create_dataset(name, data=getattr(outcome, name))
        file.create_dataset("ends/figures", data=np.array(figures, dtype=np.int64))
        file.create_dataset("ends/counts", data=np.array([end.info.counts for end in outcome.ends], dtype=np.int64))
        file.create_dataset("ends/energies", data=np.array([end.info.energy for end in outcome.ends]))
        file.create_dataset("ends/labels", data=np.array([end.labels for end in outcome.ends]))
        file.create_dataset("uniform/energies", data=np.array([energy for energy, _ in outcome.uniform]))
        file.create_dataset("uniform/conflicts", data=np.array([broken for _, broken in outcome.uniform]))

        file.attrs["zero_shot_counts"] = outcome.zero_shot_counts
        if outcome.permuted:
            file.attrs["permuted"] = [outcome.permuted.energy, outcome.permuted.p]

    sealed.save(folder / NAME, fill)


def load(folder: Path, asked: Asked) -> Outcome | None:
    """Return the outcome if there is one of what is asked; one that is not whole is set aside. To be called by the driver."""

    def read(file: Any) -> Outcome | None:
        return _decoded(file) if file["asked"].asstr()[()] == asked.mark() else None

    return sealed.load(folder / NAME, read, otherwise="the shard's last pass is done again")


def _decoded(file: Any) -> Outcome:
    names = ("figures", "counts", "energies", "labels")
    columns = zip(*(file[f"ends/{name}"][()] for name in names), strict=True)
    ends = []
    for (step, flips, conflicts, scorings, settled), counts, energy, labels in columns:
        pool = int(counts.sum())
        info = StepInfo(int(step), float(energy), int(flips), pool, tuple(counts.tolist()), int(conflicts))
        ends.append(End(info, int(scorings), bool(settled), labels.astype(LabelNumber)))
    uniform = zip(file["uniform/energies"][()].tolist(), file["uniform/conflicts"][()].tolist(), strict=True)
    permuted = file.attrs.get("permuted")
    searched, labels = (file[name][()].astype(LabelNumber) for name in ("searched", "labels"))
    scores = file["scores"][()].astype(np.float64)
    for array in (searched, labels, scores, *(end.labels for end in ends)):
        array.flags.writeable = False
    return Outcome(
        searched,
        labels,
        scores,
        energy=float(file.attrs["energy"]),
        searched_energy=float(file.attrs["searched_energy"]),
        restart=int(file.attrs["restart"]),
        ends=tuple(ends),
        uniform=tuple(uniform),
        zero_shot_counts=tuple(map(int, file.attrs["zero_shot_counts"])),
        permuted=None if permuted is None else Permuted(*permuted.tolist()),
    )


def stability_of(outcome: Outcome) -> agreement.Shares | None:
    """Return, for each example, the share of the other searches that agree with its label; None of one search."""
    others = [end.labels for number, end in enumerate(outcome.ends) if number != outcome.restart]
    return agreement.with_result(outcome.labels, others, outcome.scores.shape[1]) if others else None
