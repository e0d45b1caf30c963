"""Runs as heterogeneous jobs on the real Slurm daemons."""

import subprocess
import time
from pathlib import Path

import pytest

from icm_hpc.rundir import RunDir
from tests.cluster.daemons import Cluster
from tests.cluster.runs import Run, command, components, ended, job_of, logs, submit, until
from tests.conftest import require_vllm

pytestmark = pytest.mark.cluster


@pytest.mark.vllm
def test_a_run_is_one_heterogeneous_job_that_completes_in_both_components(
    undisturbed_tiny: tuple[Run, str],
) -> None:
    run, printed = undisturbed_tiny
    job = job_of(printed)
    until(lambda: ended(job), "the end of the job")
    rows = components(job)
    assert [row["JobID"] for row in rows] == [f"{job}+0", f"{job}+1"]
    assert [row["State"] for row in rows] == ["COMPLETED", "COMPLETED"]
    assert [row["NodeList"][:3] for row in rows] == ["cpu", "gpu"]
    assert "24 (" in printed, "the submitter sees the result"
    assert len(run.words()) == 24
    assert [attempt["job"] for attempt in run.attempts] == [job]


@pytest.mark.vllm
def test_a_server_that_cannot_start_fails_the_job_within_30_s_with_its_last_words(
    slurm: Cluster, tmp_path: Path
) -> None:
    require_vllm()
    failed = submit(tmp_path, "bad", "model=tiny", "model.vllm_args.kv-cache-dtype=nonsense", "wait=true")
    assert failed.returncode == 1
    assert "the server ended: vllm exited with code" in failed.stderr, logs(tmp_path / "bad")
    assert "nonsense" in failed.stderr, "the server's own words reach the submitter"
    job = job_of(failed.stdout)
    until(lambda: ended(job), "the end of the job")
    rows = components(job)
    assert rows[0]["State"] == "FAILED"
    assert rows[0]["ExitCode"] != "0:0"
    server_end_s = RunDir(tmp_path / "bad").server_exit(f"{job}.0").stat().st_mtime
    job_end_s = time.mktime(time.strptime(rows[0]["End"], "%Y-%m-%dT%H:%M:%S"))
    assert job_end_s - server_end_s <= 30


def test_the_405b_script_is_parsed_by_sbatch(slurm: Cluster, tmp_path: Path) -> None:
    printed = submit(tmp_path, "big", "model=405B", "server.gpus_per_node=8", "dry_run=true").stdout
    tested = subprocess.run(["sbatch", "--test-only"], input=printed, text=True, capture_output=True, check=False)
    assert tested.returncode == 0, tested.stderr


def test_a_job_that_this_cluster_cannot_start_is_refused_before_it_is_queued(slurm: Cluster, tmp_path: Path) -> None:
    refused = submit(tmp_path, "big", "model=405B", "server.gpus_per_node=8", "server.mem_gb=9000")
    assert refused.returncode == 1
    assert "cannot start the job, so it was not queued" in refused.stderr
    assert command("squeue", "--noheader", "--name=icm-big") == ""
