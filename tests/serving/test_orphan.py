"""A server component that hears nothing of its driver asks Slurm, and gives its nodes back only if the driver has none."""

import subprocess
from pathlib import Path

import pytest

from icm_hpc import scheduler
from icm_hpc.errors import SchedulerError
from icm_hpc.scheduler import slurm
from icm_hpc.serving import orphan


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A heterogeneous job whose driver has been silent for long; returns the commands that Slurm is given."""
    monkeypatch.setattr(orphan, "SILENT_S", 0.0)
    for name, value in {"JOB_ID": "12", "JOB_ID_HET_GROUP_0": "12", "JOB_ID_HET_GROUP_1": "13"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    given: list[tuple[str, ...]] = []

    def run(*argv: str) -> "subprocess.CompletedProcess[str]":
        given.append(argv)
        return subprocess.CompletedProcess(argv, 1, "", "Job is pending execution for job 12")

    monkeypatch.setattr(slurm, "run", run)
    return given


def states(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the job's components be in these states."""
    monkeypatch.setattr(scheduler, "queued", lambda _: [scheduler.Component(name, "") for name in names])


def test_nodes_are_given_back_while_the_driver_waits_for_one(
    requeued: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states(monkeypatch, "PENDING", "RUNNING")
    assert orphan.Watch(tmp_path / "driver.lock").gave_back()
    assert requeued == [("scontrol", "requeue", "12")]


@pytest.mark.parametrize("names", [("RUNNING", "RUNNING"), ("COMPLETING", "RUNNING"), ("PENDING", "PENDING"), ()])
def test_a_job_whose_driver_has_its_node_or_is_ending_is_left_alone(
    requeued: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    states(monkeypatch, *names)
    assert not orphan.Watch(tmp_path / "driver.lock").gave_back()
    assert requeued == []


@pytest.mark.parametrize(
    "trouble", [SchedulerError("away"), subprocess.TimeoutExpired("scontrol", 45), OSError("none")]
)
def test_a_slurm_that_does_not_answer_is_asked_again(
    requeued: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    states(monkeypatch, "PENDING", "RUNNING")
    answers, run = [trouble], slurm.run

    def at_first_not(*argv: str) -> "subprocess.CompletedProcess[str]":
        if answers:
            raise answers.pop()
        return run(*argv)

    monkeypatch.setattr(slurm, "run", at_first_not)
    watch = orphan.Watch(tmp_path / "driver.lock")
    assert not watch.gave_back()
    assert watch.gave_back()
