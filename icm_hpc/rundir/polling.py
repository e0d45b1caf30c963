"""Reads and writes that are repeated while a network file system is away for a moment."""

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import FolderError

TOLERATED_S = 60.0  # how long a file system may be away
COMMAND_S = 5.0  # the same, for a command that a person waits for
RETRY_S = 0.5
# What NFS, Lustre and BeeGFS say of a server that restarts, of a file that another node replaces just now, of a client that
# was cut off. Anything else, such as EACCES or ENOSPC, does not pass by itself.
TRANSIENT = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EREMOTEIO),
        *(errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ESHUTDOWN),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
    }
)

R = TypeVar("R")

log = logging.getLogger(__name__)


class Outage:
    """How long a file system has been away."""

    def __init__(self, tolerated_s: float | None = None) -> None:
        self._tolerated_s = TOLERATED_S if tolerated_s is None else tolerated_s
        self._began: float | None = None
        self._logged = False

    def tolerate(self, error: OSError) -> None:
        """Return if the error may pass and has not lasted too long; logs the first. Raises it, or FolderError, otherwise."""
        if error.errno not in TRANSIENT:
            raise error
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if now - self._began >= self._tolerated_s:
            raise FolderError(
                f"{error.filename or 'the run folder'} could not be used for {self._tolerated_s:g} s: {error.strerror};"
                " is its file system mounted on this node? The state is saved up to the last save: resume the run"
            ) from error
        if not self._logged:
            log.warning("%s: %s; trying again for %g s", error.filename, error.strerror, self._tolerated_s)
            self._logged = True

    def end(self) -> None:
        """Note that the file system answers."""
        self._began = None


class Polled(Generic[R]):
    """Something that is read again and again; while it cannot be read, what was read last holds."""

    def __init__(self, read: Callable[[], R], last: R) -> None:
        self._read, self._last = read, last
        self._outage = Outage()

    def __call__(self) -> R:
        """Read; never waits. Raises FolderError once the file system has been away for TOLERATED_S."""
        try:
            self._last = self._read()
        except OSError as error:
            self._outage.tolerate(error)
        else:
            self._outage.end()
        return self._last


async def in_thread(do: Callable[[], R]) -> R:
    """Return what `do` returns, done beside the event loop: a slow disk does not stop what goes on there.

    A cancellation takes effect once `do` has ended: nothing is written behind our back.
    """
    return await uninterrupted(asyncio.ensure_future(asyncio.to_thread(do)))


async def uninterrupted(task: "asyncio.Task[R]") -> R:
    """Return what a task returns; cancellations, however many, take effect once it has ended."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        task.exception()  # is no longer anybody's
        raise cancelled
    return task.result()


async def until_done(do: Callable[[], R]) -> R:
    """Return what `do` returns, trying again while a file system is away; other tasks go on meanwhile."""
    outage = Outage()
    while True:
        try:
            return await in_thread(do)
        except OSError as error:
            outage.tolerate(error)
        await asyncio.sleep(RETRY_S)


def block_until_done(do: Callable[[], R], tolerated_s: float | None = None) -> R:
    """Do the same in a program without an event loop: a command, or the server component."""
    outage = Outage(tolerated_s)
    while True:
        try:
            return do()
        except OSError as error:
            outage.tolerate(error)
        time.sleep(RETRY_S)
