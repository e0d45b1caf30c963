"""Runs as heterogeneous jobs on the real Slurm daemons."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import checkpoint
from icm_hpc.rundir import RunDir
from tests.cluster.daemons import Cluster
from tests.conftest import require_vllm

pytestmark = pytest.mark.cluster

SITE = Path(__file__).with_name("site.yaml")
# Hot, and with everything asked anew: the search goes on long enough for a preemption to fall into it.
SLOW = ("task.limit=24", "search.steps=120", "search.schedule=constant", "search.memo_mb=0", "run.save_interval_s=0")
TINY = ("model=tiny", *SLOW)
STUB = ("model=stub", *SLOW)
NOISE = 30 * 1e-4  # alpha times what a log-probability may differ by between two runs of the engine; nats


def command(*argv: str) -> str:
    """Run a command to its end and return what it printed."""
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def submit(root: Path, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Submit as a user does."""
    argv = [sys.executable, "-m", "icm_hpc.submit", f"cluster={SITE}", f"run.root={root}", f"run={name}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)


def job_of(printed: str) -> str:
    """Return the job id that submit printed."""
    return next(line.split()[1] for line in printed.splitlines() if line.startswith("job "))


def until(true: Callable[[], object], what: str, limit_s: float = 600) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:g} s\n{command('squeue', '--all')}"
        time.sleep(0.5)


def components(job: str) -> list[dict[str, str]]:
    """Return what sacct knows of the job's two components."""
    fields = "JobID,State,NodeList,ExitCode,End"
    lines = command("sacct", "--allocations", "--noheader", "--parsable2", f"--format={fields}", f"--jobs={job}")
    return [dict(zip(fields.split(","), line.split("|"), strict=True)) for line in lines.splitlines()]


def ended(job: str) -> bool:
    """Return whether the job has left the queue and the accounting knows it."""
    rows = components(job)
    live = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "PREEMPTED", "SUSPENDED")
    return not command("squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T").split("\n")[
        0
    ].startswith(live) and all(row["State"] not in live for row in rows)


def trace(root: Path, name: str) -> list[dict[str, Any]]:
    """Return the steps of a run."""
    return list(checkpoint.read_trace(RunDir(root / name).shard(0)))


def decisions(steps: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return all of a trace that is not an energy."""
    return [tuple(v for k, v in step.items() if k not in ("energy", "proposed_energy")) for step in steps]


def words_of(run_dir: RunDir) -> list[tuple[str, int, str]]:
    """Return each example's label and where it came from."""
    return [(row["id"], row["label"], row["by"]) for row in map(json.loads, run_dir.labels.read_text().splitlines())]


def preempt_in_mid_search(root: Path, name: str, job: str) -> None:
    """Send a job of higher priority that wants all GPU nodes once ten steps are done."""
    steps = RunDir(root / name).shard(0) / "trace.jsonl"
    until(lambda: steps.exists() and steps.read_bytes().count(b"\n") > 10, "ten steps")
    command("sbatch", "--partition=gpu-high", "--nodes=2", "--gres=gpu:8", "--output=/dev/null", "--wrap=sleep 3")
    until(lambda: restarts(job) == 1, "a requeue")
    done = steps.read_bytes().count(b"\n")
    assert 10 < done < 121, "the preemption fell into the search"


def restarts(job: str) -> int:
    """Return how often Slurm has restarted the job."""
    shown = command("scontrol", "--oneliner", "show", "job", job).splitlines()[0]
    return int(next(word.split("=")[1] for word in shown.split() if word.startswith("Restarts=")))


@pytest.fixture(scope="module")
def undisturbed(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of the model tiny on real vLLM, submitted and waited for; its root and what submit printed."""
    require_vllm()
    root = tmp_path_factory.mktemp("undisturbed")
    done = submit(root, "tiny", *TINY, "wait=true")
    assert done.returncode == 0, done.stdout + done.stderr + logs(root / "tiny")
    return root, done.stdout


def logs(folder: Path) -> str:
    """Return all that a job printed, for the message of a failure."""
    files = [*folder.glob("*.log"), *folder.glob("submitit/*.out"), *folder.glob("submitit/*.err")]
    return "".join(f"\n--- {file}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def test_a_run_is_one_heterogeneous_job_that_completes_in_both_components(undisturbed: tuple[Path, str]) -> None:
    root, printed = undisturbed
    job = job_of(printed)
    until(lambda: ended(job), "the end of the job")
    rows = components(job)
    assert [row["JobID"] for row in rows] == [f"{job}+0", f"{job}+1"]
    assert [row["State"] for row in rows] == ["COMPLETED", "COMPLETED"]
    assert [row["NodeList"][:3] for row in rows] == ["cpu", "gpu"]
    assert "24 (" in printed, "the submitter sees the result"
    assert len(words_of(RunDir(root / "tiny"))) == 24


@pytest.mark.vllm
def test_a_preempted_run_ends_with_the_labels_and_decisions_of_an_undisturbed_one(
    undisturbed: tuple[Path, str], tmp_path: Path
) -> None:
    root, _ = undisturbed
    job = job_of(submit(tmp_path, "tiny", *TINY).stdout)
    preempt_in_mid_search(tmp_path, "tiny", job)
    until(lambda: ended(job), "the end of the job")
    assert [row["State"] for row in components(job)] == ["COMPLETED", "COMPLETED"], logs(tmp_path / "tiny")
    assert words_of(RunDir(tmp_path / "tiny")) == words_of(RunDir(root / "tiny"))
    ours, theirs = trace(tmp_path, "tiny"), trace(root, "tiny")
    assert decisions(ours) == decisions(theirs)
    assert max(abs(a["energy"] - b["energy"]) for a, b in zip(ours, theirs, strict=True)) < NOISE
    attempts = json.loads(RunDir(tmp_path / "tiny").provenance.read_text())["attempts"]
    assert [attempt["attempt"] for attempt in attempts] == [f"{job}.0", f"{job}.1"]


def test_with_a_deterministic_engine_a_preempted_run_is_the_undisturbed_one_bit_for_bit(
    slurm: Cluster, tmp_path: Path
) -> None:
    slow = (*STUB, "model.vllm_args.delay-ms=100")
    job = job_of(submit(tmp_path, "slurm", *slow).stdout)
    preempt_in_mid_search(tmp_path, "slurm", job)
    here = subprocess.run(
        [sys.executable, "-m", "icm_hpc.submit", *STUB, f"run.root={tmp_path}", "run=here"],
        check=True,
        capture_output=True,
    )
    assert here.returncode == 0
    until(lambda: ended(job), "the end of the job")
    a, b = RunDir(tmp_path / "slurm"), RunDir(tmp_path / "here")
    assert a.labels.read_bytes() == b.labels.read_bytes(), logs(a.path)
    assert (a.shard(0) / "trace.jsonl").read_bytes() == (b.shard(0) / "trace.jsonl").read_bytes()


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
