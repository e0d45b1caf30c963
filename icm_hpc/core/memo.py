"""What was scored before: labellings that come back, such as proposals refused, are answered from here."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .types import Ask, ScoreOne

Rows = npt.NDArray[np.float64]  # [prompts or examples, L], nats
KEY_BYTES = 16
ENTRY_BYTES = 400  # of an entry beside its rows: key, array, place in the order; tracemalloc measures up to 354


@dataclass(frozen=True, slots=True)
class Remembered:
    """A memo as arrays, the longest unused first."""

    keys: npt.NDArray[np.uint8]  # [M, KEY_BYTES]
    lengths: npt.NDArray[np.int64]  # [M], rows of each
    rows: Rows  # [sum(lengths), L]


class Memo:
    """Scores by what was asked, the least recently used forgotten first. It is of one task, model and layout.

    `limit_bytes` bounds the memory that all takes: scores, keys and Python's objects. A checkpoint of it is smaller.
    """

    def __init__(self, limit_bytes: int, *, purposes_differ: bool, remembered: Remembered | None = None) -> None:
        self._limit, self._purposes_differ = limit_bytes, purposes_differ
        self._held: OrderedDict[bytes, Rows] = OrderedDict()
        self._bytes = 0
        self.changes = 0  # since it was made
        if remembered is not None:
            ends = np.cumsum(remembered.lengths)
            for key, end, length in zip(remembered.keys, ends, remembered.lengths, strict=True):
                self[key.tobytes()] = remembered.rows[end - length : end].copy()
            self.changes = 0

    def key(self, ask: Ask) -> bytes:
        """Return what tells an ask from others with other answers."""
        if isinstance(ask, ScoreOne):
            kind = f"{'next' if ask.shared_prefix else 'one'} {ask.index} "
        else:
            kind = f"pool {ask.purpose} " if self._purposes_differ else "pool "
        return hashlib.blake2b(kind.encode() + ask.labels.tobytes(), digest_size=KEY_BYTES).digest()

    def get(self, key: bytes) -> Rows | None:
        """Return the scores of each example that was asked, ascending, if they are known."""
        rows = self._held.get(key)
        if rows is not None:
            self._held.move_to_end(key)
        return rows

    def __setitem__(self, key: bytes, rows: Rows) -> None:
        """Remember the scores of each example that was asked, ascending."""
        if key in self._held:
            self._forget(key)
        self._held[key] = rows
        self._bytes += rows.nbytes + ENTRY_BYTES
        while self._bytes > self._limit and self._held:
            self._forget(next(iter(self._held)))
        self.changes += key in self._held

    def _forget(self, key: bytes) -> None:
        self._bytes -= self._held.pop(key).nbytes + ENTRY_BYTES

    def remembered(self, n_labels: int) -> Remembered:
        """Return all as arrays."""
        keys = np.frombuffer(b"".join(self._held), dtype=np.uint8).reshape(-1, KEY_BYTES)
        lengths = np.array([len(rows) for rows in self._held.values()], dtype=np.int64)
        return Remembered(keys, lengths, np.concatenate([np.empty((0, n_labels)), *self._held.values()]))
