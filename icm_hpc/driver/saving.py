"""When a search is saved: now and then, in a thread beside the event loop, one save at a time."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..core.memo import Memo
from ..core.types import State
from ..rundir.lock import Lock
from ..rundir.polling import Outage, in_thread, uninterrupted, until_done
from ..rundir.saves import Saves


@dataclass(frozen=True, slots=True)
class Now:
    """What of a search is worth saving."""

    state: State | None
    scorings: int
    memo: Memo
    n_labels: int


class Saving:
    """The saves of one search; nothing is saved once `held` is no longer ours."""

    def __init__(self, saves: Saves, interval_s: float, held: Lock | None, saved: State | None) -> None:
        self.saves = saves
        self._interval_s, self._held = interval_s, held
        self._saved = saved  # the state that is on the disk
        self._begun_s, self._outage = time.monotonic(), Outage()
        self._under_way: asyncio.Task[State | None] | None = None
        self._failed = False  # the last save: what it was to save waits

    def now_and_then(self, now: Now) -> None:
        """Begin a save if one is due and none is under way; raises what the save before has raised, unless it may pass."""
        if self._under_way and not self._under_way.done():
            return
        self._settle()
        is_due = self._failed or time.monotonic() - self._begun_s >= self._interval_s
        if is_due and self._is_news(now):
            self._begun_s = time.monotonic()
            self._under_way = asyncio.ensure_future(in_thread(self._save_of(now)))

    async def end(self, now: Now) -> None:
        """Save what has changed, due or not, whatever is cancelled meanwhile. Raises as Saves.save does, or FolderError."""
        ending = asyncio.ensure_future(self._end(now))
        try:
            await uninterrupted(ending)
        except asyncio.CancelledError as cancelled:
            if failure := ending.exception():
                raise failure from cancelled
            raise

    async def _end(self, now: Now) -> None:
        if self._under_way:
            await asyncio.wait([self._under_way])
        self._settle()
        if self._is_news(now):
            self._saved = await until_done(self._save_of(now))

    def _is_news(self, now: Now) -> bool:
        return self._failed or now.state is not self._saved or now.memo.has_learnt

    def _save_of(self, now: Now) -> Callable[[], State | None]:
        """Return what saves a snapshot of this moment, and returns its state."""
        snapshot = self.saves.snapshot(now.state, now.memo, n_labels=now.n_labels, scorings=now.scorings)

        def save() -> State | None:
            if self._held:
                self._held.require_held()
            self.saves.save(snapshot)
            return snapshot.state

        return save

    def _settle(self) -> None:
        """Note how the last save ended."""
        if self._under_way is None:
            return
        ended, self._under_way = self._under_way, None
        self._failed = True
        try:
            self._saved = ended.result()
        except OSError as error:
            self._outage.tolerate(error)
        else:
            self._failed = False
            self._outage.end()
