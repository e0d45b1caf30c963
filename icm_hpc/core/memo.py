"""What was scored before: labellings that come back, such as proposals refused, are answered from here."""

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .types import Ask, ScoreOne, bytes_of

Rows = npt.NDArray[np.float64]  # [prompts or examples, L], nats
KEY_BYTES = 16
KNOWN = -1  # in the place of a length
# Of an entry beside its rows: key, array, its places in the order and in what is new; tracemalloc measures up to 467.
ENTRY_BYTES = 500


@dataclass(frozen=True, slots=True)
class Remembered:
    """What became of a memo since it was last taken, as arrays: entries that were used or learnt, the longest unused first.

    The first of a memo is all of it. `Memo.update` with each, in order, makes the memo again, its order included.
    """

    keys: npt.NDArray[np.uint8]  # [M, KEY_BYTES]
    lengths: npt.NDArray[np.int64]  # [M], rows of each; KNOWN: it was held before, and was only used
    rows: Rows  # [sum(lengths), L]
    kept: int = 0  # entries held before that were not used since and are still held: the newest so many of them


class Memo:
    """Scores by what was asked, the least recently used forgotten first. It is of one task, model and layout.

    `limit_bytes` bounds the memory that all takes: scores, keys and Python's objects. A checkpoint of it is smaller.
    """

    def __init__(self, limit_bytes: int, *, purposes_differ: bool, remembered: Iterable[Remembered] = ()) -> None:
        self._limit, self._purposes_differ = limit_bytes, purposes_differ
        self._held: OrderedDict[bytes, Rows] = OrderedDict()
        self._bytes = 0
        # Those used since it was last taken, the newest of the order, and whether they were learnt since then.
        self._used: dict[bytes, bool] = {}
        for one in remembered:
            self.update(one)

    def key(self, ask: Ask) -> bytes:
        """Return what tells an ask from others with other answers."""
        if isinstance(ask, ScoreOne):
            kind = f"{'next' if ask.shared_prefix else 'one'} {ask.index} "
        else:
            kind = f"pool {ask.purpose} " if self._purposes_differ else "pool "
        return hashlib.blake2b(kind.encode() + bytes_of(ask.labels), digest_size=KEY_BYTES).digest()

    def get(self, key: bytes) -> Rows | None:
        """Return the scores of each example that was asked, ascending, if they are known."""
        rows = self._held.get(key)
        if rows is not None:
            self._held.move_to_end(key)
            self._used.setdefault(key, False)
        return rows

    def __setitem__(self, key: bytes, rows: Rows) -> None:
        """Remember the scores of each example that was asked, ascending; they are not to change any more."""
        if key in self._held:
            self._forget(key)
        self._held[key] = rows
        self._bytes += rows.nbytes + ENTRY_BYTES
        self._used[key] = True
        while self._bytes > self._limit and self._held:
            self._forget(next(iter(self._held)))

    def _forget(self, key: bytes) -> None:
        self._bytes -= self._held.pop(key).nbytes + ENTRY_BYTES
        self._used.pop(key, None)

    @property
    def has_learnt(self) -> bool:
        """Whether it holds an answer that it did not hold when it was last taken."""
        return any(self._used.values())

    def take(self, n_labels: int, *, whole: bool = False) -> Remembered:
        """Return what became of it since it was last taken; `whole`: since it was made."""
        if whole:
            self._used = dict.fromkeys(self._held, True)
        used = list(itertools.islice(reversed(self._held), len(self._used)))[::-1]
        new = [self._held[key] for key in used if self._used[key]]
        found = Remembered(
            keys=np.frombuffer(b"".join(used), dtype=np.uint8).reshape(-1, KEY_BYTES),
            lengths=np.array([len(self._held[key]) if self._used[key] else KNOWN for key in used], dtype=np.int64),
            rows=np.concatenate([np.empty((0, n_labels)), *new]),
            kept=len(self._held) - len(used),
        )
        self._used = {}
        return found

    def update(self, change: Remembered) -> None:
        """Do what was taken from another memo; what this one cannot hold is forgotten."""
        begin = 0
        for held, length in zip(change.keys, change.lengths, strict=True):
            if length == KNOWN:
                self.get(held.tobytes())
            else:
                self[held.tobytes()] = change.rows[begin : begin + length].copy()
                begin += length
        while len(self._held) > change.kept + len(change.keys):  # the oldest, none of which was used
            self._forget(next(iter(self._held)))
        self._used = {}
