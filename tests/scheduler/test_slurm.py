"""What is handed to sbatch, what its wrappers print, and what is made of a Slurm that does not answer."""

import json
import shlex
from pathlib import Path

import pytest

from icm_hpc import scheduler
from icm_hpc.errors import SchedulerError
from icm_hpc.jobs import submission
from icm_hpc.jobs.submission import HetInfoWatcher
from tests.external import submit
from tests.fake_slurm import FakeSlurm, made

AWAY = "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2\nexit 1\n"
EXPIRED = "#!/bin/sh\necho 'slurm_load_jobs error: Protocol authentication error' >&2\nexit 1\n"  # of a token or a key
SILENT = {"away": (AWAY, "Unable to contact slurm controller"), "expired": (EXPIRED, "Protocol authentication error")}
FORGOTTEN = "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n"
EMPTY = "#!/bin/sh\nexit 0\n"
# A job inside component 0 of heterogeneous job 77, as Slurm 22.05 shows it, and what MPI and submitit add.
INSIDE = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOBID": "77",
    "SLURM_JOB_ID_HET_GROUP_0": "77",
    "SLURM_JOB_ID_HET_GROUP_1": "78",
    "SLURM_JOB_ID_PACK_GROUP_0": "77",
    "SLURM_HET_SIZE": "2",
    "SLURM_NTASKS": "1",
    "SLURM_MEM_PER_NODE": "100",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_CONF": "/site/slurm.conf",
    "SLURM_CLUSTERS": "big",
    "SLURMD_NODENAME": "n1",
    "SRUN_DEBUG": "3",
    "SBATCH_CPU_BIND_TYPE": "none",
    "SUBMITIT_EXECUTOR": "hetslurm",
    "PMI_RANK": "0",
    "PMIX_RANK": "0",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_MCA_btl": "self",
    "CUDA_VISIBLE_DEVICES": "0",
    "ROCR_VISIBLE_DEVICES": "0",
    "ENVIRONMENT": "BATCH",
    "HF_HOME": "/shared/hf",
    "VLLM_API_KEY": "sk-secret",
}
OUTSIDE = {"SLURM_CONF", "SLURM_CLUSTERS", "OMPI_MCA_btl", "HF_HOME"}
QUEUED = ("model=stub", "task.limit=12", "cluster=slurm", "run=mine")


@pytest.fixture
def fake(tmp_path: Path) -> FakeSlurm:
    """Return Slurm's commands of a test."""
    return made(tmp_path / "bin")


@pytest.mark.parametrize(
    ("printed", "job", "on"),
    [
        ("Submitted batch job 4242\n", "4242", None),
        ("Submitted batch job 4242 on cluster big\n", "4242", "big"),
        ("sbatch: Submitted batch job 4242\n", "4242", None),
        ("4242\n", "4242", None),
        ("4242;big\n", "4242", "big"),
        ("Welcome! This is job 5 of 10 today.\nSubmitted batch job 4242\n", "4242", None),
        ("Your last one was: Submitted batch job 5\nSubmitted batch job 4242\n", "4242", None),
        ("Submitted batch job 4242\nThat was job 5 of 10; you have 17\n", "4242", None),
        ("Submitted batch job 4242\nquota: Submitted batch job 5 of 10\n", "4242", None),
        ("3 of 10 nodes are free\n4242\n", "4242", None),
        ("INFO Submitted batch job 4242 to partition gpu\n", "4242", None),
    ],
)
def test_the_id_of_a_job_is_found_in_what_sbatch_and_its_wrappers_print(printed: str, job: str, on: str | None) -> None:
    assert scheduler.id_of(printed) == (job, on)


@pytest.mark.parametrize("printed", ["Welcome! This is job 5 of 10 today.\n", "17\n4242\n", ""])
def test_no_id_is_guessed(printed: str) -> None:
    assert scheduler.id_of(printed) is None


