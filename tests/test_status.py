"""What `status` tells of runs, and what `resume` makes of one that has ended."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from icm_hpc import config, lock, status
from icm_hpc.rundir import RunDir

STUB = ("model=stub", "task.limit=16", "search.steps=40")


def icm(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands."""
    argv = [sys.executable, "-m", f"icm_hpc.{module}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def told(root: Path) -> dict[str, dict[str, Any]]:
    """Return what status tells, by run."""
    done = icm("status", f"run.root={root}", "json=true")
    assert done.returncode == 0, done.stderr
    return {row["run"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_a_finished_run_is_told_of_and_refused_kindly_by_resume(tmp_path: Path) -> None:
    assert icm("submit", *STUB, f"run.root={tmp_path}", "run=done").returncode == 0
    row = told(tmp_path)["done"]
    assert (row["driver"], row["step"], row["steps"], row["attempts"]) == ("finished", 40, 40, 1)
    assert row["saved_s"] < 120
    refused = icm("resume", "run=done", f"run.root={tmp_path}")
    assert refused.returncode == 1
    assert "has come to its end: its labels are in" in refused.stderr
    assert "search.steps=80" in refused.stderr
    longer = icm("resume", "run=done", f"run.root={tmp_path}", "search.steps=50")
    assert longer.returncode == 0, longer.stderr
    assert (told(tmp_path)["done"]["step"], told(tmp_path)["done"]["attempts"]) == (50, 2)
    table = icm("status", f"run.root={tmp_path}").stdout
    assert "finished" in table
    assert "50/50" in table


def test_a_run_that_goes_on_is_told_of_with_its_eta_and_refused_by_resume(tmp_path: Path) -> None:
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


def test_a_folder_without_runs_is_told_of(tmp_path: Path) -> None:
    done = icm("status", f"run.root={tmp_path}", "run=nothing")
    assert done.returncode == 1
    assert "there is no run nothing in" in done.stderr


def test_a_run_that_lacks_steps_is_not_finished(tmp_path: Path) -> None:
    assert icm("submit", *STUB, f"run.root={tmp_path}", "run=done").returncode == 0
    run_dir = RunDir(tmp_path / "done")
    settings = config.load_file(run_dir.config)
    assert status.is_finished(run_dir, settings)
    assert not status.is_finished(run_dir, config.load_file(run_dir.config, ["search.restarts=2"]))
    run_dir.labels.unlink()
    assert not status.is_finished(run_dir, settings)
