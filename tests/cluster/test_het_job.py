"""Runs as heterogeneous jobs on the real Slurm daemons."""

import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from icm_hpc.rundir.folder import RunDir
from tests.cluster.daemons import Cluster
from tests.cluster.faults import FAULTS, preempt
from tests.cluster.matrix import STUB_SLOW
from tests.cluster.processes import kill, read
from tests.cluster.runs import Run, command, components, ended, icm, job_of, logs, submit, until
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
    failed = submit(tmp_path, "bad", "model=tiny", "model.kv_cache_dtype=nonsense", "wait=true")
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


def test_status_tells_the_states_of_both_components(slurm: Cluster, tmp_path: Path) -> None:
    assert submit(tmp_path, "run", *STUB_SLOW).returncode == 0
    run = Run(tmp_path, "run")
    run.await_step(5)
    row = json.loads(icm("status", f"run.root={tmp_path}", "json=true").stdout)
    assert (row["driver"], row["server"], row["job"], row["attempts"]) == ("RUNNING", "RUNNING", run.job, 1)
    refused = submit(tmp_path, "run", *STUB_SLOW)
    assert f"job {run.job} of {run.dir.path} is in the queue (RUNNING, RUNNING)" in refused.stderr
    command("scancel", run.job)
    assert run.await_end().startswith("CANCELLED")
    row = json.loads(icm("status", f"run.root={tmp_path}", "json=true").stdout)
    assert (row["driver"], row["eta_s"]) == ("CANCELLED", None)


def test_a_job_labels_held_out_rows_and_another_new_ones(slurm: Cluster, tmp_path: Path) -> None:
    settings = ("model=stub", "task.limit=12", "search.steps=5", "task.test_share=0.2", "wait=true")
    done = submit(tmp_path, "run", *settings)
    assert done.returncode == 0, logs(tmp_path / "run")
    assert "held-out accuracy" in done.stdout
    assert len((tmp_path / "run" / "test" / "gold-0.jsonl").read_text().splitlines()) >= 20
    rows = [json.dumps({"id": f"new-{i}", "text": f"It is {i}."}) for i in range(6)]
    (tmp_path / "new.jsonl").write_text("\n".join(rows))
    new = icm("apply", "run=run", f"run.root={tmp_path}", f"task.data={tmp_path / 'new.jsonl'}", "wait=true")
    assert new.returncode == 0, new.stderr
    assert job_of(new.stdout)
    labels = [json.loads(line) for line in (tmp_path / "run-apply" / "labels.jsonl").read_text().splitlines()]
    assert {(row["id"], row["by"]) for row in labels} == {(f"new-{i}", "apply") for i in range(6)}


def test_a_finished_run_frees_its_gpus_though_its_server_answers_no_signal(slurm: Cluster, tmp_path: Path) -> None:
    assert submit(tmp_path, "run", *STUB_SLOW).returncode == 0
    run = Run(tmp_path, "run")
    run.await_step(5)
    component = run.component()
    kill(component, number=signal.SIGSTOP)
    assert run.await_end() == "COMPLETED+COMPLETED", logs(run.dir.path)
    assert len(run.words()) == 24
    until(lambda: not read(component, "cmdline"), "the end of the stopped component", 60)


def test_a_submitter_who_waits_follows_a_run_into_the_job_that_goes_on_with_it(slurm: Cluster, tmp_path: Path) -> None:
    settings = (*STUB_SLOW, "cluster.on_preempt=resubmit", "wait=true")
    with FAULTS["preempted-resubmits"].site(slurm), ThreadPoolExecutor() as threads:
        waiting = threads.submit(submit, tmp_path, "run", *settings)
        run = Run(tmp_path, "run")
        run.await_step(20)
        preempt(slurm, run)
        done = waiting.result()
    assert done.returncode == 0, done.stderr + logs(run.dir.path)
    first, second = [attempt["job"] for attempt in run.attempts]
    assert job_of(done.stdout) == first != second
    assert "24 (" in done.stdout, "the summary of the second job reaches who waited for the first"


def test_the_405b_script_is_parsed_by_sbatch(slurm: Cluster, tmp_path: Path) -> None:
    printed = submit(tmp_path, "big", "model=405B", "server.gpus_per_node=8", "dry_run=true").stdout
    tested = subprocess.run(["sbatch", "--test-only"], input=printed, text=True, capture_output=True, check=False)
    assert tested.returncode == 0, tested.stderr


def test_a_job_that_this_cluster_cannot_start_is_refused_before_it_is_queued(slurm: Cluster, tmp_path: Path) -> None:
    refused = submit(tmp_path, "big", "model=405B", "server.gpus_per_node=8", "server.mem_gb=9000")
    assert refused.returncode == 1
    assert "cannot start the job, so it was not queued" in refused.stderr
    assert command("squeue", "--noheader", "--name=icm-big") == ""
