"""How a shard ended: saved whole once its last pass is done, so that no later start sends a prompt for it."""

import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..core.types import Labels, Scores, StepInfo
from ..errors import CheckpointError
from . import checkpoint
from .files import write_atomically
from .polling import TRANSIENT

NAME = "outcome.h5"  # in the folder of the shard's first search

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A shard at its end."""

    searched: Labels  # of the best search, as it ended
    labels: Labels  # with the last pass: no example is unlabelled
    scores: Scores
    energy: float  # of `searched`
    restart: int  # of the best search
    ends: tuple[StepInfo, ...]  # by restart, the figures of its last state
    uniform: tuple[tuple[float, int], ...]  # energy and conflicts of one label for the whole pool, by label


@dataclass(frozen=True, slots=True)
class Asked:
    """What an outcome is of: another configuration, more steps or more restarts end otherwise."""

    fingerprint: str
    steps: int
    restarts: int

    def mark(self) -> str:
        """Return it as JSON."""
        return json.dumps([json.loads(self.fingerprint), self.steps, self.restarts], sort_keys=True)


def save(folder: Path, outcome: Outcome, asked: Asked) -> None:
    """Save an outcome, whole or not at all. Raises CheckpointError, or OSError if it may be written a moment later."""
    ends = [[end.step, end.flips, end.conflicts, *end.counts] for end in outcome.ends]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=checkpoint.USER_BLOCK) as file:
        file.create_dataset("asked", data=asked.mark())
        file.attrs.update({"energy": outcome.energy, "restart": outcome.restart})
        for name in ("searched", "labels", "scores"):
            file.create_dataset(name, data=getattr(outcome, name))
        file.create_dataset("ends/figures", data=np.array(ends, dtype=np.int64))
        file.create_dataset("ends/energies", data=np.array([end.energy for end in outcome.ends]))
        file.create_dataset("uniform/energies", data=np.array([energy for energy, _ in outcome.uniform]))
        file.create_dataset("uniform/conflicts", data=np.array([broken for _, broken in outcome.uniform]))
    try:
        write_atomically(folder / NAME, checkpoint.sealed(buffer.getvalue()))
    except OSError as error:
        if error.errno in TRANSIENT:
            raise
        raise CheckpointError(f"the labels of {folder} cannot be saved: {error}") from error


def load(folder: Path, asked: Asked) -> Outcome | None:
    """Return the outcome if there is one of what is asked; one that is not whole is set aside. To be called by the driver."""
    path = folder / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with h5py.File(io.BytesIO(checkpoint.unsealed(content)), "r") as file:
            return _decoded(file) if file["asked"].asstr()[()] == asked.mark() else None
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be used (%s): the shard's last pass is done again", path, error)
        path.rename(path.with_suffix(checkpoint.DAMAGED))
        return None


def _decoded(file: Any) -> Outcome:
    figures, energies = file["ends/figures"][()].tolist(), file["ends/energies"][()].tolist()
    ends = []
    for (step, flips, conflicts, *counts), energy in zip(figures, energies, strict=True):
        ends.append(StepInfo(step, energy, flips, sum(counts), tuple(counts), conflicts))
    uniform = zip(file["uniform/energies"][()].tolist(), file["uniform/conflicts"][()].tolist(), strict=True)
    searched, labels = (file[name][()].astype(np.int8) for name in ("searched", "labels"))
    scores = file["scores"][()].astype(np.float64)
    for array in (searched, labels, scores):
        array.flags.writeable = False
    return Outcome(
        *(searched, labels, scores, float(file.attrs["energy"]), int(file.attrs["restart"])),
        ends=tuple(ends),
        uniform=tuple(uniform),
    )
