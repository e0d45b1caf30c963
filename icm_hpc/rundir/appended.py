"""Files that only grow: what is added waits in memory until it is brought to the disk."""

import os
from pathlib import Path
from typing import BinaryIO

from .files import fsync_folder


class Appended:
    """A file of which the first `size` bytes are whole; what follows them is overwritten.

    `add` is of the thread that searches, `sync` of the one that saves; what a failed `sync` leaves waits for the next.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self.size = path, size
        self._file: BinaryIO | None = None
        self._is_listed = False  # on the disk, in its folder
        self._waiting: list[bytes] = []

    def open(self) -> BinaryIO:
        """Open the file, made if missing. Raises OSError."""
        self._file = self._file or self._path.open("a+b", buffering=0)
        return self._file

    def close(self) -> None:
        """Close the file; what waits is dropped."""
        if self._file:
            self._file.close()

    def add(self, piece: bytes) -> None:
        """Add a piece."""
        self._waiting.append(piece)

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return len(self._waiting)

    def sync(self, pieces: int) -> bytes:
        """Bring the first `pieces` of those that wait to the disk; return them as one. Raises OSError."""
        added, file = b"".join(self._waiting[:pieces]), self.open()
        file.truncate(self.size)
        left = memoryview(added)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
        if not self._is_listed:
            fsync_folder(self._path.parent)
            self._is_listed = True
        self.size += len(added)
        del self._waiting[:pieces]
        return added
