"""What Slurm says of a run's jobs."""

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import keys

LIVE = ("RUNNING", "COMPLETING", "CONFIGURING", "PENDING", "SUSPENDED", "STOPPED")
PASSING = ("PREEMPTED", "REQUEUED", "NODE_FAIL")  # followed by another start, if the job is still in the queue


@dataclass(frozen=True, slots=True)
class Component:
    """A component of a heterogeneous job."""

    state: str
    reason: str  # why it waits, as Slurm says; or the nodes that it has


def newest(folder: Path) -> str | None:
    """Return the id of the last job that submitit submitted from `folder`, or None."""
    numbers = [int(path.name.split("_")[0]) for path in folder.glob("*_submitted.pkl") if path.name[0].isdigit()]
    return str(max(numbers)) if numbers else None


def queued(job: str) -> list[Component]:
    """Return the components of a job that is in the queue, none if it has left it or there is no Slurm to ask."""
    lines = ask("squeue", "--noheader", "--format=%i|%T|%R", f"--jobs={job}").splitlines()
    rows = sorted(line.split("|", 2) for line in lines if line.count("|") >= 2)
    return [Component(state, reason) for _, state, reason in rows]


def accounted(job: str) -> list[Component]:
    """Return the components of a job as the accounting has them, none if there is no accounting."""
    lines = ask("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,NodeList", f"--jobs={job}")
    return [Component(state.split()[0], nodes) for _, state, nodes in (row.split("|") for row in lines.splitlines())]


def is_to_go_on(job: str) -> bool:
    """Return whether a job that is being ended by SIGTERM was not cancelled by a person: preempted, at its time limit, or
    on a node that failed.
    """
    shown = ask("scontrol", "show", "job", job)
    states = set(re.findall(r"JobState=(\w+)", shown))
    preempted = any(when != "None" for when in re.findall(r"PreemptTime=(\S+)", shown))
    return preempted or bool(states & {"PREEMPTED", "NODE_FAIL", "TIMEOUT"})


def ask(*argv: str) -> str:
    """Return what one of Slurm's commands prints, nothing if it fails."""
    try:
        return run(*argv).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that outlives the SIGTERM which Slurm sends to every process of a step."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    )


def outside_environment() -> dict[str, str]:
    """Return our environment without keys, and without what Slurm and submitit put there for the job that we are in."""
    inside = ("SLURM_", "SLURMD_", "SUBMITIT_", "SRUN_", "SBATCH_CPU_BIND", "SBATCH_MEM_BIND")
    ours = keys.without_keys(os.environ)
    return {name: value for name, value in ours.items() if name == "SLURM_CONF" or not name.startswith(inside)}
