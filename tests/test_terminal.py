"""How commands end if a file, a folder or standard output cannot be used: with one line, and a run goes on."""

import errno
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.config import runs
from icm_hpc.errors import ConfigError, FolderError
from icm_hpc.rundir.files import write_atomically
from icm_hpc.rundir.folder import RunDir
from icm_hpc.terminal import reporting_errors
from tests.test_submit import submit

STUB = ("model=stub", "task.limit=8", "search.steps=4")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Return a finished run."""
    root = tmp_path_factory.mktemp("runs")
    finished = submit(*STUB, f"run.root={root}", "run=done")
    assert finished.returncode == 0, finished.stderr
    return RunDir(root / "done")


def refuse(*_: object, **__: object) -> Any:
    """Fail as the kernel does for a file of another user."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "temporary")


@pytest.mark.parametrize(
    "words",
    [
        ["report", "run=done"],
        ["evaluate", "run=done"],
        ["export", "run=done", "to=csv", "out=x.csv"],
        ["resume", "run=done"],
        ["apply", "run=done", "task.data=x.csv"],
        ["status", "run=done"],
        ["compare", "runs=done"],
    ],
    ids=lambda words: words[0],
)
def test_a_run_that_cannot_be_read_is_reported_as_that(
    done: RunDir, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def refusing(path: Path, **options: bool) -> os.stat_result:
        return refuse() if path == done.config else stat(path, **options)

    name, *arguments = words
    monkeypatch.setattr(Path, "stat", refusing)
    monkeypatch.setattr(sys, "argv", [name, *arguments, f"run.root={done.path.parent}"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"icm_hpc.{name}").main()
    assert ended.value.code == f"icm_hpc: {done.path}: cannot be read: Permission denied"


def test_a_folder_of_runs_that_cannot_be_listed_is_reported_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FolderError, match=f"{tmp_path}: cannot be read: Permission denied"):
        runs.all_runs(tmp_path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(SystemExit) as ended, reporting_errors():
        write_atomically(path, b"")
    assert ended.value.code == f"icm_hpc: {path}: cannot be read or written: Permission denied"


def test_a_folder_in_the_place_of_a_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended, reporting_errors():
        tmp_path.read_bytes()
    assert ended.value.code == f"icm_hpc: {tmp_path}: cannot be read or written: Is a directory"


@pytest.mark.parametrize("words", [("run.root={file}", "run=x"), ("run.root={folder}", "run=file")])
def test_a_file_in_the_place_of_a_run_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("kept")
    given = [word.format(file=tmp_path / "file", folder=tmp_path) for word in words]
    refused = submit(*STUB, *given)
    assert refused.stderr.strip().endswith("file is a file, and no folder: choose another run.root or run.name")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_root_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    runs.require_writable(root / "name")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: choose another run.root"):
        runs.require_writable(root)
    monkeypatch.setattr(sys, "argv", ["plan", "model=stub", f"run.root={root}"])
    with pytest.raises(SystemExit, match=f"{tmp_path} cannot be written"):
        importlib.import_module("icm_hpc.plan").main()


def shell(script: str, module: str, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as "$@" of a script of the shell."""
    argv = ["sh", "-c", script, "sh", sys.executable, "-m", f"icm_hpc.{module}", *words]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_a_working_directory_that_is_gone_is_reported(tmp_path: Path) -> None:
    ended = shell('mkdir gone && cd gone && rmdir ../gone && exec "$@"', "submit", *STUB, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == "icm_hpc: the working directory was removed: change to a folder that is there\n"


@pytest.mark.parametrize(
    "words",
    [["task", *STUB], ["evaluate", "run=done"], ["export", "run=done", "to=csv", "out={out}"]],
    ids=lambda words: words[0],
)
def test_a_full_standard_output_is_reported(done: RunDir, tmp_path: Path, words: list[str]) -> None:
    given = [word.format(out=tmp_path / "out.csv") for word in words]
    ended = shell('exec "$@" > /dev/full', *given, f"run.root={done.path.parent}", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == "icm_hpc: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("output", ["> /dev/full", ">&-", "| head -0"])
def test_a_run_goes_on_when_nothing_can_be_printed(tmp_path: Path, output: str) -> None:
    ended = shell(f'"$@" {output}', "submit", *STUB, "run.root=runs", "run=it", cwd=tmp_path)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert len(RunDir(tmp_path / "runs" / "it").labels.read_text().splitlines()) == 8


def test_a_closed_standard_output_is_no_error(done: RunDir, tmp_path: Path) -> None:
    ended = shell('exec "$@" >&-', "evaluate", "run=done", f"run.root={done.path.parent}", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
