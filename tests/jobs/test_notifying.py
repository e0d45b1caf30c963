"""A command of the user's own at the end of a run: when it is called, with what, and that its failure changes nothing."""

import dataclasses
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import scheduler
from icm_hpc.config import loading
from icm_hpc.config.fingerprint import result_settings
from icm_hpc.config.schema import Config
from icm_hpc.errors import ClusterError, ConfigError, Interrupted, ServerError
from icm_hpc.jobs import notifying, submission
from icm_hpc.rundir.folder import RunDir
from tests.test_submit import submit

STUB = ("model=stub", "task.limit=8")
WRITES = """#!/bin/sh
echo "$ICM_OUTCOME $@" >> "$(dirname "$0")/called"
env > "$(dirname "$0")/environment"
"""


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """Return a command that writes down how it was called."""
    return written(tmp_path / "tell", WRITES)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def called(command: Path) -> list[str]:
    """Return outcome and arguments of every call."""
    file = command.parent / "called"
    return file.read_text().splitlines() if file.exists() else []


def config_of(folder: Path, *command: str) -> tuple[Config, RunDir]:
    config = loading.load([*STUB, f"run.root={folder}", "run=mine"])
    run_dir = RunDir(folder / "mine")
    run_dir.path.mkdir()
    return dataclasses.replace(config, run=dataclasses.replace(config.run, notify_command=list(command))), run_dir


def test_a_local_run_that_finishes_calls_the_command_with_its_folder(tmp_path: Path, command: Path) -> None:
    done = submit(*STUB, f"run.root={tmp_path}", "run=mine", f"run.notify_command=[{command},--short]")
    assert done.returncode == 0, done.stderr
    assert called(command) == [f"finished --short {tmp_path / 'mine'}"]
    assert (tmp_path / "mine" / "report.html").exists()


def test_a_local_run_that_fails_calls_it_too(tmp_path: Path, command: Path) -> None:
    (tmp_path / "mine" / "labels.jsonl").mkdir(parents=True)
    done = submit(*STUB, f"run.root={tmp_path}", "run=mine", f"run.notify_command=[{command}]")
    assert done.returncode == 1
    assert called(command) == [f"failed {tmp_path / 'mine'}"], done.stderr


def test_a_local_run_that_is_interrupted_calls_it_and_exits_as_before(tmp_path: Path, command: Path) -> None:
    slow = ["search.method=single", "search.steps=100000", "search.memo_mb=0", "model.vllm_args.delay-ms=20"]
    argv = [sys.executable, "-m", "icm_hpc.submit", *STUB, *slow, f"run.root={tmp_path}", "run=mine"]
    process = subprocess.Popen([*argv, f"run.notify_command=[{command}]"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "mine" / "progress.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert called(command) == [f"stopped {tmp_path / 'mine'}"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#!/bin/sh\necho told to the user; exit 3\n", "exit code 3"),
        ("#!/bin/sh\nsleep 60 & sleep 60\n", "not done within 0.5 s"),
        ("", "Exec format error"),
    ],
)
def test_a_command_that_fails_is_logged_and_the_run_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    monkeypatch.setattr(notifying, "WITHIN_S", 0.5)
    config, run_dir = config_of(tmp_path, str(written(tmp_path / "tell", text)))
    notifying.notify(config, run_dir, "finished")
    assert "run.notify_command failed" in caplog.text
    assert why in caplog.text
    assert "told to the user" not in caplog.text
    assert ("told to the user" in run_dir.notify_log.read_text()) == ("told" in text)
    assert stat.S_IMODE(run_dir.notify_log.stat().st_mode) == 0o600


def test_a_run_whose_command_is_missing_ends_with_exit_code_0_and_its_labels(tmp_path: Path) -> None:
    done = submit(*STUB, f"run.root={tmp_path}", "run=mine", "run.notify_command=[no-such-command]")
    assert done.returncode == 0
    assert "note     run.notify_command: no-such-command is no command of this machine" in done.stdout
    assert "run.notify_command failed ([Errno 2]" in done.stderr
    assert len((tmp_path / "mine" / "labels.jsonl").read_text().splitlines()) == 8
    attempts = json.loads((tmp_path / "mine" / "provenance.json").read_text())["attempts"]
    assert attempts[-1]["end"] == "finished"


