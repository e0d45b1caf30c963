"""One driver a run, on any file system.

The lock file names its holder and counts the holder's heartbeats. Between processes of one machine flock decides. Between
machines it may not be there, or not be seen (NFS, Lustre without -o flock): there a holder whose heartbeats go on is
alive, and one that has been silent for LEASE_S is gone. Clocks of two machines are never compared.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..core.json_values import from_json, typed
from ..errors import CheckpointError, ConfigError
from .polling import COMMAND_S, Polled, block_until_done, until_done

HEARTBEAT_S = 5.0
LEASE_S = 30.0
SETTLE_S = 2.0  # until what two takers wrote at one time is seen by both
RECORD_BYTES = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """What a lock file holds."""

    token: str
    who: str  # for people: attempt, host, process
    machine: str
    beat: int = 0
    released: bool = False


class Lock:
    """A lock that is held; its heartbeats are a thread's, so that a busy driver does not seem dead."""

    def __init__(self, path: Path, record: Record) -> None:
        self._path, self._record = path, record
        self._stop = threading.Event()
        self._access = threading.Lock()
        self._taken_by: Record | None = None
        self._seen_s = time.monotonic()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self._thread.start()

    def require_held(self) -> None:
        """Raise CheckpointError if another driver has taken this run over while we were silent, as if we were dead."""
        if time.monotonic() - self._seen_s > LEASE_S / 2:
            with contextlib.suppress(OSError):
                self._beat()
        if self._taken_by:
            raise CheckpointError(
                f"{self._path.parent} was taken over by {self._taken_by.who}, since this driver had not been heard of for"
                f" {LEASE_S:g} s: nothing more is saved here"
            )

    def release(self) -> None:
        """End the heartbeats, and say that the run is free."""
        self._stop.set()
        self._thread.join(LEASE_S)
        if (
            self._thread.is_alive()
        ):  # in a write to a file system that does not answer: who takes over waits for the lease
            return
        with contextlib.suppress(OSError):
            self._beat()
            if not self._taken_by:
                _write(self._path, replace(self._record, released=True))

    def _beat_on(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # a file system that is away for a while: the lease decides
                self._beat()

    def _beat(self) -> None:
        with self._access:
            found = read(self._path)
            if found is not None and found.token != self._record.token:
                self._taken_by = found
            if not self._taken_by:
                self._record = replace(self._record, beat=self._record.beat + 1)
                _write(self._path, self._record)
            self._seen_s = time.monotonic()


@asynccontextmanager
async def held(path: Path, who: str) -> AsyncIterator[Lock]:
    """Hold the lock file `path`; raises ConfigError, naming the holder, if another driver holds it.

    A holder on another machine that died without a word is waited for LEASE_S.
    """
    try:
        handle, first = await until_done(lambda: _open(path))
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be written to: {error}") from error
    try:
        flocked = await _flock(handle, path)
        record = Record(secrets.token_hex(8), who, _machine())
        if not first and await until_done(lambda: read(path)) is None:
            await asyncio.sleep(SETTLE_S)  # someone has made the file and not written it yet
        before = await until_done(lambda: read(path))
        settled = first or (flocked and before is not None and before.machine == record.machine)
        if before is not None and not before.released and not settled:
            await _require_silent(path, before)
        await until_done(lambda: _write(path, record))
        if not settled:
            await asyncio.sleep(SETTLE_S)
            found = await until_done(lambda: read(path))
            if found is not None and found.token != record.token:
                raise _refusal(path, found)
        lock = Lock(path, record)
        try:
            yield lock
        finally:
            lock.release()
    finally:
        os.close(handle)


def holder(path: Path, *, listen: bool = False) -> str | None:
    """Return who holds the lock, or None. Where flock does not tell, as of a holder on another machine, he may have died
    since, unless we `listen` for his heartbeat: for two of its periods.
    """
    record = block_until_done(lambda: read(path), COMMAND_S)
    if record is None or record.released:
        return None
    if record.machine == _machine():
        handle = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return record.who
        except OSError:
            pass  # no flock here
        else:
            return None
        finally:
            os.close(handle)
    deadline = time.monotonic() + 2 * HEARTBEAT_S
    look: Polled[Record | None] = Polled(lambda: read(path), record)
    while listen and time.monotonic() < deadline:
        time.sleep(HEARTBEAT_S / 5)
        found = look()
        if found != record:
            return None if found is None or found.released else found.who
    return None if listen else record.who


def read(path: Path) -> Record | None:
    """Return what the lock file holds, or None if it holds nothing that can be read."""
    try:
        found: Record = typed(Record, from_json(path.read_bytes()))
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        error.filename = error.filename or str(path)  # only a failed open names it
        raise
    return found


def _open(path: Path) -> tuple[int, bool]:
    """Return the lock file, open, and whether we have made it; only one can, on NFS too."""
    for flags in (os.O_CREAT | os.O_EXCL, os.O_CREAT):
        try:
            return os.open(path, os.O_RDWR | flags, 0o600), bool(flags & os.O_EXCL)
        except FileExistsError:
            continue
    raise AssertionError("the second open makes what is not there")


async def _flock(handle: int, path: Path) -> bool:
    """Return whether flock was to be had; raises ConfigError if another process has it, and not just in passing."""
    for wait_s in (0.2, 0.3, 0.5, None):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if wait_s is None:
                raise _refusal(path, read(path)) from error
            await asyncio.sleep(wait_s)
        except OSError as error:
            log.warning("%s: this file system has no flock (%s); heartbeats alone keep other drivers out", path, error)
            return False
        else:
            return True
    raise AssertionError("the last try returns or raises")


async def _require_silent(path: Path, before: Record) -> None:
    """Raise ConfigError if the holder gives a sign of life within LEASE_S."""
    log.info("%s: held by %s; waiting %g s for a sign of life", path, before.who, LEASE_S)
    deadline = time.monotonic() + LEASE_S
    look: Polled[Record | None] = Polled(lambda: read(path), before)
    while time.monotonic() < deadline:
        await asyncio.sleep(HEARTBEAT_S / 5)
        found = look()
        if found is not None and found.released:
            return
        if found is not None and found != before:
            raise _refusal(path, found)
    log.warning("%s: %s is silent and taken for dead", path, before.who)


def _refusal(path: Path, record: Record | None) -> ConfigError:
    who = record.who if record else "another driver"
    return ConfigError(f"{path.parent} is in use: {who}; wait for its end, or stop it first")


def _write(path: Path, record: Record) -> None:
    """Write in place: the flock is of this file. Padded to one length, in one write, so that no half is seen."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(handle, json.dumps(asdict(record)).encode().ljust(RECORD_BYTES), 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def _machine() -> str:
    """Return what tells a running kernel from all others: flock is known to work between its processes."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
