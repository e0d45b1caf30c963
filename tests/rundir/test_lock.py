"""One driver a run, with flock, without it, and between machines."""

import asyncio
import fcntl
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.errors import CheckpointError, ConfigError
from icm_hpc.rundir import lock


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hearts beat fast."""
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lock, "LEASE_S", 1.0)
    monkeypatch.setattr(lock, "SETTLE_S", 0.2)


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a file system that has no flock."""

    def refuse(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what lets the next calls come from a machine whose flock is not seen here."""

    def on(machine: str) -> None:
        monkeypatch.setattr(lock, "_machine", lambda: machine)
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)

    return on


def hold_until_killed(path: Path) -> None:
    """Hold the lock; run in a process of its own."""

    async def hold() -> None:
        async with lock.held(path, "one that will be killed"):
            await asyncio.sleep(600)

    asyncio.run(hold())


async def test_a_second_holder_is_refused_and_learns_the_first_until_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "driver.lock"
    async with lock.held(path, "attempt 7.0 on node3"):
        assert lock.holder(path) == "attempt 7.0 on node3"
        with pytest.raises(ConfigError, match=r"is in use: attempt 7\.0 on node3"):
            async with lock.held(path, "another"):
                pass
    assert lock.holder(path) is None
    async with lock.held(path, "another"):
        assert lock.holder(path) == "another"


async def test_a_holder_of_this_machine_that_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "driver.lock"
    process = multiprocessing.get_context("fork").Process(target=hold_until_killed, args=(path,))
    process.start()
    while lock.holder(path) is None:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    with pytest.raises(ConfigError, match="one that will be killed"):
        async with lock.held(path, "too early"):
            pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert lock.holder(path) is None
    began = time.monotonic()
    async with lock.held(path, "the next"):
        assert time.monotonic() - began < lock.LEASE_S


async def test_without_flock_heartbeats_keep_others_out(tmp_path: Path, without_flock: None) -> None:
    path = tmp_path / "driver.lock"
    async with lock.held(path, "first"):
        with pytest.raises(ConfigError, match="is in use: first"):
            async with lock.held(path, "second"):
                pass
    async with lock.held(path, "second"):
        pass


async def test_of_two_that_come_at_one_time_without_flock_one_is_refused(tmp_path: Path, without_flock: None) -> None:
    async def take(who: str) -> str:
        async with lock.held(tmp_path / "driver.lock", who):
            await asyncio.sleep(2)
        return who

    ends = await asyncio.gather(take("a"), take("b"), return_exceptions=True)
    assert [type(end) for end in ends if not isinstance(end, str)] == [ConfigError]


async def test_a_live_holder_on_another_machine_is_seen_by_its_heartbeat(tmp_path: Path, elsewhere: Any) -> None:
    path = tmp_path / "driver.lock"
    elsewhere("a")
    async with lock.held(path, "attempt 7.0 on node3"):
        elsewhere("b")
        with pytest.raises(ConfigError, match=r"is in use: attempt 7\.0 on node3"):
            async with lock.held(path, "another"):
                pass
        assert await asyncio.to_thread(lock.holder, path, listen=True) == "attempt 7.0 on node3"


async def test_a_holder_on_another_machine_that_died_is_not_heard(tmp_path: Path, elsewhere: Any) -> None:
    path = tmp_path / "driver.lock"
    elsewhere("a")
    async with lock.held(path, "dying") as dying:
        dying._stop.set()
        dying._thread.join()
        elsewhere("b")
        assert lock.holder(path) == "dying", "without listening it cannot be known"
        assert lock.holder(path, listen=True) is None


async def test_a_silent_holder_on_another_machine_is_taken_for_dead_and_saves_no_more_when_it_wakes(
    tmp_path: Path, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "driver.lock"
    elsewhere("a")
    async with lock.held(path, "asleep") as asleep:
        asleep.require_held()
        asleep._stop.set()  # as if its machine slept
        asleep._thread.join()
        elsewhere("b")
        async with lock.held(path, "awake") as awake:
            awake.require_held()
            with pytest.raises(CheckpointError, match="was taken over by awake"):
                asleep.require_held()
    assert json.loads(path.read_bytes())["who"] == "awake", "who was taken over does not release what is not his"


async def test_a_lock_file_that_says_nothing_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "driver.lock"
    path.write_bytes(b'{"half')
    async with lock.held(path, "first"):
        assert lock.holder(path) == "first"
