"""A report that fails does no harm to its run."""

import json
import logging
import os
import sys
from pathlib import Path

import pytest

from icm_hpc.jobs import reporting
from icm_hpc.rundir.folder import RunDir
from tests.exports import runs
from tests.test_submit import submit


def test_the_report_is_written_in_a_process_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir = runs.finished(tmp_path, "task.limit=8")
    caplog.clear()  # what the run itself has warned of
    reporting.write_report(run_dir)
    assert run_dir.report.read_text().startswith("<!DOCTYPE html>")
    assert caplog.text == ""


def test_a_failure_is_logged_with_the_command_that_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        reporting.write_report(RunDir(tmp_path / "none"))
    assert f"report.html is not written (icm_hpc: there is no run none in {tmp_path}" in caplog.text
    assert f"python -m icm_hpc.report run=none run.root={tmp_path}" in caplog.text


def test_a_report_that_takes_too_long_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reporting.write_report(runs.finished(tmp_path, "task.limit=8"), within_s=0.01)
    assert "not done within 0.01 s" in caplog.text


def test_an_error_that_is_not_ours_is_named_by_its_type_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = runs.finished(tmp_path, "task.limit=8")
    (tmp_path / "numpy.py").write_text("raise KeyError('secret text of a row')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    reporting.write_report(run_dir)
    assert "exit code 1, KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_a_run_whose_report_fails_is_finished_and_has_its_labels(tmp_path: Path) -> None:
    (tmp_path / "mine" / "report.html").mkdir(parents=True)
    done = submit("model=stub", "task.limit=8", f"run.root={tmp_path}", "run=mine")
    assert done.returncode == 0, done.stderr
    assert "report.html is not written" in done.stderr
    assert len((tmp_path / "mine" / "labels.jsonl").read_text().splitlines()) == 8
    attempts = json.loads((tmp_path / "mine" / "provenance.json").read_text())["attempts"]
    assert attempts[-1]["end"] == "finished"
