"""The state of a run, also of one that has just started or was damaged."""

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from icm_hpc import scheduler
from icm_hpc.config import loading
from icm_hpc.monitoring import finished, state, table
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.folder import RunDir
from tests.test_status import STUB, icm


def test_a_run_that_lacks_steps_is_not_finished(tmp_path: Path) -> None:
    assert icm("submit", *STUB, f"run.root={tmp_path}", "run=done").returncode == 0
    run_dir = RunDir(tmp_path / "done")
    config = loading.load_file(run_dir.config)
    assert finished.is_finished(run_dir, config)
    assert not finished.is_finished(run_dir, loading.load_file(run_dir.config, ["search.restarts=2"]))
    run_dir.labels.unlink()
    assert not finished.is_finished(run_dir, config)


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
    row = state.status(stopped)
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
        row = state.readable_status(copy)
        assert not row.driver.startswith("unreadable"), f"{ruined.name} {ruin}: {row.driver}"
        Console(file=io.StringIO()).print(table.lines([row]))
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
    row = state.status(copy)
    assert (row.driver, row.server, row.attempts, row.eta_s) == ("RUNNING", "RUNNING", 0, None)


def test_a_long_last_line_of_a_trace_is_found_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [json.dumps({"step": n, "flips": 0, "energy": 1.0, "repairs": [[0, 1, 0, 1]] * 4_000}) for n in (1, 2)]
    trace.write_text("\n".join(lines) + "\n")
    assert state._saved([trace]) == state.Reached(2, 0, 1.0)
    trace.write_text("\n".join(lines))
    assert state._saved([trace]) == state.Reached(1, 0, 1.0)
    trace.write_text(lines[0])
    assert state._saved([trace]) is None