def test_a_job_on_another_cluster_is_asked_about_and_cancelled_there(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.sbatch("Submitted batch job 4242 on cluster big")
    root = f"run.root={tmp_path}/runs"
    done = submit(*QUEUED, root, **fake.variables)
    assert "cancel   scancel 4242 --clusters=big\n" in done.stdout, done.stderr
    fake.command("squeue", '#!/bin/sh\ncase "$*" in *--clusters=big*) echo "4242|PENDING|(Priority)";; esac\n')
    assert json.loads(submit(root, "json=true", module="status", **fake.variables).stdout)["driver"] == "PENDING"
    assert "is in the queue (PENDING)" in submit(*QUEUED, root, **fake.variables).stderr


@pytest.mark.parametrize("printed", ["4242", "4242;big", "job 5 of 10\nSubmitted batch job 4242"])
def test_a_run_is_queued_by_a_wrapper_where_there_is_neither_srun_nor_squeue(
    fake: FakeSlurm, tmp_path: Path, printed: str
) -> None:
    fake.sbatch(printed)
    done = submit(*QUEUED, f"run.root={tmp_path}/runs", **fake.alone)
    assert done.returncode == 0, done.stderr
    assert "job      4242\n" in done.stdout
    assert "cancel   scancel 4242" in done.stdout
    assert (tmp_path / "runs" / "mine" / "submitit" / "4242_submitted.pkl").exists()


def test_words_without_a_job_id_are_quoted_with_how_to_look_for_the_job(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.sbatch("Thank you for job 5 of 10.")
    refused = submit(*QUEUED, f"run.root={tmp_path}/runs", **fake.alone)
    assert refused.returncode == 1
    assert "'Thank you for job 5 of 10.': a job may have been queued" in refused.stderr
    assert "squeue --me --name=icm-mine" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "scancel 5" not in refused.stdout + refused.stderr


def test_a_wrapper_that_refuses_on_its_standard_output_is_quoted(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.sbatch("No budget left in project X.", code=3)
    refused = submit(*QUEUED, f"run.root={tmp_path}/runs", **fake.alone)
    assert "sbatch refused the job (exit code 3): No budget left in project X." in refused.stderr


@pytest.mark.parametrize("kind", ["tested", "queued"])
def test_a_job_submitted_from_inside_another_inherits_nothing_of_it(fake: FakeSlurm, tmp_path: Path, kind: str) -> None:
    fake.sbatch("Submitted batch job 4242")
    done = submit(*QUEUED, f"run.root={tmp_path}/runs", **fake.variables, **INSIDE)
    assert "job      4242" in done.stdout, done.stderr
    assert INSIDE.keys() & fake.environment(kind).keys() == OUTSIDE


def test_a_resumed_run_is_queued_in_a_clean_environment(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.sbatch("Submitted batch job 4242")
    fake.command("squeue", FORGOTTEN)
    fake.command("sacct", EMPTY)
    root = f"run.root={tmp_path}/runs"
    assert submit(*QUEUED, root, **fake.variables).returncode == 0
    fake.sbatch("Submitted batch job 4343")
    done = submit("run=mine", root, module="resume", **fake.variables, **INSIDE)
    assert "job      4343" in done.stdout, done.stderr
    assert done.stdout.startswith("cluster  slurm: cluster=slurm says so\n")
    assert INSIDE.keys() & fake.environment().keys() == OUTSIDE


def test_sbatch_variables_answer_for_what_the_settings_leave_out_and_for_nothing_else() -> None:
    theirs = {
        "SBATCH_ACCOUNT": "mine",
        "SBATCH_PARTITION": "short",
        "SBATCH_QOS": "low",
        "SBATCH_MEM_PER_CPU": "1G",
        "SBATCH_GPUS": "8",
        "SBATCH_SIGNAL": "TERM@5",
        "SBATCH_WAIT": "1",
        "SBATCH_ARRAY_INX": "0-3",
    }
    script = "#!/bin/bash\n#SBATCH --account=theirs\n#SBATCH '--partition=gpu'\n"
    assert scheduler.outside_environment(theirs, script) == {"SBATCH_QOS": "low"}
    kept = scheduler.outside_environment(theirs, "#!/bin/bash\n")
    assert set(kept) == {"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"}


def test_outside_of_a_job_a_sites_own_settings_of_srun_stay() -> None:
    site = {"SLURM_MPI_TYPE": "pmix", "SLURM_CPU_BIND": "none", "CUDA_VISIBLE_DEVICES": "1", "PMIX_MCA_gds": "hash"}
    assert scheduler.outside_environment(site) == site


def test_the_own_job_is_the_leader_of_ours_and_never_of_the_one_that_we_were_submitted_from() -> None:
    assert scheduler.own_id(INSIDE) == "77"
    assert scheduler.own_id({**INSIDE, "SLURM_JOB_ID": "78"}) == "77", "a step of component 1"
    assert scheduler.own_id({**INSIDE, "SLURM_JOB_ID": "90"}) == "90", "a plain job that inherited the variables"
    assert scheduler.own_id({"SLURM_JOB_ID": "5"}) == "5"


@pytest.mark.parametrize("why", SILENT)
def test_a_controller_that_does_not_answer_is_no_empty_queue(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setenv("PATH", fake.variables["PATH"])
    command, words = SILENT[why]
    for name in ("squeue", "scontrol", "sacct"):
        fake.command(name, command)
    with pytest.raises(SchedulerError, match=words):
        scheduler.queued("5")
    with pytest.raises(SchedulerError, match=words):
        scheduler.is_to_go_on("5")
    assert not HetInfoWatcher().is_done("5", mode="force"), "whoever waits for the run goes on waiting"
    fake.command("squeue", FORGOTTEN)
    assert scheduler.queued("5") == []
    fake.command("squeue", EMPTY)
    assert scheduler.queued("5") == []


def test_a_persons_filters_do_not_hide_a_job(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", fake.variables["PATH"])
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    fake.command("squeue", '#!/bin/sh\n[ -n "$SQUEUE_STATES" ] || echo "5|PENDING|(Priority)"\n')
    assert [component.state for component in scheduler.queued("5")] == ["PENDING"]


def test_a_job_that_lost_its_node_has_not_ended_while_the_controller_is_away(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", fake.variables["PATH"])
    fake.command("sacct", "#!/bin/sh\necho 'JobID|State|NodeList'\necho '5|NODE_FAIL|n1'\n")
    fake.command("squeue", AWAY)
    assert not HetInfoWatcher().is_done("5", mode="force")
    fake.command("squeue", FORGOTTEN)
    assert HetInfoWatcher().is_done("5", mode="force")


@pytest.mark.parametrize("why", SILENT)
def test_a_run_whose_job_cannot_be_asked_about_is_unknown_and_is_not_resumed(
    fake: FakeSlurm, tmp_path: Path, why: str
) -> None:
    fake.sbatch("Submitted batch job 4242")
    root = f"run.root={tmp_path}/runs"
    assert submit(*QUEUED, root, **fake.variables).returncode == 0
    command, expected = SILENT[why]
    fake.command("squeue", command)
    row = json.loads(submit(root, "json=true", module="status", **fake.variables).stdout)
    assert row["driver"].startswith(f"unknown: squeue: slurm_load_jobs error: {expected}")
    for module, words in (("resume", ("run=mine", root)), ("submit", (*QUEUED, root))):
        refused = submit(*words, module=module, **fake.variables)
        assert refused.returncode == 1
        assert "whether job 4242" in refused.stderr
        assert f"is not known (squeue: slurm_load_jobs error: {expected}" in refused.stderr
    (fake.folder / "squeue").unlink()
    done = submit("run=mine", root, module="resume", **fake.alone)
    assert done.returncode == 0, done.stderr
    assert "note     squeue is not on the PATH: whether job 4242" in done.stdout


@pytest.mark.parametrize(
    ("line", "driver", "exit_code", "shown"),
    [
        ("5|FAILED|n1|70:0|1:0", "FAILED", "1:0", "FAILED (exit code 1)"),
        ("5|FAILED|n1|1:0|0:0", "FAILED", "1:0", "FAILED (exit code 1)"),
        ("5|FAILED|n1|0:53|0:0", "FAILED", "0:53", "FAILED (signal 53)"),
        ("5|CANCELLED by 0|n1|0:0|0:0", "CANCELLED", None, "CANCELLED "),
        ("5|COMPLETED|n1|0:0|0:0", "COMPLETED", None, "COMPLETED "),
    ],
)
def test_the_exit_code_of_a_driver_that_failed_is_shown(
    fake: FakeSlurm, tmp_path: Path, line: str, driver: str, *, exit_code: str | None, shown: str
) -> None:
    fake.sbatch("Submitted batch job 5")
    root = f"run.root={tmp_path}/runs"
    assert submit(*QUEUED, root, **fake.variables).returncode == 0
    fake.command("squeue", FORGOTTEN)
    fake.command("sacct", f"#!/bin/sh\necho '{line}'\n")
    row = json.loads(submit(root, "json=true", module="status", **fake.variables).stdout)
    assert (row["driver"], row["exit"]) == (driver, exit_code)
    assert shown in submit(root, module="status", **fake.variables).stdout


def test_commands_that_are_printed_can_be_pasted_whatever_the_folder_is_called(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.sbatch("Submitted batch job 4242")
    root = tmp_path / "a 'b' $HOME [bold]x"
    done = submit(*QUEUED, f"run.root={root}", **fake.variables)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert shlex.split(printed["watch"]) == ["tail", "-F", f"{root}/mine/driver.log"]
    assert shlex.split(printed["status"])[3:] == ["run=mine", f"run.root={root}"]
    assert shlex.split(printed["resume"])[3:] == ["run=mine", f"run.root={root}"]
    assert printed["run"] == f"{root}/mine"


@pytest.mark.parametrize("why", SILENT)
def test_a_driver_told_to_stop_asks_again_until_slurm_says_why_and_at_last_leaves_it_to_slurm(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setenv("PATH", fake.variables["PATH"])
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    once = fake.folder / "asked"
    fake.command(
        "scontrol",
        f"#!/bin/sh\nif [ ! -e {once} ]; then touch {once}; exit 1; fi\necho 'JobState=PREEMPTED PreemptTime=None'\n",
    )
    assert submission._is_to_go_on()
    fake.command("scontrol", SILENT[why][0])
    monkeypatch.setattr(submission, "TRY_FOR_S", 0)
    assert not submission._is_to_go_on()


def test_a_submission_whose_job_is_not_known_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def submitted() -> None:
        tries.append(1)
        raise scheduler.UnknownJob("sbatch printed nothing")

    with pytest.raises(scheduler.UnknownJob):
        submission._until_done(submitted, "no job was queued")
    assert len(tries) == 1


def test_a_job_that_no_accounting_knows_has_ended_once_it_has_left_the_queue(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", fake.variables["PATH"])
    fake.command("sacct", "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    fake.command("squeue", "#!/bin/sh\necho '5+0|RUNNING|n1'\n")
    assert not HetInfoWatcher().is_done("5", mode="force")
    fake.command("squeue", AWAY)
    assert not HetInfoWatcher().is_done("5", mode="force")
    fake.command("squeue", FORGOTTEN)
    assert HetInfoWatcher().is_done("5", mode="force")


@pytest.mark.parametrize(
    ("names", "job"),
    [
        ([], None),
        (["9_submitted.pkl", "12_submitted.pkl", "12_0_log.out"], "12"),
        (["9_submitted.pkl", "12_submitted.pkl.save_tmp"], "12"),
        (["x_submitted.pkl", "²_submitted.pkl", "12_submitted.pkl.bak"], None),
    ],
)
def test_a_job_that_is_being_requeued_is_the_newest_all_the_same(
    tmp_path: Path, names: list[str], job: str | None
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert scheduler.newest(tmp_path) == job
