"""What was labelled beyond the pool, piece by piece: each saved whole, so that no later start sends a prompt for it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.types import Labelling, LabelNumber, Labels, Scores, bytes_of
from . import sealed

FORMAT = 1  # what another version has saved is asked again


@dataclass(frozen=True, slots=True)
class Piece:
    """Examples beyond the pool, labelled."""

    labels: Labels  # [M]
    scores: Scores  # f64[M, L]: given the pool


def mark_of(fingerprint: str, pool: Labelling) -> str:
    """Return, as JSON, what a piece must agree with: settings and data, and the pool that was shown."""
    digest = hashlib.sha256(bytes_of(pool.labels) + pool.scores.tobytes()).hexdigest()
    return json.dumps([FORMAT, json.loads(fingerprint), digest], sort_keys=True)


def save(path: Path, piece: Piece, mark: str) -> None:
    """Save a piece, whole or not at all. Raises CheckpointError, or OSError if it may be written a moment later."""

    def fill(file: Any) -> None:
        file.create_dataset("mark", data=mark)
        file.create_dataset("labels", data=piece.labels)
        file.create_dataset("scores", data=piece.scores)

    sealed.save(path, fill)


def load(path: Path, mark: str) -> Piece | None:
    """Return a piece if there is one of that mark; one that is not whole is set aside. To be called by the driver."""

    def read(file: Any) -> Piece | None:
        if file["mark"].asstr()[()] != mark:
            return None
        return Piece(file["labels"][()].astype(LabelNumber), file["scores"][()].astype(np.float64))

    return sealed.load(path, read, otherwise="its examples are asked again")
