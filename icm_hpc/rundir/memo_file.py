"""What a search remembers, beside its generations: memo-<number>.bin, to which each save adds what became of the memo.

The number is that of the first generation that the file belongs to. A generation says which file it needs, and how many bytes
of it. Each piece has a checksum: from one that is damaged on, nothing is read, and what was scored then is asked again.
"""

import hashlib
import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.memo import Remembered
from ..errors import CheckpointError
from .appended import Appended
from .polling import TRANSIENT

SLACK_BYTES = 2**20  # by which a file may exceed twice its first piece before it is begun again
DIGEST_BYTES = 16
HEAD = struct.Struct(f">8sQQ{DIGEST_BYTES}s")  # magic, entries kept, bytes of the arrays, their BLAKE2b
MAGIC = b"icm memo"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Which file, and how many bytes of it, a generation needs."""

    number: int
    size: int


class MemoFile:
    """A memo's file while it is added to; the first piece is the whole memo."""

    def __init__(self, folder: Path, place: Place, first_bytes: int = 0) -> None:
        self._file = Appended(path_of(folder, place.number), place.size)
        self._number, self._first_bytes = place.number, first_bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, change: Remembered) -> None:
        """Add what became of the memo."""
        piece = _encoded(change)
        self._first_bytes = self._first_bytes or len(piece)
        self._file.add(piece)

    @property
    def is_long(self) -> bool:
        """Whether most of it is of entries that are no longer held."""
        return self._file.size > 2 * self._first_bytes + SLACK_BYTES

    @property
    def waiting(self) -> int:
        """Pieces that are not on the disk yet."""
        return self._file.waiting

    def sync(self, pieces: int) -> Place:
        """Bring the first `pieces` of those that wait to the disk. Raises OSError."""
        self._file.sync(pieces)
        return Place(self._number, self._file.size)


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """Return the refusal to go on without a saved file that is there and cannot be read: it may be whole."""
    return CheckpointError(f"{path} cannot be read: {error.strerror}; repair that, or move it away if it is lost")


def path_of(folder: Path, number: int) -> Path:
    """Return where a memo's file is."""
    return folder / f"memo-{number:08d}.bin"


def read(folder: Path, place: Place, *, patient: bool) -> tuple[list[Remembered], int | None]:
    """Return the pieces of a file up to its place, and the bytes of the first; None for these if it is to be begun again.

    `patient` raises OSError for a file that may be read a moment later. Without a memo a search goes on, and asks again.
    Raises CheckpointError for one that cannot be read for another reason, such as its permissions.
    """
    path = path_of(folder, place.number)
    try:
        with path.open("rb") as file:
            content = file.read(min(place.size, path.stat().st_size))
    except OSError as error:
        if error.errno not in TRANSIENT and not isinstance(error, FileNotFoundError):
            raise unreadable(path, error) from error
        if patient and error.errno in TRANSIENT:
            raise
        log.warning("%s cannot be read (%s); what was scored before is asked again", path, error.strerror)
        return [], None
    pieces: list[Remembered] = []
    begin, first_bytes = 0, 0
    try:
        while begin < place.size:
            piece, end = _decoded(content, begin)
            first_bytes = first_bytes or end
            pieces.append(piece)
            begin = end
    except ValueError as error:
        log.warning("%s, from byte %d on: %s; what was scored then is asked again", path, begin, error)
        return pieces, None
    return pieces, first_bytes


def remove_later(folder: Path, place: Place) -> None:
    """Remove the files that were begun after this one: no generation of theirs was saved, or none that is whole."""
    for number in _numbers(folder):
        if number > place.number:
            path_of(folder, number).unlink(missing_ok=True)


def remove_unneeded(folder: Path, oldest: int) -> None:
    """Remove the files that no generation needs any more; the oldest that is kept is `oldest`."""
    numbers = _numbers(folder)
    first_needed = max((number for number in numbers if number <= oldest), default=0)
    for number in numbers:
        if number < first_needed:
            path_of(folder, number).unlink(missing_ok=True)


def _numbers(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("memo-")) for path in folder.glob("memo-*.bin")]


def _encoded(change: Remembered) -> bytes:
    buffer = io.BytesIO()
    for array in (change.keys, change.lengths, change.rows):
        np.save(buffer, array, allow_pickle=False)
    arrays = buffer.getvalue()
    return HEAD.pack(MAGIC, change.kept, len(arrays), _digest(change.kept, arrays)) + arrays


def _decoded(content: bytes, begin: int) -> tuple[Remembered, int]:
    """Return the piece that begins there, and where it ends; raises ValueError if it is damaged."""
    if len(content) < begin + HEAD.size:
        raise ValueError("it is cut off")
    magic, kept, size, digest = HEAD.unpack_from(content, begin)
    end = begin + HEAD.size + size
    arrays = content[begin + HEAD.size : end]
    if magic != MAGIC or digest != _digest(kept, arrays):
        raise ValueError("the checksum is wrong: truncated or altered")
    buffer = io.BytesIO(arrays)
    keys, lengths, rows = (np.load(buffer, allow_pickle=False) for _ in range(3))
    return Remembered(keys, lengths, rows, kept), end


def _digest(kept: int, arrays: bytes) -> bytes:
    return hashlib.blake2b(arrays, digest_size=DIGEST_BYTES, salt=kept.to_bytes(8, "big")).digest()
