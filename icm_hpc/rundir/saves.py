"""The saves of one search while its driver has them open: what is saved is a snapshot, which a thread may write.

The order on the disk is trace, memo, generation: a generation that can be read finds what it needs of the other two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.memo import Memo
from ..core.types import State, StepInfo
from ..errors import CheckpointError
from . import checkpoint
from .checkpoint import Saved
from .memo_file import MemoFile, Place
from .polling import TRANSIENT
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a search was at one moment; of the files that grow, what waits then."""

    state: State | None
    scorings: int
    steps: int
    memo: MemoFile
    changes: int  # of the memo


class Saves:
    """The files of one search. `append` and `snapshot` are of the thread that searches; `save` may be of another."""

    def __init__(self, folder: Path, fingerprint: str, saved: Saved | None) -> None:
        """Open the files after what `saved` needs of them. Raises as `save` does."""
        self._folder, self._fingerprint = folder, fingerprint
        with _in_plain_words(folder):
            self._trace = Trace(folder, saved.trace_bytes if saved else 0)
            self._number = checkpoint.next_number(folder)
        self._memo: MemoFile | None = None
        if saved and saved.memo_place and saved.memo_first_bytes is not None:
            self._memo = MemoFile(folder, saved.memo_place, saved.memo_first_bytes)

    def __enter__(self) -> "Saves":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._trace.close()
        if self._memo:
            self._memo.close()

    def append(self, info: StepInfo) -> None:
        """Add a step to the trace."""
        self._trace.append(info)

    def snapshot(self, state: State | None, memo: Memo, *, n_labels: int, scorings: int = 0) -> Snapshot:
        """Return what is to be saved, and take from the memo what became of it."""
        whole = self._memo is None or self._memo.is_long
        if self._memo is None or whole:
            if self._memo:
                self._memo.close()
            self._memo = MemoFile(self._folder, Place(self._number, 0))
        self._memo.add(memo.take(n_labels, whole=whole))
        return Snapshot(state, scorings, self._trace.waiting, self._memo, self._memo.waiting)

    def save(self, snapshot: Snapshot) -> Path:
        """Save a snapshot, the newest one; return its generation.

        Raises CheckpointError if it cannot be saved, or OSError if it may be a moment later; the generation before is kept,
        unless only its folder was not brought to the disk: then either of the two is found after a power cut.
        """
        with _in_plain_words(self._folder):
            trace_bytes, trace_sha256 = self._trace.sync(snapshot.steps)
            place = snapshot.memo.sync(snapshot.changes)
            saved = Saved(
                snapshot.state, self._fingerprint, trace_bytes, trace_sha256, snapshot.scorings, memo_place=place
            )
            path = checkpoint.save(self._folder, self._number, saved)
        self._number += 1
        return path


@contextmanager
def _in_plain_words(folder: Path) -> Iterator[None]:
    """Raise CheckpointError for an error that does not pass by itself."""
    try:
        yield
    except OSError as error:
        if error.errno in TRANSIENT:
            raise
        raise CheckpointError(
            f"the state cannot be saved in {folder}: {error}; what was saved before is kept"
        ) from error
