"""How a run comes into the queue of the real daemons: the literal command, from inside other jobs, and memory."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from icm_hpc import scheduler
from icm_hpc.rundir.folder import RunDir
from tests.cluster.daemons import Cluster, restart_controller
from tests.cluster.matrix import STUB_SLOW
from tests.cluster.processes import of_command, read
from tests.cluster.runs import SITE, Run, command, components, ended, icm, job_of, logs, submit, until
from tests.external import submit as run_command
from tests.fake_slurm import FakeSlurm

pytestmark = pytest.mark.cluster

# Two nodes of eight GPUs, as the package's own preset of this name; the stub stands in for its weights.
BIG = """\
model: {engine: stub, path: stub, max_model_len: 1000000, tensor_parallel_size: 8, pipeline_parallel_size: 2}
server: {cpus: 1, mem_gb: 1, start_timeout_s: 60}
"""
DEFAULTS = """\
cluster: {driver_partition: cpu, server_partition: gpu, driver_cpus: 1, driver_mem_gb: 1, time_min: 60}
task: {limit: 12}
search: {steps: 20}
run: {root: $ICM_TEST_ROOT/runs}
"""


@pytest.fixture
def site(slurm: Cluster, tmp_path: Path) -> Mapping[str, str]:
    """Return the environment of a user whose site has set its defaults and a preset 405B."""
    (tmp_path / "presets" / "model").mkdir(parents=True)
    (tmp_path / "presets" / "model" / "405B.yaml").write_text(BIG)
    (tmp_path / "defaults.yaml").write_text(DEFAULTS)
    return {
        "ICM_CONFIGS": str(tmp_path / "presets"),
        "ICM_DEFAULTS": str(tmp_path / "defaults.yaml"),
        "ICM_TEST_ROOT": str(tmp_path),
    }


def test_the_literal_command_is_a_job_over_two_nodes_that_labels(site: Mapping[str, str], tmp_path: Path) -> None:
    done = run_command("model=405B", **site)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first == "cluster  slurm: sbatch is on the PATH, and model=405B asks for 16 GPUs on 2 nodes"
    assert second == f"defaults {site['ICM_DEFAULTS']}"
    job = job_of(done.stdout)
    until(lambda: ended(job), "the end of the job")
    rows = components(job)
    (folder,) = (tmp_path / "runs").iterdir()
    assert [row["State"] for row in rows] == ["COMPLETED", "COMPLETED"], logs(folder)
    assert [row["NodeList"] for row in rows] == ["cpu1", "gpu[1-2]"]
    assert len(RunDir(folder).labels.read_text().splitlines()) == 12
    assert json.loads(run_command("json=true", module="status", **site).stdout)["driver"] == "finished"


def test_without_sbatch_the_literal_command_is_refused_with_one_that_works(
    site: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "presets" / "model" / "smol.yaml").write_text(
        "model: {engine: stub, path: stub, max_model_len: 100000}\nserver: {gpus_per_node: 0}\n"
    )
    (tmp_path / "bin").mkdir()
    without = FakeSlurm(tmp_path / "bin").alone
    refused = run_command("model=405B", **site, **without)
    assert refused.returncode == 1
    assert refused.stdout.startswith("cluster  local: sbatch is not on the PATH")
    words = shlex.split(refused.stderr.splitlines()[-1])[3:]
    assert words == ["model=smol"]
    done = run_command(*words, **site, **without)
    assert done.returncode == 0, done.stderr
    assert "12 (" in done.stdout


@pytest.mark.parametrize("by", ["sbatch", "srun", "het"])
def test_a_run_submitted_from_inside_another_job_inherits_nothing_and_requeues_itself(
    slurm: Cluster, tmp_path: Path, by: str
) -> None:
    words = (*STUB_SLOW, f"cluster={SITE}", f"run.root={tmp_path}", "run=inner")
    ours = shlex.join([sys.executable, "-m", "icm_hpc.submit", *words])
    script = tmp_path / "outer.sh"
    flags = {"het": "#SBATCH --partition=gpu --gres=gpu:2\n#SBATCH hetjob\n#SBATCH --partition=cpu --mem=50M\n"}
    step = {"sbatch": ours, "srun": f"srun {ours}", "het": f"srun --het-group=0 {ours}"}
    script.write_text(f"#!/bin/bash\n#SBATCH --mem=500M --output={tmp_path}/outer.out\n{flags.get(by, '')}{step[by]}\n")
    command("sbatch", "--wait", str(script))
    run = Run(tmp_path, "inner")
    assert run.job, (tmp_path / "outer.out").read_text()
    run.await_step(5)
    shown = command("scontrol", "show", "job", run.job)
    assert "CPUs/Task=1" in shown
    assert "Partition=cpu" in shown
    variables = dict(
        entry.split("=", 1) for entry in read(run.driver(), "environ").decode().split("\0") if "=" in entry
    )
    assert scheduler.own_id(variables) == run.job
    inner = {run.job, str(int(run.job) + 1)}
    named = {value for name, value in variables.items() if "JOB_ID" in name and name.startswith("SLURM_")}
    assert named <= inner
    batch = [pid for pid in of_command("bash") if f"SLURM_JOB_ID={run.job}".encode() in read(pid, "environ")]
    assert all(b"SUBMITIT_" not in read(pid, "environ") for pid in batch)
    command("scancel", "--signal=USR2", run.job)
    until(lambda: restarts_or_pending(run.job), "the requeue of the inner job")
    command("scancel", run.job)
    until(lambda: ended(run.job), "the end of the job")


def restarts_or_pending(job: str) -> bool:
    """Return whether a job was requeued."""
    shown = command("scontrol", "show", "job", job)
    return "Restarts=1" in shown or any(one.state in ("PENDING", "REQUEUED") for one in scheduler.queued(job))


@pytest.mark.parametrize(
    "memory",
    [
        ("server.mem_gb=null", "cluster.driver_mem_gb=null"),
        ("server.mem_gb=null",),
        ("cluster.driver_mem_gb=null",),
        ("server.mem_gb=null", "cluster.server_flags=[--mem-per-cpu=500M]"),
        ("cluster.server_flags=[--mem-per-gpu=500M]",),
        ("cluster.driver_flags=[--mem-per-cpu=500M]",),
        ("server.mem_gb=0", "cluster.driver_mem_gb=0"),
    ],
    ids=lambda words: " ".join(words),
)
@pytest.mark.parametrize("job", ["het", "single"])
def test_memory_that_is_not_stated_by_node_is_accepted(
    slurm: Cluster, tmp_path: Path, memory: tuple[str, ...], job: str
) -> None:
    one = ("cluster.driver_cpus=1", "server.cpus=1", f"cluster.job={job}")
    printed = submit(tmp_path, "run", "model=stub", *one, *memory, "dry_run=true").stdout
    tested = subprocess.run(["sbatch", "--test-only"], input=printed, text=True, capture_output=True, check=False)
    assert tested.returncode == 0, tested.stderr


def test_a_run_with_memory_by_cpu_labels_and_its_components_have_what_was_asked(slurm: Cluster, tmp_path: Path) -> None:
    memory = ("server.mem_gb=null", "cluster.server_flags=[--mem-per-cpu=300M]", "server.cpus=1")
    done = submit(tmp_path, "run", "model=stub", "task.limit=12", "search.steps=10", *memory, "wait=true")
    assert done.returncode == 0, done.stderr + logs(tmp_path / "run")
    shown = command("scontrol", "show", "job", job_of(done.stdout))
    assert "MinMemoryCPU=1G" in shown, "cluster.driver_mem_gb=1, on one CPU"
    assert "MinMemoryCPU=300M" in shown


def test_components_that_state_memory_by_cpu_and_by_node_both_start(slurm: Cluster, tmp_path: Path) -> None:
    memory = ("cluster.driver_flags=[--mem-per-cpu=500M]", "server.mem_gb=1", "server.cpus=1")
    done = submit(tmp_path, "run", "model=stub", "task.limit=12", "search.steps=10", *memory, "wait=true")
    assert done.returncode == 0, done.stderr + logs(tmp_path / "run")


def test_while_the_controller_is_away_a_job_is_unknown_and_its_run_is_neither_resumed_nor_submitted(
    slurm: Cluster, tmp_path: Path
) -> None:
    assert submit(tmp_path, "run", *STUB_SLOW, "search.steps=5000").returncode == 0
    run = Run(tmp_path, "run")
    run.await_step(5)
    away = {**os.environ, "SLURM_CONF": str(away_configuration(slurm, tmp_path))}
    argv = [sys.executable, "-m", "icm_hpc.status", f"run.root={tmp_path}", "json=true"]
    told = subprocess.run(argv, env=away, capture_output=True, text=True, check=False)
    row = json.loads(told.stdout)
    assert row["driver"].startswith("unknown: squeue: slurm_load_jobs error: Unable to contact slurm controller")
    argv = [sys.executable, "-m", "icm_hpc.resume", "run=run", f"run.root={tmp_path}"]
    refused = subprocess.run(argv, env=away, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"whether job {run.job} of {run.dir.path} is still in the queue is not known" in refused.stderr
    restart_controller(slurm, 0)
    row = json.loads(icm("status", f"run.root={tmp_path}", "json=true").stdout)
    assert row["driver"] == "RUNNING"
    command("scancel", run.job)
    until(lambda: ended(run.job), "the end of the job")


def away_configuration(cluster: Cluster, folder: Path) -> Path:
    """Return a configuration whose controller's port nobody listens to."""
    text = (cluster.folder / "etc" / "slurm.conf").read_text()
    path = folder / "away.conf"
    path.write_text(f"{text}\nSlurmctldPort=7999\n")
    return path


