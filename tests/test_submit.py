"""The command: what it refuses, and with which words; what it prints; a whole local run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def submit(*arguments: object, command: str = "submit") -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does."""
    argv = [sys.executable, "-m", f"icm_hpc.{command}", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def row(**changes: object) -> str:
    """Return a line of a claims file."""
    return json.dumps({"question": "Q?", "choice": "C.", "label": 1, "consistency_id": 1, **changes})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=405b"], "model=405b: no such preset; did you mean 405B?"),
        (["search.step=3"], "search.step: no such key (in the command line); did you mean search.steps?"),
        (["search.steps=many"], "search.steps=many: expected a whole number in decimal digits"),
        (["search.alpha=-1"], "search.alpha=-1.0: 0 or more"),
        (["cluster=slrm"], "cluster=slrm: no such preset; did you mean slurm?"),
        (["task.name=revews"], "task.name=revews: no such task"),
        (["task=claims"], "task=claims requires data: task.data=FILE"),
        (["task=claims", "task.data=nowhere.jsonl"], "task.data=nowhere.jsonl: there is no such file"),
        (["steps"], "'steps' is not a setting: write key=value"),
        (["--dry-run"], "; did you mean dry_run=true?"),
        (["dry_run=True"], "dry_run=True: one of true, false"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_with_the_remedy(arguments: list[str], message: str) -> None:
    refused = submit("model=stub", *arguments)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([row(), row(choice=None)], "line 2: choice is null"),
        ([row(), "{", row()], "line 2: is not JSON"),
        ([row(id="x"), row(id="x")], "the id 'x' occurs twice"),
        ([row(), row(choice="half \ud83d")], "line 2: choice holds \\ud83d, half of a surrogate pair"),
    ],
)
def test_data_that_cannot_be_used_is_refused_by_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    data = tmp_path / "claims.jsonl"
    data.write_text("\n".join(lines))
    refused = submit("model=stub", "task=claims", f"task.data={data}", f"run.root={tmp_path}")
    assert refused.returncode == 1
    assert message in refused.stderr
    assert sorted(tmp_path.iterdir()) == [data]


def test_a_local_run_ends_with_a_summary_and_labels(tmp_path: Path) -> None:
    done = submit("model=stub", "task.limit=12", "search.steps=20", f"run.root={tmp_path}", "run=mine")
    assert done.returncode == 0, done.stderr
    for words in (
        "driver.log",
        "icm_hpc.resume run=mine",
        "cancel",
        "12 (",
        "energy",
        "agreement with gold",
        "labels.jsonl",
        "report.html",
    ):
        assert words in done.stdout
    assert len((tmp_path / "mine" / "labels.jsonl").read_text().splitlines()) == 12


def test_a_run_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    settings = ("model=stub", "task.limit=12", "search.steps=5", f"run.root={tmp_path}", "run=mine")
    assert submit(*settings).returncode == 0
    refused = submit(*settings, "search.alpha=9")
    assert refused.returncode == 1
    assert "belongs to a run of another configuration (search.alpha: 30.0 there, 9.0 here)" in refused.stderr


def test_resume_goes_on_with_the_runs_own_settings(tmp_path: Path) -> None:
    settings = ("model=stub", "task.limit=12", f"run.root={tmp_path}", "run=mine")
    assert submit(*settings, "search.steps=5").returncode == 0
    done = submit("run=mine", f"run.root={tmp_path}", "search.steps=9", command="resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "mine" / "summary.json").read_text())["steps"] == 9


def test_all_that_a_run_makes_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    assert submit("model=stub", "task.limit=12", f"run.root={tmp_path}", "run=mine", "search.steps=5").returncode == 0
    made = [tmp_path / "mine", *(tmp_path / "mine").rglob("*")]
    assert len(made) > 10
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_resume_of_an_unknown_run_says_where_it_looked(tmp_path: Path) -> None:
    refused = submit("run=none", f"run.root={tmp_path}", command="resume")
    assert refused.returncode == 1
    assert f"there is no run none in {tmp_path}: name one with run=NAME" in refused.stderr


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("evaluate", ["run=x", "json=yes"], "json=yes: one of true, false"),
        ("status", ["watch=1"], "watch=1: one of true, false"),
        ("plan", ["json=True"], "json=True: one of true, false"),
        ("compare", ["runs=x", "overwrite=yes"], "overwrite=yes: one of true, false"),
        ("report", ["run=x", "promt=3"], "promt: no such key (in the command line); did you mean prompt?"),
        ("evaluate", ["run=x", "jsn=true"], "did you mean json?"),
        ("submit", ["dryrun=true"], "did you mean dry_run?"),
    ],
)
def test_an_argument_of_a_command_is_refused_with_the_one_that_was_meant(
    command: str, words: list[str], message: str
) -> None:
    refused = submit(*words, command=command)
    assert refused.returncode == 1
    assert message in refused.stderr


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_a_command_without_a_run_says_how_to_name_one(command: str, tmp_path: Path) -> None:
    refused = submit(f"run.root={tmp_path}", command=command)
    assert refused.returncode == 1
    assert "which run? Write run=NAME; python -m icm_hpc.status lists them" in refused.stderr


def test_dry_run_prints_the_script_and_makes_nothing(tmp_path: Path) -> None:
    printed = submit("model=405B", "cluster=slurm", "dry_run=true", f"run.root={tmp_path}/a b", "cluster.account=it's")
    assert printed.returncode == 0, printed.stderr
    assert "#SBATCH hetjob" in printed.stdout
    assert "#SBATCH --gres=gpu:8" in printed.stdout
    assert "@{" not in printed.stdout
    assert list(tmp_path.iterdir()) == []
    syntax = subprocess.run(["bash", "-n"], input=printed.stdout, text=True, capture_output=True, check=False)
    assert syntax.stderr == ""


def test_resume_with_dry_run_starts_nothing(tmp_path: Path) -> None:
    assert submit("model=stub", "task.limit=12", f"run.root={tmp_path}", "run=mine", "search.steps=5").returncode == 0
    before = (tmp_path / "mine" / "summary.json").read_text()
    done = submit("run=mine", f"run.root={tmp_path}", "search.steps=9", "dry_run=true", command="resume")
    assert done.stdout.startswith("#!/bin/bash")
    assert (tmp_path / "mine" / "summary.json").read_text() == before


def test_a_moved_run_goes_on_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    arguments = ("model=stub", "task.limit=12", f"run.root={tmp_path}/old", "run=mine", "search.steps=5")
    assert submit(*arguments).returncode == 0
    (tmp_path / "old").rename(tmp_path / "new")
    done = submit("run=mine", f"run.root={tmp_path}/new", "search.steps=9", command="resume")
    assert done.returncode == 0, done.stderr
    assert "resuming after step 5" in (tmp_path / "new" / "mine" / "driver.log").read_text()
    assert not (tmp_path / "old").exists()
