"""Folders of earlier starts: removed once they are over, and never before."""

import json
import os
from pathlib import Path

import pytest

from icm_hpc.rundir import attempts
from icm_hpc.rundir.attempts import record_attempt, remove_ended
from icm_hpc.rundir.folder import Endpoint, RunDir, ServerExit


def endpoint(attempt: str) -> Endpoint:
    """Return where a server of this attempt would listen."""
    return Endpoint(attempt, 0, ("127.0.0.1",), 1, "key", "model")


def names(run_dir: RunDir) -> set[str]:
    """Return whose folders there are."""
    return {path.name for path in (run_dir.path / "attempts").iterdir()}


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """Return a run with two starts that are over, one of them killed outright, and the one that is going on."""
    found = RunDir(tmp_path / "it")
    found.create()
    for attempt in ("7.0", "7.1", "7.2"):
        record_attempt(found, attempt)
        found.write_endpoint(endpoint(attempt))
        found.write_rank_arrival(attempt, 1, "10.0.0.2")
    found.endpoint("7.0").unlink()
    found.write_server_exit(ServerExit("7.0", "told to stop", told_to_stop=True))
    return found


def test_starts_that_are_over_leave_their_record_only(run_dir: RunDir) -> None:
    remove_ended(run_dir, "7.2")
    assert names(run_dir) == {"7.2"}
    assert run_dir.read_endpoint("7.2") == endpoint("7.2")
    assert run_dir.has_arrived("7.2", 1)
    assert [one["attempt"] for one in attempts.attempts(run_dir)] == ["7.0", "7.1", "7.2"]


def test_a_start_whose_driver_waits_for_the_lock_keeps_its_folder(run_dir: RunDir) -> None:
    run_dir.write_endpoint(endpoint("8.0"))
    run_dir.write_server_exit(ServerExit("9.0", "exited with code 1", told_to_stop=False))
    remove_ended(run_dir, "7.2")
    assert names(run_dir) == {"7.2", "8.0", "9.0"}


def test_a_start_that_was_refused_long_ago_is_removed_by_the_times_of_the_file_system(run_dir: RunDir) -> None:
    run_dir.write_server_exit(ServerExit("9.0", "told to stop", told_to_stop=True))
    now_s = run_dir.provenance.stat().st_mtime
    os.utime(run_dir.server_exit("9.0"), (now_s - attempts.FORGOTTEN_S - 1,) * 2)
    remove_ended(run_dir, "7.2")
    assert names(run_dir) == {"7.2"}


def test_a_server_whose_folder_was_removed_records_its_end_as_ever(run_dir: RunDir) -> None:
    remove_ended(run_dir, "7.2")
    run_dir.endpoint("7.1").unlink(missing_ok=True)
    assert (run_dir.read_server_exit("7.1"), run_dir.read_restart_wanted("7.1", 0)) == (None, None)
    assert not run_dir.has_arrived("7.1", 1)
    run_dir.write_server_exit(ServerExit("7.1", "told to stop", told_to_stop=True))
    assert json.loads(run_dir.server_exit("7.1").read_text())["reason"] == "told to stop"


def test_a_folder_that_cannot_be_removed_stops_nothing(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr("shutil.rmtree", refused)
    remove_ended(run_dir, "7.2")
    assert names(run_dir) == {"7.0", "7.1", "7.2"}
