"""The logs of a run: private, bounded however long it runs, and read from their ends while others write and shorten them."""

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

from .files import private_append
from .folder import RunDir

LOG_BYTES = 2**22  # of a log that are looked through: several tracebacks of each of many workers
TAIL_BYTES = 2**16  # in which the last lines are looked for
PIECE = 2**20  # bytes, copied at a time
DRIVER_LOG_BYTES = 2**21  # of driver.log; then it begins again, and the full one is kept until the next is full


@dataclass(frozen=True, slots=True)
class Bound:
    """When a log is shortened, and what is kept of it; bytes."""

    size: int  # over which it is shortened
    head: int  # kept: messages of the start are the first
    tail: int  # kept: why it ends is last


ENGINE_RUNS = Bound(2**23, 2**20, LOG_BYTES)  # the end is as long as what is looked through for the cause of an exit
ENGINE_ENDED = Bound(2**20, 2**18, 2**19)


def log_to_files(run_dir: RunDir) -> None:
    """Send what is logged to driver.log, which only the owner can read, and warnings to stderr, too."""
    private_append(run_dir.driver_log).close()
    to_file = RotatingFileHandler(run_dir.driver_log, maxBytes=DRIVER_LOG_BYTES, backupCount=1, encoding="utf-8")
    to_file.rotator = _begin_again
    to_stderr = logging.StreamHandler()
    to_stderr.setLevel(logging.WARNING)  # Slurm keeps it in a file of its own, which nothing bounds
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_stderr], format="%(asctime)s %(message)s", force=True)


def _begin_again(full: str, kept: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a person has removed it
        Path(full).replace(kept)
    private_append(Path(full)).close()


def tail(path: Path, lines: int = 20, *, begin: int = 0) -> str:
    """Return the last lines of a log, none before byte `begin`, or a note that there is none."""
    text = _end_of(path, TAIL_BYTES, begin)
    if text is None:
        return f"({path} is not there)"
    return "\n".join(text.splitlines()[-lines:]) or f"({path} is empty)"


def written_since(path: Path, begin: int) -> str:
    """Return what was written into a log from byte `begin` on: if that is long, its end."""
    return _end_of(path, LOG_BYTES, begin) or ""


def size_of(path: Path) -> int:
    """Return the bytes of a log, 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def begun(log: Path) -> int:
    """Shorten what earlier starts have written into an engine's log; return the byte at which this start begins."""
    shorten(log, ENGINE_ENDED)
    return size_of(log)


def shorten(log: Path, bound: Bound, begin: int = 0) -> None:
    """Leave out the middle of a log over its bound, while its engine appends to it and others read it.

    What is before byte `begin`, and `bound.head` bytes after it, stay in their place, so that `begin` holds. The end is
    copied over the middle before the file is cut: a kill in between loses nothing. What the engine writes in the
    microseconds from the last read to the cut is lost, and more if it writes faster than this copies. A log that cannot be
    shortened now stays as it is.
    """
    with contextlib.suppress(OSError), log.open("r+b", buffering=0) as file:
        size, place = file.seek(0, os.SEEK_END), begin + bound.head
        source = size - bound.tail
        note = f"\n--- {time.strftime('%Y-%m-%d %H:%M:%S')} the log is long: its middle is left out here\n".encode()
        if size <= bound.size or source <= place + len(note):
            return
        place += os.pwrite(file.fileno(), note, place)
        last = source + 2 * bound.tail
        while source < last and (piece := os.pread(file.fileno(), PIECE, source)):
            source += len(piece)
            place += os.pwrite(file.fileno(), piece, place)
        file.truncate(place)


def _end_of(path: Path, count: int, begin: int) -> str | None:
    """Return the last `count` bytes of a file as text, none before byte `begin`; None if it is not there.

    A file that is shorter than `begin` has been replaced or cut: then all of it counts.
    """
    try:
        with path.open("rb") as file:
            while True:
                size = file.seek(0, os.SEEK_END)
                start = max(begin if begin <= size else 0, size - count)
                file.seek(start)
                found = file.read()
                if found or start == size:  # else it was shortened between the two
                    return found.decode(errors="replace")
    except OSError:
        return None
