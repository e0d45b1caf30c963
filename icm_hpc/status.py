"""`python -m icm_hpc.status`: the state of every run in the folder, one line each."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import scheduler
from .config import describe, loading
from .config.schema import Config
from .config.searching import budget_of
from .errors import ConfigError, IcmError, SchedulerError
from .rundir import checkpoint, lock
from .rundir.attempts import attempts as attempts_of
from .rundir.files import read_json
from .rundir.folder import RunDir
from .rundir.polling import COMMAND_S, block_until_done
from .rundir.trace import last_line

ARGUMENTS = {
    "run=NAME": "show this run only; default: all",
    "run.root=runs": "the folder of all runs",
    "json=false": "true: print a JSON object per run",
}

COLUMNS = ("run", "state", "server", "job", "step", "energy", "flips", "last save", "attempts", "ETA")

LOCAL = "local-"  # how attempts on this machine are named (rundir.new_attempt)

Queued = Callable[[str, str | None], list[scheduler.Component]]

console = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240
)


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
    applied: int | None = None  # examples beyond the pool that are labelled
    to_apply: int | None = None  # of so many
    exit: str | None = None  # CODE:SIGNAL of a driver that failed, as the accounting has it


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a run's searches have come; sums, and the mean energy."""

    step: int
    flips: int
    energy: float


def main() -> None:
    """Run the command."""
    try:
        topic = describe.asked_for_help(sys.argv[1:])
        if topic is not None:
            describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
            return
        words = sys.argv[1:]
        as_json = "json=true" in words
        asked = loading.load([word for word in words if word not in ("json=true", "json=false")]).run
        root = loading.run_folder(dataclasses.replace(asked, name=""))
        queued = _asking_until_a_failure()
        found = [_told(RunDir(path.parent), queued) for path in sorted(root.glob(f"{asked.name or '*'}/config.yaml"))]
        if not found:
            raise ConfigError(_no_runs(root, asked.name))
        print_json(found) if as_json else print_table(found)
    except IcmError as error:
        sys.exit(f"icm_hpc: {error}")


def _no_runs(root: Path, name: str) -> str:
    """Return why there is nothing to show, and what to do."""
    if name:
        return f"there is no run {name} in {root}: name its folder with run.root=FOLDER"
    return f"{root} has no runs: start one with python -m icm_hpc.submit, or name another folder of runs with run.root=FOLDER"


def _asking_until_a_failure() -> Queued:
    """Return `jobs.queued` for many runs: once Slurm has not answered, which takes it a while, it is not asked again."""
    failure: SchedulerError | None = None

    def queued(job: str, cluster: str | None) -> list[scheduler.Component]:
        nonlocal failure
        if failure is None:
            try:
                return scheduler.queued(job, cluster)
            except SchedulerError as error:
                failure = error
        raise failure

    return queued


def status(run_dir: RunDir, queued: Queued | None = None) -> Status:
    """Return what a run's folder and Slurm say about it; of a run that has just started or was damaged, what is there."""
    config = loading.load_file(run_dir.config)
    attempts = _attempts(run_dir)
    progress = _current_progress(run_dir, attempts)
    job = scheduler.newest(run_dir.submitit)
    driving, serving, exit_code = _states(run_dir, job, attempts, queued or scheduler.queued)
    if config.external_url is not None:
        serving = "external"
    traces = sorted(run_dir.path.glob("shard-*/trace.jsonl"))
    saved = _saved(traces)
    alive = driving in ("RUNNING", "running") and progress is not None
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


def _told(run_dir: RunDir, queued: Queued | None = None) -> Status:
    """Return the status of a run; one that cannot be read does not hide the others."""
    try:
        return block_until_done(lambda: status(run_dir, queued), COMMAND_S)
    except (IcmError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        words = (str(error) or type(error).__name__).splitlines()[0]
        return Status(run_dir.path.name, f"unreadable: {words}", "-")


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
        found = read_json(run_dir.progress)
    except ValueError:
        return None
    numbers = ("step", "steps", "flips", "energy")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), int | float) for key in numbers):
        return None
    return found if attempts and found.get("attempt") == attempts[-1]["attempt"] else None


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


def is_finished(run_dir: RunDir, config: Config) -> bool:
    """Return whether the labels are there, of as many steps, scorings and restarts as the settings ask for."""
    summary = block_until_done(lambda: read_json(run_dir.summary), COMMAND_S)
    if summary is None or not run_dir.labels.exists():
        return False
    for number, figures in enumerate(summary["shards"]):
        budget = budget_of(config.search, figures["examples"])
        searches = figures.get("searches") or _saved_searches(run_dir, number)
        if len(searches) < config.search.restarts:
            return False
        if not all(one["settled"] or budget.is_spent(one["steps"], one["scorings"]) for one in searches):
            return False
    return True


def _saved_searches(run_dir: RunDir, number: int) -> list[dict[str, Any]]:
    """Return how far the searches of a shard came, as their saved states have it: of a summary that does not say so."""
    found = (checkpoint.load_newest(folder) for folder in sorted(run_dir.path.glob(f"{run_dir.shard(number).name}*")))
    return [{"settled": False, "steps": one.state.step, "scorings": one.scorings} for one in found if one]


def _states(
    run_dir: RunDir, job: str | None, attempts: list[dict[str, Any]], queued: Queued
) -> tuple[str, str, str | None]:
    """Return the states of driver and server, and how the driver of a job that has left the queue exited if it failed."""
    last = attempts[-1] if attempts else None
    is_here = last is not None and last["attempt"].startswith(
        LOCAL
    )  # maybe inside an allocation: its job is not the run's
    cluster = scheduler.cluster_of(run_dir.submitit, job) if job else None
    try:
        components = queued(job, cluster) if job else []
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
    accounted = scheduler.accounted(job, cluster) if job and not is_here else []
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


def print_table(found: list[Status]) -> None:
    """Print a line a run."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column)
    for one in found:
        row = (
            one.run,
            one.driver if one.exit is None else f"{one.driver} ({_exit_words(one.exit)})",
            one.server,
            one.job,
            _steps(one),
            one.energy if one.energy is None else f"{one.energy:.3f}",
            one.flips,
            one.saved_s if one.saved_s is None else f"{_duration(one.saved_s)} ago",
            one.attempts,
            one.eta_s if one.eta_s is None else _duration(one.eta_s),
        )
        table.add_row(*("-" if value is None else str(value) for value in row))
    console.print(table)


def _steps(one: Status) -> str | None:
    if one.step is None or one.steps is None:
        return None if one.step is None else str(one.step)
    beyond = f" +{one.applied}/{one.to_apply}" if one.to_apply else ""
    return f"{one.step}/{one.steps}{beyond}"


def print_json(found: list[Status]) -> None:
    """Print a JSON object a run."""
    for one in found:
        values: dict[str, Any] = {name: getattr(one, name) for name in Status.__dataclass_fields__}
        print(json.dumps(values))


def _exit_words(exit_code: str) -> str:
    """Return CODE:SIGNAL in words."""
    code, _, number = exit_code.partition(":")
    return f"exit code {code}" if number in ("", "0") else f"signal {number}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


if __name__ == "__main__":
    main()
