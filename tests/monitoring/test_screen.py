"""What the screen shows, at each width, and how it ends."""

import io
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from icm_hpc import scheduler
from icm_hpc.config import loading
from icm_hpc.monitoring import screen, slurm, state
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scheduler import Component
from tests.exports import runs
from tests.monitoring.test_energies import traced

LONG = "a-long-name-of-a-run-that-somebody-gave-it-for-good-reasons"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs: three that have ended, at different times, and one whose job runs."""
    root = tmp_path_factory.mktemp("runs")
    finished = runs.finished(root, "task.limit=8", "search.restarts=6")
    for place, name in enumerate(("older", "newer", LONG)):
        shutil.copytree(finished.path, root / name)
        for path in (root / name).iterdir():
            os.utime(path, (place, place))
    shutil.copytree(finished.path, root / "at-work")
    job = root / "at-work" / "submitit"
    job.mkdir(exist_ok=True)
    (job / "5_submitted.pkl").write_bytes(b"")
    os.utime(root / "at-work" / "config.yaml", (0, 0))
    shutil.rmtree(finished.path)
    return root


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> None:
    running = [Component("RUNNING", "n1"), Component("RUNNING", "n2")]
    monkeypatch.setattr(scheduler, "all_queued", lambda jobs, _: dict.fromkeys(jobs, running))


def shown(root: Path, name: str = "", *, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines of the screen, without the time."""
    console = Console(file=io.StringIO(), record=True, width=width, height=height, markup=False)
    console.print(screen.picture(root, name, slurm.Seldom(), console))
    return [line.rstrip() for line in console.export_text().split("\n")]


def test_the_run_that_runs_is_first_and_the_others_are_by_time(folder: Path) -> None:
    title, _, header, *rows = shown(folder, width=160)
    assert f"4 runs, 1 running  (Ctrl-C ends)  {folder}" in title
    assert header.split()[:4] == ["run", "state", "server", "job"]
    assert [row.split()[0] for row in rows[:4]] == ["at-work", f"{LONG[:39]}…", "newer", "older"]
    assert rows[0].split()[1:4] == ["RUNNING", "RUNNING", "5"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_the_table_fits_the_screen_and_keeps_what_matters_most(folder: Path, width: int) -> None:
    lines = shown(folder, width=width)
    assert max(map(len, lines)) <= width
    for column in ("run", "state", "energy", "ETA"):
        assert column in lines[2].split()
    assert ("attempts" in lines[2]) == (width == 160)
    assert "RUNNING" in lines[3]


def test_runs_that_do_not_fit_are_counted(folder: Path) -> None:
    lines = shown(folder, height=6)
    assert [line for line in lines if line][-1] == "and 2 more (status prints all)"
    assert len([line for line in lines if line]) <= 6


@pytest.mark.parametrize("width", [40, 80, 160])
def test_one_run_shows_the_course_of_its_searches(folder: Path, width: int) -> None:
    lines = shown(folder, "at-work", width=width, height=40)
    assert max(map(len, lines)) <= width
    assert lines[2].startswith("state RUNNING  server RUNNING  job 5")
    courses = [line for line in lines if line and set(line) <= set("▁▂▃▄▅▆▇█")]
    assert len(courses) == screen.SEARCHES
    assert "and 2 more searches" in lines


def test_a_run_that_has_only_begun_is_shown(folder: Path, tmp_path: Path) -> None:
    new = RunDir(tmp_path / "new")
    new.path.mkdir()
    shutil.copy(folder / "newer" / "config.yaml", new.config)
    assert "state not started  server -  attempts 0" in shown(tmp_path, "new")
    new.driver_log.write_text("10:00 server ready\n10:01 step 1/2, pool 1/2\n10:02 the server is lost\n")
    new.shard(0).mkdir()
    traced(new.shard(0), [0.0, 1.0])
    lines = shown(tmp_path, "new")
    assert "▁█" in lines
    assert [line for line in lines if line][-2:] == ["10:00 server ready", "10:02 the server is lost"]


def test_a_run_that_cannot_be_read_and_one_that_is_gone_break_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.yaml").write_text("[")
    assert "unreadable" in "\n".join(shown(tmp_path))
    assert "state unreadable" in "\n".join(shown(tmp_path, "bad"))
    assert "0 runs" in shown(tmp_path / "none")[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_screen_and_restores_the_terminal(folder: Path, number: int, code: int) -> None:
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "icm_hpc.status", f"run.root={folder}", "watch=true"]
    process = subprocess.Popen(
        argv,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    os.close(slave)
    printed = b""
    deadline = time.monotonic() + 120
    try:
        while b"newer" not in printed:
            assert time.monotonic() < deadline, printed
            printed += _read(master)
        process.send_signal(number)
        while process.poll() is None:  # a terminal that nobody reads is full at some time, and its writers wait
            assert time.monotonic() < deadline, printed
            printed += _read(master)
        assert process.returncode == code
        printed += _read(master)
    finally:
        process.kill()
        os.close(master)
    assert b"\x1b[?1049h" in printed
    assert printed.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?1049l" in printed
    assert b"Traceback" not in printed


def _read(terminal: int) -> bytes:
    """Return what is printed within a second; nothing once nobody prints any more."""
    try:
        return os.read(terminal, 65536) if select.select([terminal], [], [], 1)[0] else b""
    except OSError:
        return b""


def test_reading_the_same_settings_again_costs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = RunDir(folder / "newer")
    state.status(run_dir)

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(loading, "load_file", fail)
    assert state.status(run_dir).step
