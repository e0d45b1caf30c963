"""A network file system that is away for a moment, or for good: driver, server component, follower, lock and status."""

import asyncio
import errno
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.driver import run
from icm_hpc.errors import FolderError
from icm_hpc.jobs import local
from icm_hpc.monitoring import state
from icm_hpc.rundir import checkpoint, lock, polling
from icm_hpc.rundir.files import read_json
from icm_hpc.rundir.folder import Rendezvous, RunDir
from icm_hpc.rundir.polling import TRANSIENT, Polled
from icm_hpc.rundir.progress import Progress
from icm_hpc.serving import follower, process, server
from tests.conftest import prepare_run, start_stub_by

PASSING = ("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "ENOTCONN", "EHOSTDOWN")
STUB = ("model=stub", "task.limit=8", "search.steps=10")


def quiet(_: Progress) -> None:
    """Watch nothing."""


class Away:
    """Reads of small files, some of which fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, fails: Callable[[Path, int], bool]) -> None:
        self.failed: list[Path] = []
        reads: Counter[Path] = Counter()
        read = Path.read_bytes

        def read_bytes(path: Path) -> bytes:
            reads[path] += 1
            if path.suffix == ".json" and fails(path, reads[path]):
                self.failed.append(path)
                raise OSError(getattr(errno, name), f"played {name}")
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)


def now_and_then(_: Path, number: int) -> bool:
    """Fail the first, the fourth, the seventh read of each file."""
    return number % 3 == 1


@pytest.mark.parametrize("name", PASSING)
async def test_a_driver_outlives_reads_that_fail_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB)
    monkeypatch.setattr(polling, "RETRY_S", 0.01)
    monkeypatch.setattr("icm_hpc.scoring.connect.POLL_S", 0.01)
    with local.serving(run_dir, "a1"):
        away = Away(monkeypatch, name, now_and_then)
        summary = await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
        monkeypatch.undo()
    assert summary["examples"] == 8
    assert {"endpoint.json", "server-exit.json"} <= {path.name for path in away.failed}


async def test_a_driver_waits_without_holding_up_its_other_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("the event loop is blocked"))
    monkeypatch.setattr(polling, "RETRY_S", 0.01)
    failures = [OSError(errno.ESTALE, "stale"), OSError(errno.EIO, "io")]

    def do() -> int:
        if failures:
            raise failures.pop()
        return 7

    assert await polling.until_done(do) == 7


async def test_a_driver_whose_folder_stays_away_ends_with_the_path_and_its_state_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB, "search.method=single", "search.steps=100000")
    monkeypatch.setattr(polling, "TOLERATED_S", 0.2)
    with local.serving(run_dir, "a1"):

        def watch(now: Progress) -> None:
            if now.step >= 5 and not fails:
                fails.append(True)
                Away(monkeypatch, "ESTALE", lambda path, _: path.name == "server-exit.json")

        fails: list[bool] = []
        with pytest.raises(
            FolderError, match=r"attempts/a1/server-exit\.json could not be used for 0\.2 s: played ESTALE"
        ):
            await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=watch)
        monkeypatch.undo()
    saved = checkpoint.load_newest(run_dir.shard(0))
    assert saved is not None
    assert saved.state is not None
    assert saved.state.step >= 5


def engine_of(seconds: float) -> Callable[..., list[str]]:
    """Return the command of an engine that ends by itself."""
    return lambda *_, **__: [sys.executable, "-c", f"import time; time.sleep({seconds}); raise SystemExit(3)"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Components that look often."""
    monkeypatch.setattr(polling, "RETRY_S", 0.01)
    for module in (server, follower):
        monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(server, "LOOK_S", 0.01)
    start_stub_by(monkeypatch, engine_of(0.5))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", PASSING)
def test_a_server_component_outlives_reads_that_fail_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub")
    away = Away(monkeypatch, name, now_and_then)
    assert server.serve(settings, run_dir, "a1", local=True) == "stub exited with code 3"
    assert {path.name for path in away.failed} == {"restart-wanted.json"}


@pytest.mark.usefixtures("quick")
def test_a_server_component_whose_folder_stays_away_ends_its_engine_and_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub")
    start_stub_by(monkeypatch, engine_of(60))
    monkeypatch.setattr(polling, "TOLERATED_S", 0.1)
    ended: list[Any] = []
    end = process._end

    def noted(running: Any, log: Path) -> None:
        end(running, log)
        ended.append(running.returncode)

    monkeypatch.setattr(process, "_end", noted)
    Away(monkeypatch, "EIO", lambda path, _: path.name == "restart-wanted.json")
    with pytest.raises(FolderError, match=r"a1/restart-wanted\.json could not be used for 0\.1 s"):
        server.serve(settings, run_dir, "a1", local=True)
    assert len(ended) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", PASSING)
def test_a_follower_outlives_reads_that_fail_for_a_moment_and_its_engine_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub", "server.nodes=2", "cluster=slurm")
    run_dir.write_rendezvous(Rendezvous("a1", 0, "127.0.0.1", 1, 2))
    away = Away(monkeypatch, name, now_and_then)

    def is_to_stop() -> bool:
        return run_dir.rank_exit("a1", 1).exists()

    assert follower.follow(settings, run_dir, "a1", 1, "127.0.0.1", is_to_stop=is_to_stop) == "told to stop"
    assert "exited with code 3" in json.loads(run_dir.rank_exit("a1", 1).read_text())["how"], "it was not ended before"
    assert {path.name for path in away.failed} == {"server-exit.json", "rendezvous.json"}


@pytest.mark.usefixtures("quick")
def test_a_follower_whose_folder_stays_away_ends_and_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub", "server.nodes=2", "cluster=slurm")
    monkeypatch.setattr(polling, "TOLERATED_S", 0.1)
    Away(monkeypatch, "ESTALE", lambda path, _: path.name == "rendezvous.json")
    with pytest.raises(FolderError, match=r"a1/rendezvous\.json could not be used for 0\.1 s: played ESTALE"):
        follower.follow(settings, run_dir, "a1", 1, "127.0.0.1", is_to_stop=lambda: False)


@pytest.mark.parametrize("name", PASSING)
async def test_a_lock_is_taken_though_reads_fail_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, fails = tmp_path / "driver.lock", iter([True, False] * 100)
    monkeypatch.setattr(polling, "RETRY_S", 0.01)
    read = Path.read_bytes

    def read_bytes(file: Path) -> bytes:
        if next(fails, False):
            raise OSError(getattr(errno, name), "played")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    async with lock.held(path, "first"):
        assert lock.holder(path) == "first"


def test_status_outlives_a_read_that_fails_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run_dir = prepare_run(tmp_path, *STUB)
    monkeypatch.setattr(polling, "RETRY_S", 0.01)
    Away(monkeypatch, "ESTALE", lambda _, number: number == 1)
    assert state.readable_status(run_dir).driver == "not started"


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "no"), OSError(errno.ENOSPC, "full"), ValueError("half")]
)
def test_what_does_not_pass_is_an_error_at_once(error: Exception) -> None:
    def read() -> None:
        raise error

    with pytest.raises(type(error)):
        Polled(read, None)()


def test_half_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"half')
    with pytest.raises(ValueError, match="Unterminated string"):
        Polled(lambda: read_json(path), None)()


def test_an_outage_is_logged_once_and_its_end_begins_a_new_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    answers: list[Any] = []

    def read() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    polled: Polled[Any] = Polled(read, "first")
    stale = OSError(errno.ESTALE, "stale", "/runs/a/file.json")
    answers += [stale, stale, 2, stale, stale, stale]
    with caplog.at_level(logging.WARNING):
        assert [polled() for _ in range(5)] == ["first", "first", 2, 2, 2]
        with pytest.raises(FolderError, match=r"/runs/a/file\.json could not be used for 60 s: stale"):
            polled()
    assert len(caplog.records) == 1
    assert errno.EACCES not in TRANSIENT


def test_the_folder_of_a_run_names_its_file_when_reading_fails_after_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Away(monkeypatch, "EIO", lambda *_: True)
    with pytest.raises(OSError, match="played EIO") as failed:
        RunDir(tmp_path).read_endpoint("a1")
    assert str(failed.value.filename).endswith("endpoint.json")
