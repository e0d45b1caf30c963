"""The state of a run, as its folder and Slurm have it."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import scheduler
from ..config import glance, runs
from ..errors import IcmError, SchedulerError
from ..rundir import lock
from ..rundir.attempts import attempts as attempts_of
from ..rundir.files import read_json
from ..rundir.folder import RunDir
from ..rundir.polling import COMMAND_S, block_until_done
from ..rundir.progress import read as read_progress
from ..rundir.trace import last_line
from .slurm import Job, Slurm

LOCAL = "local-"  # how attempts on this machine are named (rundir.new_attempt)
RUNNING = ("RUNNING", "running")  # states of a driver, of a job and on this machine


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a run."""

    run: str
    # Its component's state as Slurm has it; of a run on this machine running or stopped; finished; or unknown, and why.
    driver: str
    server: str
    job: str | None = None
    step: int | None = None
    steps: int | None = None
    energy: float | None = None
    flips: int | None = None
    saved_s: float | None = None  # since the last save
    attempts: int = 0
    eta_s: float | None = None  # forecast, from the speed of this attempt so far
    applied: int | None = None  # examples that are labelled given the pool
    to_apply: int | None = None  # of so many
    exit: str | None = None  # CODE:SIGNAL of a driver that failed, as the accounting has it


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a run's searches have come; sums, and the mean energy."""

    step: int
    flips: int
    energy: float


def folders(root: Path, name: str = "") -> list[RunDir]:
    """Return the folders of all runs, or of the one of this name; raises FolderError for one that cannot be read."""
    if name:
        return [RunDir(root / name)] if runs.is_run(root / name) else []
    return [RunDir(path) for path in runs.all_runs(root)]


def jobs(run_dirs: Sequence[RunDir]) -> list[Job]:
    """Return the newest job of every run that has one, for one question about all of them."""
    return [job for job in map(_job, run_dirs) if job is not None]


def _job(run_dir: RunDir) -> Job | None:
    try:
        job = scheduler.newest(run_dir.submitit)
        return (job, scheduler.cluster_of(run_dir.submitit, job)) if job else None
    except (OSError, ValueError):
        return None


def status(run_dir: RunDir, slurm: Slurm = scheduler) -> Status:
    """Return what a run's folder and Slurm say about it; of a run that has just started or was damaged, what is there."""
    attempts = _attempts(run_dir)
    progress = _current_progress(run_dir, attempts)
    job = scheduler.newest(run_dir.submitit)
    driving, serving, exit_code = _states(run_dir, job, attempts, slurm)
    if _has_external_server(run_dir.config, run_dir.config.stat().st_mtime_ns):
        serving = "external"
    traces = sorted(run_dir.path.glob("shard-*/trace.jsonl"))
    saved = _saved(traces)
    alive = driving in RUNNING and progress is not None
    # The file of progress is some seconds old; of a run that has stopped, what was saved is what counts.
    shown = progress if progress and alive and (saved is None or progress["step"] > saved.step) else None
    steps = progress["steps"] if progress else None
    reached = Reached(shown["step"], shown["flips"], shown["energy"]) if shown else saved
    return Status(
        run=run_dir.path.name,
        driver=driving,
        server=serving,
        job=job,
        step=reached.step if reached else None,
        steps=steps,
        energy=_energy(run_dir, reached) if driving == "finished" else reached.energy if reached else None,
        flips=reached.flips if reached else None,
        saved_s=max(0.0, time.time() - max(map(_changed_s, traces))) if traces else None,
        attempts=len(attempts),
        eta_s=progress.get("left_s") if progress and alive else None,
        applied=progress.get("applied") if progress and progress.get("to_apply") else None,
        to_apply=progress.get("to_apply") or None if progress else None,
        exit=exit_code,
    )


def readable_status(run_dir: RunDir, slurm: Slurm = scheduler) -> Status:
    """Return the status of a run; one that cannot be read does not hide the others."""
    try:
        return block_until_done(lambda: status(run_dir, slurm), COMMAND_S)
    except (IcmError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        words = (str(error) or type(error).__name__).splitlines()[0]
        return Status(run_dir.path.name, f"unreadable: {words}", "-")


@functools.lru_cache(maxsize=4096)
def _has_external_server(config: Path, changed_ns: int) -> bool:  # noqa: ARG001 - of the content that is remembered
    return glance.has_external_server(config)


def _attempts(run_dir: RunDir) -> list[dict[str, Any]]:
    """Return every start of the driver that can be read, the first one first."""
    try:
        found = attempts_of(run_dir)
    except (ValueError, LookupError, TypeError):
        return []
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("attempt"), str)]


def _current_progress(run_dir: RunDir, attempts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return where the newest start says it is, or None if it has not said so yet."""
    try:
        found = read_progress(run_dir)
    except ValueError:
        return None
    return found if found and attempts and found.get("attempt") == attempts[-1]["attempt"] else None


def _saved(traces: list[Path]) -> Reached | None:
    """Return how far the searches have come that were saved, by the last line of each one's trace; None without any."""
    last = [line for line in map(last_line, traces) if line is not None]
    if not last:
        return None
    energy = sum(line["energy"] for line in last) / len(last)
    return Reached(sum(line["step"] for line in last), sum(line["flips"] for line in last), energy)


def _energy(run_dir: RunDir, reached: Reached | None) -> float | None:
    """Return the energy of a finished run's labels, which are not those of its last step if an earlier one was better."""
    try:
        summary = read_json(run_dir.summary)
    except ValueError:
        summary = None
    found = summary.get("energy") if isinstance(summary, dict) else None
    return float(found) if isinstance(found, int | float) else reached.energy if reached else None


def _changed_s(path: Path) -> float:
    return path.stat().st_mtime


def _states(
    run_dir: RunDir, job: str | None, attempts: list[dict[str, Any]], slurm: Slurm
) -> tuple[str, str, str | None]:
    """Return the states of driver and server, and how the driver of a job that has left the queue exited if it failed."""
    last = attempts[-1] if attempts else None
    is_here = last is not None and last["attempt"].startswith(
        LOCAL
    )  # maybe inside an allocation: its job is not the run's
    cluster = scheduler.cluster_of(run_dir.submitit, job) if job else None
    try:
        components = slurm.queued(job, cluster) if job else []
    except SchedulerError as error:
        if last and last.get("end") == "finished":
            return "finished", "-", None
        if not is_here or lock.holder(run_dir.lock) is None:
            return f"unknown: {error}", "-", None
        components = []
    if components:
        return *_named(components), None
    if last and last.get("end") == "finished":
        return "finished", "-", None
    accounted = slurm.accounted(job, cluster) if job and not is_here else []
    if accounted:
        failed = accounted[0].state not in ("COMPLETED", *scheduler.LIVE) and accounted[0].exit not in ("", "0:0")
        return *_named(accounted), accounted[0].exit if failed else None
    if last and lock.holder(run_dir.lock):
        return "running", "up" if _is_up(run_dir, last["attempt"]) else "starting", None
    return ("stopped" if last else "not started"), "-", None


def _is_up(run_dir: RunDir, attempt: str) -> bool:
    try:
        return run_dir.read_endpoint(attempt) is not None
    except (ValueError, TypeError, LookupError):
        return False


def _named(components: list[scheduler.Component]) -> tuple[str, str]:
    return components[0].state, components[1].state if len(components) > 1 else "-"
