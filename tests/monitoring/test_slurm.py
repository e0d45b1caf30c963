"""Questions to Slurm: few, for all runs at once, and never waited for."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from icm_hpc import scheduler
from icm_hpc.errors import SchedulerError
from icm_hpc.monitoring import slurm
from icm_hpc.scheduler import Component
from tests import fake_slurm

RUNNING, DONE = Component("RUNNING", "n1"), Component("COMPLETED", "n1", "0:0")
Jobs = dict[str, list[Component]]


class Asked:
    """Stands for squeue and sacct, and notes each question."""

    def __init__(self, queue: Jobs, accounts: Jobs | None = None) -> None:
        self.queue, self.accounts = queue, accounts or {}
        self.questions: list[tuple[str, list[str]]] = []
        self.wait: Callable[[], object] = lambda: None

    def all_queued(self, jobs: list[str], cluster: str | None) -> Jobs:
        self.questions.append(("squeue", jobs))
        self.wait()
        return {job: found for job, found in self.queue.items() if job in jobs}

    def all_accounted(self, jobs: list[str], cluster: str | None) -> Jobs:
        self.questions.append(("sacct", jobs))
        return self.accounts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr("icm_hpc.monitoring.slurm.time.monotonic", lambda: now[0])
    return now


def asked(monkeypatch: pytest.MonkeyPatch, queue: Jobs, accounts: Jobs | None = None) -> Asked:
    found = Asked(queue, accounts)
    monkeypatch.setattr(scheduler, "all_queued", found.all_queued)
    monkeypatch.setattr(scheduler, "all_accounted", found.all_accounted)
    return found


def refresh(seldom: slurm.Seldom, *jobs: str) -> None:
    """Ask, and wait for the answer, which the screen does not."""
    seldom.refresh([(job, None) for job in jobs])
    if seldom._asking:
        seldom._asking.join()


def test_all_jobs_are_one_question_and_seldom_asked(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    found = asked(monkeypatch, {"1": [RUNNING], "2": [RUNNING]})
    seldom = slurm.Seldom()
    for clock[0] in (0, 2, 4, 9):
        refresh(seldom, "1", "2")
    assert found.questions == [("squeue", ["1", "2"])]
    assert seldom.queued("2") == [RUNNING]
    clock[0] = 10
    refresh(seldom, "1", "2")
    assert len(found.questions) == 2


def test_a_job_that_has_ended_is_not_asked_about_for_long(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    found = asked(monkeypatch, {"1": [RUNNING]}, {"2": [DONE]})
    seldom = slurm.Seldom()
    for clock[0] in (0, 10, 20):
        refresh(seldom, "1", "2")
    assert found.questions == [("squeue", ["1", "2"]), ("sacct", ["2"]), ("squeue", ["1"]), ("squeue", ["1"])]
    assert (seldom.queued("2"), seldom.accounted("2")) == ([], [DONE])
    clock[0] = 301
    refresh(seldom, "1", "2")
    assert found.questions[-2] == ("squeue", ["1", "2"])


def test_a_job_whose_accounting_is_late_is_asked_about_again(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    found = asked(monkeypatch, {}, {"1": [RUNNING]})
    seldom = slurm.Seldom()
    for clock[0] in (0, 10):
        refresh(seldom, "1")
    assert found.questions == [("squeue", ["1"]), ("sacct", ["1"])] * 2


def test_a_controller_that_is_away_is_asked_once_a_round_and_its_jobs_are_unknown(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    found = asked(monkeypatch, {"1": [RUNNING]})

    def away() -> None:
        raise SchedulerError("away")

    found.wait = away
    seldom = slurm.Seldom()
    seldom.refresh([("1", None), ("2", "other")])
    assert seldom._asking
    seldom._asking.join()
    assert len(found.questions) == 1
    with pytest.raises(SchedulerError, match="away"):
        seldom.queued("1")
    found.wait = lambda: None
    clock[0] = 10
    refresh(seldom, "1")
    assert seldom.queued("1") == [RUNNING]


def test_the_screen_does_not_wait_for_an_answer_and_asks_no_second_time_meanwhile(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setattr(slurm, "FIRST_S", 0.0)
    found = asked(monkeypatch, {"1": [RUNNING]})
    answer = threading.Event()
    found.wait = answer.wait
    seldom = slurm.Seldom()
    for clock[0] in (0, 10, 20):
        seldom.refresh([("1", None)])
    with pytest.raises(SchedulerError, match="not asked yet"):
        seldom.queued("1")
    answer.set()
    assert seldom._asking
    seldom._asking.join()
    assert len(found.questions) == 1
    assert seldom.queued("1") == [RUNNING]


def test_one_status_asks_a_controller_that_is_away_once_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, {})

    def away() -> None:
        raise SchedulerError("away")

    found.wait = away
    asking = slurm.Once([("1", None), ("2", None), ("3", "other")])
    for job, cluster in (("1", None), ("2", None), ("3", "other")):
        with pytest.raises(SchedulerError):
            asking.queued(job, cluster)
    assert found.questions == [("squeue", ["1", "2"])]


def test_one_status_asks_once_a_cluster_whatever_the_number_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, {"7": [RUNNING]}, {"8": [DONE]})
    ids = [str(number) for number in range(1000)]
    asking = slurm.Once([*((job, None) for job in ids), ("7", "other")])
    states = {job: (asking.queued(job), asking.accounted(job)) for job in ids}
    assert (states["7"], states["8"], states["9"]) == (([RUNNING], []), ([], [DONE]), ([], []))
    assert asking.queued("7", "other") == [RUNNING]
    assert found.questions == [("squeue", ids), ("sacct", [job for job in ids if job != "7"]), ("squeue", ["7"])]


def test_answers_on_several_jobs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_slurm.made(tmp_path / "bin")
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    fake.command("squeue", "#!/bin/sh\nprintf '12+1|RUNNING|n2\\n12+0|RUNNING|n1\\n7|PENDING|(Priority)\\n'\n")
    fake.command("sacct", "#!/bin/sh\nprintf '8|FAILED|n1|1:0|0:0\\n9+0|CANCELLED by 0|n2|0:0|\\n8.batch||||\\n'\n")
    seldom = slurm.Seldom()
    seldom.refresh([(job, None) for job in ("12", "7", "8", "9")])
    assert seldom._asking
    seldom._asking.join()
    assert seldom.queued("12") == [Component("RUNNING", "n1"), Component("RUNNING", "n2")]
    assert seldom.queued("7") == [Component("PENDING", "(Priority)")]
    assert seldom.accounted("8") == [Component("FAILED", "n1", "1:0")]
    assert seldom.accounted("9") == [Component("CANCELLED", "n2", "0:0")]
