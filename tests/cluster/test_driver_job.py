"""A run against a server that already runs, as a job of one component on the real Slurm daemons."""

import asyncio
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from icm_hpc import scheduler
from tests import offline
from tests.cluster.daemons import Cluster
from tests.cluster.runs import SINGLE, SITE, Run, command, components, icm, job_of, logs, restarts, until
from tests.external import KEY, free_port, holding, running_stub, secrets_file

pytestmark = pytest.mark.cluster


def test_a_driver_only_job_uses_the_running_server_survives_a_requeue_and_has_its_key_nowhere(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICM_SECRETS", str(secrets_file(tmp_path, f"VLLM_API_KEY={KEY}")))
    monkeypatch.setenv("VLLM_API_KEY", KEY)  # must not reach the job
    root = tmp_path / "runs"
    with running_stub(free_port(), delay_ms=100) as url:
        settings = (f"cluster={SITE}", "model=tiny", *SINGLE, f"server.url={url}", f"run.root={root}", "run=mine")
        printed = icm("submit", *settings, "dry_run=true").stdout
        tested = subprocess.run(["sbatch", "--test-only"], input=printed, text=True, capture_output=True, check=False)
        assert tested.returncode == 0, tested.stderr
        done = icm("submit", *settings)
        assert done.returncode == 0, done.stdout + done.stderr
        run = Run(root, "mine")
        job = run.job
        assert command("scontrol", "write", "batch_script", job, "-").rstrip() == printed.rstrip()
        run.await_step(20)
        row = json.loads(icm("status", f"run.root={root}", "json=true").stdout)
        assert (row["driver"], row["server"], row["job"]) == ("RUNNING", "external", job)
        environment = Path(f"/proc/{run.driver()}/environ").read_bytes()
        assert b"ICM_SECRETS=" in environment
        assert KEY.encode() not in environment
        command("scontrol", "requeue", job)
        until(lambda: restarts(job) == 1 or scheduler.queued(job)[0].state == "PENDING", "the requeue")
        command("scontrol", "update", f"job={job}", "StartTime=now")
        until(lambda: not scheduler.queued(job), "the end of the job")
    until(lambda: [row["State"] for row in components(job)] == ["COMPLETED"], logs(run.dir.path), 60)
    assert [row["JobID"] for row in components(job)] == [job]
    assert [attempt["job"] for attempt in run.attempts] == [job, job]
    _, plain, _ = asyncio.run(offline.label(tmp_path / "plain", *SINGLE))
    assert run.dir.labels.read_bytes() == plain.labels.read_bytes()
    assert holding(root, KEY) == []


def test_a_driver_only_job_signalled_before_its_limit_goes_on_in_another_which_the_submitter_follows(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICM_SECRETS", str(secrets_file(tmp_path, f"VLLM_API_KEY={KEY}")))
    root = tmp_path / "runs"
    with running_stub(free_port(), delay_ms=100) as url:
        settings = (f"cluster={SITE}", "model=tiny", *SINGLE, f"server.url={url}", f"run.root={root}", "run=mine")
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(icm, "submit", *settings, "cluster.on_preempt=resubmit", "wait=true")
            run = Run(root, "mine")
            run.await_step(20)
            command("scancel", "--signal=USR2", run.job)
            done = waiting.result()
    assert done.returncode == 0, done.stderr + logs(run.dir.path)
    first, second = [attempt["job"] for attempt in run.attempts]
    assert job_of(done.stdout) == first != second
    assert "24 (" in done.stdout
    _, plain, _ = asyncio.run(offline.label(tmp_path / "plain", *SINGLE))
    assert run.dir.labels.read_bytes() == plain.labels.read_bytes()
