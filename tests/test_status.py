"""What `status` reports of runs, and what `resume` does with one that has ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.rundir import lock
from icm_hpc.rundir.folder import RunDir

STUB = ("model=stub", "task.limit=16", "search.method=single", "search.steps=40")


def icm(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands."""
    argv = [sys.executable, "-m", f"icm_hpc.{module}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def told(root: Path) -> dict[str, dict[str, Any]]:
    """Return what status tells, by run."""
    done = icm("status", f"run.root={root}", "json=true")
    assert done.returncode == 0, done.stderr
    return {row["run"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_a_finished_run_is_reported_and_refused_by_resume(tmp_path: Path) -> None:
    assert icm("submit", *STUB, f"run.root={tmp_path}", "run=done").returncode == 0
    row = told(tmp_path)["done"]
    assert (row["driver"], row["step"], row["steps"], row["attempts"]) == ("finished", 40, 40, 1)
    assert row["energy"] == json.loads((tmp_path / "done" / "summary.json").read_text())["energy"]
    assert row["saved_s"] < 120
    refused = icm("resume", "run=done", f"run.root={tmp_path}")
    assert refused.returncode == 1
    assert "has finished: its labels are in" in refused.stderr
    assert "raise search.restarts (to 2)" in refused.stderr
    longer = icm("resume", "run=done", f"run.root={tmp_path}", "search.steps=50")
    assert longer.returncode == 0, longer.stderr
    assert (told(tmp_path)["done"]["step"], told(tmp_path)["done"]["attempts"]) == (50, 2)
    assert len(list((tmp_path / "done" / "attempts").iterdir())) == 1, "that of the first start is over"
    table = icm("status", f"run.root={tmp_path}").stdout
    assert "finished" in table
    assert "50/50" in table


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Return a finished run of several searches."""
    root = tmp_path_factory.mktemp("runs")
    assert icm("submit", *STUB, f"run.root={root}", "run=done", "search.restarts=2").returncode == 0
    return RunDir(root / "done")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut in a line": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "cut after a line": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3])),
    "another thing": lambda path: path.write_bytes(bytes(1000)),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_resume_writes_damaged_labels_again(done: RunDir, damage: Callable[[Path], object]) -> None:
    before, here = done.labels.read_bytes(), ("run=done", f"run.root={done.path.parent}")
    damage(done.labels)
    resumed = icm("resume", *here)
    assert resumed.returncode == 0, resumed.stderr
    assert done.labels.read_bytes() == before
    assert json.loads(done.summary.read_text())["since_start"]["prompts"] == 0
    assert "has finished" in icm("resume", *here).stderr


def test_labels_that_are_gone_are_reported_with_the_command_that_writes_them(done: RunDir, tmp_path: Path) -> None:
    here, kept = ("run=done", f"run.root={done.path.parent}"), done.labels.read_bytes()
    done.labels.unlink()
    told_by = [icm("evaluate", *here), icm("export", *here, "to=csv", f"out={tmp_path / 'x.csv'}")]
    done.labels.write_bytes(kept)
    for one in told_by:
        assert "the run has not ended, or the file was removed" in one.stderr
        assert one.stderr.strip().endswith(f"to write it: {done.resume_command}")


def test_a_run_that_goes_on_is_reported_with_its_eta_and_refused_by_resume(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "icm_hpc.submit", *STUB, f"run.root={tmp_path}", "run=long"]
    slow = ["search.steps=100000", "search.memo_mb=0", "search.schedule=constant", "model.vllm_args.delay-ms=20"]
    process = subprocess.Popen([*argv, *slow], stdout=subprocess.DEVNULL)
    run_dir = RunDir(tmp_path / "long")
    try:
        deadline = time.monotonic() + 120
        while not (run_dir.progress.exists() and told(tmp_path)["long"]["eta_s"]):
            assert time.monotonic() < deadline
            time.sleep(1)
        row = told(tmp_path)["long"]
        assert (row["driver"], row["server"], row["job"]) == ("running", "up", None)
        assert 0 < row["step"] < 100000
        refused = icm("resume", "run=long", f"run.root={tmp_path}")
        assert "is in use: attempt local-" in refused.stderr
    finally:
        process.terminate()
        process.wait()
    assert told(tmp_path)["long"]["driver"] == "stopped"
    assert lock.holder(run_dir.lock) is None


def test_an_unknown_run_is_reported(tmp_path: Path) -> None:
    done = icm("status", f"run.root={tmp_path}", "run=nothing")
    assert done.returncode == 1
    assert "there is no run nothing in" in done.stderr


@pytest.mark.parametrize("root", ["", "missing"])
def test_status_of_a_folder_without_runs_says_how_to_start_one(tmp_path: Path, root: str) -> None:
    done = icm("status", f"run.root={tmp_path / root}")
    assert done.returncode == 1
    assert done.stderr == (
        f"icm_hpc: {tmp_path / root} has no runs: start one with python -m icm_hpc.submit, or name another folder of runs"
        " with run.root=FOLDER\n"
    )


def test_a_run_on_this_machine_inside_an_allocation_is_not_taken_for_its_job(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "icm_hpc.submit", *STUB, f"run.root={tmp_path}", "run=mine", "cluster=local"],
        env={**os.environ, "SLURM_JOB_ID": "77"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = told(tmp_path)["mine"]
    assert (row["driver"], row["job"]) == ("finished", None)


def test_watch_without_a_terminal_prints_one_table_and_ends(tmp_path: Path) -> None:
    assert icm("submit", *STUB, f"run.root={tmp_path}", "run=done").returncode == 0
    watched, plain = (icm("status", f"run.root={tmp_path}", *words) for words in (["watch=true"], []))
    assert watched.returncode == 0
    assert watched.stdout.split("ago")[0].split()[:-1] == plain.stdout.split("ago")[0].split()[:-1]
    refused = icm("status", f"run.root={tmp_path}", "watch=true", "json=true")
    assert refused.returncode == 1
    assert "choose one" in refused.stderr
