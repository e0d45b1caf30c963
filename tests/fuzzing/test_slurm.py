"""What Slurm's commands print, spoilt in many ways: the components of a job, or one error."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc import scheduler
from icm_hpc.errors import SchedulerError
from icm_hpc.monitoring import state, table
from icm_hpc.monitoring.slurm import Once
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scheduler import slurm
from tests.fuzzing.mutations import accepted, damaged, fuzzed

SQUEUE = b"7+0|RUNNING|n1\n7+1|PENDING|(Priority)\n8|COMPLETING|n[01-03]\n"
SACCT = b"7+0|CANCELLED by 0|n1|0:15|0:0\n7+1|NODE_FAIL|n2|1:0|9:0\n8|COMPLETED|n3|0:0|\n"
SCONTROL = b"JobId=7 HetJobId=7\n   JobState=PREEMPTED Reason=None PreemptTime=2025-01-01T00:00:00\n"
SBATCH = b"sbatch: warning: x\nSubmitted batch job 7 on cluster big\n"


def printing(monkeypatch: pytest.MonkeyPatch, code: int, **printed: bytes) -> None:
    """Have each command print what is given, as `subprocess` decodes it."""

    def run(*argv: str) -> "subprocess.CompletedProcess[str]":
        text = printed.get(argv[0], b"").decode(errors="replace")
        return subprocess.CompletedProcess(argv, code, text, text if code else "")

    monkeypatch.setattr(slurm, "run", run)


def require_components(found: object) -> None:
    """Fail unless these are components."""
    assert isinstance(found, list)
    assert all(isinstance(one, scheduler.Component) and isinstance(one.state, str) for one in found)


@given(
    squeue=st.just(SQUEUE).flatmap(damaged) | st.binary(max_size=30),
    sacct=st.just(SACCT).flatmap(damaged) | st.binary(max_size=30),
    scontrol=st.just(SCONTROL).flatmap(damaged),
    code=st.sampled_from([0, 0, 0, 1, 255, -9]),
)
@fuzzed(150)
def test_what_slurm_prints_is_a_state_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, squeue: bytes, sacct: bytes, scontrol: bytes, code: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        printing(patch, code, squeue=squeue, sacct=sacct, scontrol=scontrol)
        for job in ("7", "8"):
            queued = accepted(lambda job=job: scheduler.queued(job))  # type: ignore[misc]
            require_components([] if queued is None else queued)
            require_components(scheduler.accounted(job))
            assert accepted(lambda job=job: scheduler.is_to_go_on(job)) in (True, False, None)  # type: ignore[misc]
        once = Once([("7", None), ("8", "big")])
        for job, cluster in (("7", None), ("8", "big")):
            accepted(lambda job=job, cluster=cluster: once.queued(job, cluster))  # type: ignore[misc]
            require_components(once.accounted(job, cluster))
        shown = state.readable_status(run_of_job(tmp_path_factory), scheduler)
        assert table.lines([shown]).plain.count("\n") == 1


def run_of_job(factory: pytest.TempPathFactory) -> RunDir:
    """Return a run's folder whose job is 7."""
    folder = factory.getbasetemp() / "of-job"
    if not folder.exists():
        (folder / "submitit").mkdir(parents=True)
        (folder / "config.yaml").write_text("format: 4\n")
        (folder / "submitit" / "7_submitted.pkl").touch()
    return RunDir(folder)


@given(printed=st.just(SBATCH).flatmap(damaged) | st.binary(max_size=40), code=st.sampled_from([0, 0, 1]))
@fuzzed(200)
def test_what_sbatch_prints_names_a_job_or_is_one_error(
    tmp_path_factory: pytest.TempPathFactory, printed: bytes, code: int
) -> None:
    text = printed.decode(errors="replace")
    found = scheduler.id_of(text)
    assert found is None or (found[0].isascii() and found[0].isdigit())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "sbatch", lambda _script: subprocess.CompletedProcess([], code, text, text))
        submitted = accepted(lambda: scheduler.submit(Path("/x"), "name"), on_one_line=False)
    assert submitted is None or (submitted == found and submitted[0] in text)


@given(
    names=st.lists(
        st.sampled_from(
            [
                "7_submitted.pkl",
                "²_submitted.pkl",
                "a_submitted.pkl",
                "_submitted.pkl",
                "12_0_submitted.pkl",
                "٣_submitted.pkl",
                "9" * 30 + "_submitted.pkl",
            ]
        )
    )
)
@fuzzed(50)
def test_any_names_of_files_have_a_newest_job_or_none(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("submitit")
    for name in names:
        (folder / name).touch()
    job = scheduler.newest(folder)
    assert job is None or job.isdigit()


def test_a_state_of_spaces_alone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    printing(monkeypatch, 0, sacct=b"7|  |n1|0:0|0:0\n")
    assert scheduler.accounted("7") == []


def test_a_failed_command_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    printing(monkeypatch, 1, squeue=b"slurm_load_jobs error:\nUnable\n")
    with pytest.raises(SchedulerError, match="error: Unable"):
        scheduler.queued("7")
