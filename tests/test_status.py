"""What `status` reports of runs, and what `resume` does with one that has ended."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import scheduler, status
from icm_hpc.config import loading
from icm_hpc.errors import SchedulerError
from icm_hpc.rundir import checkpoint, lock
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
    table = icm("status", f"run.root={tmp_path}").stdout
    assert "finished" in table
    assert "50/50" in table


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


def test_a_run_that_lacks_steps_is_not_finished(tmp_path: Path) -> None:
    assert icm("submit", *STUB, f"run.root={tmp_path}", "run=done").returncode == 0
    run_dir = RunDir(tmp_path / "done")
    config = loading.load_file(run_dir.config)
    assert status.is_finished(run_dir, config)
    assert not status.is_finished(run_dir, loading.load_file(run_dir.config, ["search.restarts=2"]))
    run_dir.labels.unlink()
    assert not status.is_finished(run_dir, config)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Return a run that was told to stop between two reports of its progress."""
    root = tmp_path_factory.mktemp("stopped")
    argv = [sys.executable, "-m", "icm_hpc.submit", *STUB, f"run.root={root}", "run=it"]
    slow = ["search.steps=100000", "search.memo_mb=0", "search.schedule=constant", "model.vllm_args.delay-ms=20"]
    process = subprocess.Popen([*argv, *slow, "run.save_interval_s=0"], stdout=subprocess.DEVNULL)
    run_dir = RunDir(root / "it")
    trace = run_dir.shard(0) / "trace.jsonl"
    deadline = time.monotonic() + 120
    while not (run_dir.progress.exists() and trace.exists() and trace.read_bytes().count(b"\n") > 20):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    process.wait()
    return run_dir


def test_a_run_that_was_stopped_shows_the_step_of_its_saved_state(stopped: RunDir) -> None:
    saved = checkpoint.load_newest(stopped.shard(0))
    assert saved is not None
    row = status.status(stopped)
    reported = json.loads(stopped.progress.read_text())["step"]
    assert (row.driver, row.step, row.flips) == ("stopped", saved.state.step, saved.state.flips)
    assert row.step is not None
    assert row.step > reported, "the file of progress is from before the stop"


QUEUES = {
    "none": [],
    "running": [scheduler.Component("RUNNING", "n1"), scheduler.Component("RUNNING", "n2")],
    "pending": [scheduler.Component("PENDING", "(Priority)")],
}


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("ruin", ["not there yet", "empty", "cut in half", "{}", "[]", '{"attempts": []}', "null"])
def test_no_state_of_a_runs_folder_breaks_its_status(
    stopped: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ruin: str, queue: str
) -> None:
    monkeypatch.setattr(scheduler, "queued", lambda *_: QUEUES[queue])
    monkeypatch.setattr(scheduler, "accounted", lambda *_: [])
    files = sorted((path for path in stopped.path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime)
    assert len(files) > 8
    for number, ruined in enumerate(files):
        if ruined == stopped.config:
            continue
        copy = RunDir(tmp_path / str(number) / "it")
        shutil.copytree(stopped.path, copy.path)
        (copy.submitit / "5_submitted.pkl").write_bytes(b"")
        later = files[number:] if ruin == "not there yet" else [ruined]
        for path in later:
            ruin_file(copy.path / path.relative_to(stopped.path), ruin, keep=path == stopped.config)
        row = status._told(copy)
        assert not row.driver.startswith("unreadable"), f"{ruined.name} {ruin}: {row.driver}"
        status.print_table([row])
        json.dumps(row.step)


def ruin_file(path: Path, ruin: str, *, keep: bool) -> None:
    """Make of a file what is found where it was not written yet, or only in part."""
    if keep:
        return
    content = path.read_bytes()
    if ruin == "not there yet":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut in half": content[: len(content) // 2]}.get(ruin, ruin.encode()))


def test_a_job_that_has_just_started_has_no_attempt_yet(
    stopped: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = RunDir(tmp_path / "it")
    shutil.copytree(stopped.path, copy.path)
    (copy.submitit / "5_submitted.pkl").write_bytes(b"")
    copy.provenance.unlink()
    monkeypatch.setattr(scheduler, "queued", lambda *_: QUEUES["running"])
    row = status.status(copy)
    assert (row.driver, row.server, row.attempts, row.eta_s) == ("RUNNING", "RUNNING", 0, None)


def test_a_long_last_line_of_a_trace_is_found_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [json.dumps({"step": n, "flips": 0, "energy": 1.0, "repairs": "x" * 50_000}) for n in (1, 2)]
    trace.write_text("\n".join(lines) + "\n")
    assert status._saved([trace]) == status.Reached(2, 0, 1.0)
    trace.write_text("\n".join(lines))
    assert status._saved([trace]) == status.Reached(1, 0, 1.0)
    trace.write_text(lines[0])
    assert status._saved([trace]) is None


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


def test_a_controller_that_is_away_is_asked_once_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def queued(job: str, cluster: str | None) -> list[scheduler.Component]:
        asked.append(job)
        raise SchedulerError("away")

    monkeypatch.setattr(scheduler, "queued", queued)
    ask = status._asking_until_a_failure()
    for job in ("1", "2", "3"):
        with pytest.raises(SchedulerError):
            ask(job, None)
    assert asked == ["1"]
