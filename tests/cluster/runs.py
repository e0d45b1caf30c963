"""Runs on the real daemons: submitted as a user does, watched, disturbed, compared."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icm_hpc import scheduler
from icm_hpc.rundir import attempts
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.trace import read_trace
from tests.cluster.processes import children, of_command, read

SITE = Path(__file__).with_name("site.yaml")
# Hot, and with everything asked again: the search goes on long enough for a fault to fall into it.
SLOW = ("task.limit=24", "search.steps=120", "search.schedule=constant", "search.memo_mb=0", "run.save_interval_s=0")
# By blocks, each step compares every unit's scores with each other: a decision in some runs is nearer than vLLM's noise.
SINGLE = ("search.method=single", *SLOW)
TINY = ("model=tiny", *SINGLE)
TINY_BLOCKS = ("model=tiny", *SLOW, "search.scorings=100000")
STUB = ("model=stub", *SLOW, "search.scorings=100000")
NOISE = 30 * 1e-4  # alpha times what a log-probability may differ by between two runs of the engine; nats


def command(*argv: str) -> str:
    """Run a command to its end and return what it printed."""
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def icm(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands."""
    argv = [sys.executable, "-m", f"icm_hpc.{module}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)


def submit(root: Path, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Submit as a user does."""
    return icm("submit", f"cluster={SITE}", f"run.root={root}", f"run={name}", *arguments)


def job_of(printed: str) -> str:
    """Return the job id that submit printed."""
    return next(line.split()[1] for line in printed.splitlines() if line.startswith("job "))


def until(true: Callable[[], object], what: str, limit_s: float = 600) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:g} s\n{command('squeue', '--all')}"
        time.sleep(0.2)


def components(job: str) -> list[dict[str, str]]:
    """Return what sacct knows of the job's two components."""
    fields = "JobID,State,NodeList,ExitCode,End"
    lines = command("sacct", "--allocations", "--noheader", "--parsable2", f"--format={fields}", f"--jobs={job}")
    return [dict(zip(fields.split(","), line.split("|"), strict=True)) for line in lines.splitlines()]


def ended(job: str) -> bool:
    """Return whether the job has left the queue and the accounting knows it."""
    rows = components(job)
    queued = [component.state for component in scheduler.queued(job)]
    return (
        not set(queued) & set(scheduler.LIVE) and bool(rows) and all(row["State"] not in scheduler.LIVE for row in rows)
    )


def restarts(job: str) -> int:
    """Return how often Slurm has restarted the job."""
    shown = command("scontrol", "--oneliner", "show", "job", job).splitlines()[0]
    return int(next(word.split("=")[1] for word in shown.split() if word.startswith("Restarts=")))


def logs(folder: Path) -> str:
    """Return all that a run printed, for the message of a failure."""
    files = [*folder.glob("*.log"), *folder.glob("submitit/*.out"), *folder.glob("submitit/*.err")]
    return "".join(f"\n--- {file}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


class Run:
    """A run in a folder, and the processes of its job."""

    def __init__(self, root: Path, name: str) -> None:
        self.dir = RunDir(root / name)
        self.root, self.name = root, name

    @property
    def job(self) -> str:
        """The newest job."""
        job = scheduler.newest(self.dir.submitit)
        assert job is not None
        return job

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The starts of the driver."""
        return attempts.attempts(self.dir)

    def steps_saved(self) -> int:
        """Return how many steps are in the trace."""
        path = self.dir.shard(0) / "trace.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def await_step(self, step: int) -> None:
        """Wait until the search has come so far."""
        until(lambda: self.steps_saved() > step, f"{step} steps of {self.name}")

    def script(self) -> str:
        """Return the batch script that submitit gave to sbatch."""
        return (self.dir.submitit / f"{self.job}_submission.sh").read_text()

    def await_end(self) -> str:
        """Wait until the newest job has ended; return the state of its components."""
        until(lambda: ended(self.job), f"the end of job {self.job}")
        return "+".join(row["State"].split()[0] for row in components(self.job))

    def resume(self, *arguments: str) -> str:
        """Continue by hand; return the new job's id."""
        done = icm("resume", f"run={self.name}", f"run.root={self.root}", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return job_of(done.stdout)

    def driver(self) -> int:
        """Return the driver's process."""
        (pid,) = of_command("icm_hpc.jobs.submission", str(self.dir.submitit))
        return pid

    def component(self, rank: int = 0) -> int:
        """Return the server component's process, on the first of its nodes or another."""
        variable = f"SLURM_PROCID={rank}".encode()
        found = of_command("icm_hpc.serving.server", str(self.dir.path))
        (pid,) = [pid for pid in found if variable in read(pid, "environ").split(b"\0")]
        return pid

    def engine(self) -> int:
        """Return the engine's process."""
        (pid,) = children(self.component())
        return pid

    def engine_core(self) -> int:
        """Return vLLM's worker, a child of its API server."""
        cores = [pid for pid in children(self.engine()) if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return cores[0]

    def words(self) -> list[tuple[str, int, str]]:
        """Return each example's label and where it came from."""
        rows = map(json.loads, self.dir.labels.read_text().splitlines())
        return [(row["id"], row["label"], row["by"]) for row in rows]

    def trace(self) -> list[dict[str, Any]]:
        """Return the steps."""
        return list(read_trace(self.dir.shard(0)))

    def decisions(self) -> list[tuple[Any, ...]]:
        """Return all of the trace that is not an energy."""
        return [tuple(v for k, v in step.items() if k not in ("energy", "proposed_energy")) for step in self.trace()]

    def noise_against(self, other: "Run") -> float:
        """Return by how much the energies of the two traces differ at most; nats."""
        return max(
            abs(float(a["energy"]) - float(b["energy"])) for a, b in zip(self.trace(), other.trace(), strict=True)
        )