def test_it_inherits_the_environment_without_keys_and_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Path
) -> None:
    secrets = {"VLLM_API_KEY": "a", "OPENAI_API_KEY": "b", "HF_TOKEN": "hf_" + "x" * 30, "DB_PASSWORD": "c"}
    for name, value in {**secrets, "PLAIN": "hf_" + "y" * 30, "MAILTO": "me@site"}.items():
        monkeypatch.setenv(name, value)
    config, run_dir = config_of(tmp_path, str(command))
    notifying.notify(config, run_dir, "failed")
    lines = (tmp_path / "environment").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    assert not given.keys() & {*secrets, "PLAIN"}
    assert (given["MAILTO"], given["PATH"], given["ICM_OUTCOME"]) == ("me@site", os.environ["PATH"], "failed")


def test_nothing_is_called_and_no_file_is_made_without_the_setting(tmp_path: Path) -> None:
    config, run_dir = config_of(tmp_path)
    notifying.notify(config, run_dir, "finished")
    assert not run_dir.notify_log.exists()


def test_a_secret_in_the_command_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.notify_command\[1\]: it is a secret"):
        loading.load(["run.notify_command=[curl,'Authorization: Bearer 0123456789abcdef']"])


def test_the_command_does_not_decide_labels(tmp_path: Path) -> None:
    plain, other = (loading.load([*STUB, *words]) for words in ([], ["run.notify_command=[true]"]))
    assert result_settings(plain) == result_settings(other)


class Ended(BaseException):
    """Stands for the end of the process by submitit after a requeue."""


def end(*_: object) -> None:
    raise Ended


def refuse(*_: object) -> None:
    raise ClusterError("refused")


Told = Callable[..., dict[str, Any]]


def raising(error: Exception, number: int | None = None) -> Told:
    """Return a drive that ends by an error, after a signal if there is one."""

    def drive(*_: object, received: list[int], **__: object) -> dict[str, Any]:
        received += [] if number is None else [number]
        raise error

    return drive


INTERRUPTED = raising(Interrupted(), signal.SIGUSR2)
CANCELLED = raising(Interrupted(), signal.SIGTERM)
JOBS: dict[str, tuple[Told, str, Callable[..., None], list[str]]] = {
    "finished": (lambda *_, **__: {}, "requeue", end, ["finished"]),
    "failed": (raising(ServerError("away")), "requeue", end, ["failed"]),
    "failed by a bug": (raising(KeyError("x")), "requeue", end, ["failed"]),
    "requeued": (INTERRUPTED, "requeue", end, []),
    "not requeued": (INTERRUPTED, "requeue", refuse, ["stopped"]),
    "resubmitted": (INTERRUPTED, "resubmit", end, []),
    "stopped": (INTERRUPTED, "stop", end, ["stopped"]),
    "cancelled": (CANCELLED, "requeue", end, ["stopped"]),
}


@pytest.mark.parametrize("case", JOBS)
def test_a_job_calls_the_command_only_if_the_run_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Path, case: str
) -> None:
    drive, on_preempt, submitits, outcomes = JOBS[case]
    config, run_dir = config_of(tmp_path, str(command))
    config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, on_preempt=on_preempt))
    run_dir.config.write_text(loading.to_yaml(config))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(submission, "drive", drive)
    monkeypatch.setattr(submission, "write_report", lambda *_: None)
    monkeypatch.setattr(submission.DriverJob, "_resubmit", lambda *_: "8")
    monkeypatch.setattr(scheduler, "is_to_go_on", lambda _: False)
    monkeypatch.setattr(submission, "ENDED_WITHIN_S", 0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR2, submitits)
    root = logging.getLogger()
    kept = root.handlers[:]
    try:
        submission.DriverJob(str(run_dir.path))()
    except (Ended, ClusterError, ServerError, KeyError):
        pass
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        root.handlers[:] = kept
    assert called(command) == [f"{outcome} {run_dir.path}" for outcome in outcomes]