def test_a_driver_that_was_killed_is_shown_with_its_own_end_where_the_jobs_code_differs(
    slurm: Cluster, tmp_path: Path
) -> None:
    assert submit(tmp_path, "run", *STUB_SLOW, "search.steps=5000").returncode == 0
    run = Run(tmp_path, "run")
    run.await_step(5)
    os.kill(run.driver(), signal.SIGKILL)
    until(lambda: ended(run.job), "the end of the job")
    until(lambda: components(run.job)[0]["ExitCode"] != "0:0", "the accounting")
    row = json.loads(icm("status", f"run.root={tmp_path}", "json=true").stdout)
    assert components(run.job)[0]["ExitCode"] in ("9:0", "137:0"), "of the script, as srun passes it on"
    assert (row["driver"], row["exit"]) == ("FAILED", "0:9")
    assert "FAILED (signal 9)" in icm("status", f"run.root={tmp_path}").stdout


def test_a_folder_with_spaces_and_signs_is_one_that_a_job_can_use(slurm: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "a b's $HOME"
    done = submit(root, "run", "model=stub", "task.limit=12", "search.steps=10", "wait=true")
    assert done.returncode == 0, done.stderr + logs(root / "run")
    until(lambda: ended(job_of(done.stdout)), "the end of the job")
    words = next(line for line in done.stdout.splitlines() if line.startswith("status "))
    told = icm("status", *shlex.split(words)[4:], "json=true")
    assert json.loads(told.stdout)["driver"] == "finished"
