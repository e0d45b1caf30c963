"""`python -m icm_hpc.status`: where every run in the folder is; run=NAME shows one, run.root=FOLDER another folder's."""

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from . import checkpoint, config, driver, home, jobs, lock
from .errors import ConfigError, IcmError
from .polling import COMMAND_S, block_until_done
from .rundir import RunDir, read_json
from .settings import Config

COLUMNS = ("run", "state", "server", "job", "step", "energy", "flips", "last save", "attempts", "ETA")

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a run."""

    run: str
    driver: str  # its component's state as Slurm has it; of a run on this machine running or stopped; or finished
    server: str
    job: str | None = None
    step: int | None = None
    steps: int | None = None
    energy: float | None = None
    flips: int | None = None
    saved_s: float | None = None  # since the last save
    attempts: int = 0
    eta_s: float | None = None  # forecast, from the speed of this attempt so far


def main() -> None:
    """Run the command."""
    if any(word in ("-h", "--help", "help") for word in sys.argv[1:]):
        console.print(__doc__)
        return
    try:
        words = sys.argv[1:]
        as_json = "json=true" in words
        asked = config.load([word for word in words if word not in ("json=true", "json=false")]).run
        root = home.expanded(asked.root, instead="run.root without ~").absolute()
        found = [_told(RunDir(path.parent)) for path in sorted(root.glob(f"{asked.name or '*'}/config.yaml"))]
        if not found:
            raise ConfigError(f"there is no run {asked.name} in {root}: name its folder with run.root=FOLDER")
        print_json(found) if as_json else print_table(found)
    except IcmError as error:
        sys.exit(f"icm_hpc: {error}")


def status(run_dir: RunDir) -> Status:
    """Return what a run's folder and Slurm tell of it."""
    settings = config.load_file(run_dir.config)
    progress = read_json(run_dir.progress) or {}
    job = jobs.newest(run_dir.submitit)
    driving, serving = _states(run_dir, job)
    if settings.external_url is not None:
        serving = "external"
    saves = [path.stat().st_mtime for path in run_dir.path.glob("shard-*/trace.jsonl")]  # grows with every save
    rate = progress.get("steps_per_s")
    attempts = driver.attempts(run_dir)
    alive = driving in ("RUNNING", "running") and progress.get("attempt") == attempts[-1]["attempt"]
    left = progress["steps"] - progress["step"] if progress else 0
    return Status(
        run=run_dir.path.name,
        driver=driving,
        server=serving,
        job=job,
        step=progress.get("step"),
        steps=progress.get("steps", settings.search.steps),
        energy=progress.get("energy"),
        flips=progress.get("flips"),
        saved_s=time.time() - max(saves) if saves else None,
        attempts=len(attempts),
        eta_s=left / rate if alive and rate else None,
    )


def _told(run_dir: RunDir) -> Status:
    """Return the status of a run; one that cannot be read does not hide the others."""
    try:
        return block_until_done(lambda: status(run_dir), COMMAND_S)
    except (IcmError, OSError, ValueError, KeyError) as error:
        return Status(run_dir.path.name, f"unreadable: {error}".splitlines()[0], "-")


def is_finished(run_dir: RunDir, settings: Config) -> bool:
    """Return whether the labels are there, of as many steps and restarts as the settings ask for."""
    summary = block_until_done(lambda: read_json(run_dir.summary), COMMAND_S)
    if summary is None or not run_dir.labels.exists():
        return False
    for number in range(len(summary["shards"])):
        for restart in range(settings.search.restarts):
            saved = checkpoint.load_newest(run_dir.shard(number, restart))
            if saved is None or saved.state.step < settings.search.steps:
                return False
    return True


def _states(run_dir: RunDir, job: str | None) -> tuple[str, str]:
    """Return the states of driver and server."""
    attempts = driver.attempts(run_dir)
    ended = attempts[-1].get("end") if attempts else None
    queued = jobs.queued(job) if job else []
    if queued:
        return _named(queued)
    if ended == "finished":
        return "finished", "-"
    accounted = jobs.accounted(job) if job else []
    if accounted and (not attempts or attempts[-1]["job"]):
        return _named(accounted)
    if attempts and lock.holder(run_dir.lock):
        return "running", "up" if run_dir.read_endpoint(attempts[-1]["attempt"]) else "starting"
    return ("stopped" if attempts else "not started"), "-"


def _named(components: list[jobs.Component]) -> tuple[str, str]:
    return components[0].state, components[1].state if len(components) > 1 else "-"


def print_table(found: list[Status]) -> None:
    """Print a line a run."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column)
    for one in found:
        row = (
            one.run,
            one.driver,
            one.server,
            one.job,
            one.step if one.step is None else f"{one.step}/{one.steps}",
            one.energy if one.energy is None else f"{one.energy:.3f}",
            one.flips,
            one.saved_s if one.saved_s is None else f"{_duration(one.saved_s)} ago",
            one.attempts,
            one.eta_s if one.eta_s is None else _duration(one.eta_s),
        )
        table.add_row(*("-" if value is None else str(value) for value in row))
    console.print(table)


def print_json(found: list[Status]) -> None:
    """Print a JSON object a run."""
    for one in found:
        values: dict[str, Any] = {name: getattr(one, name) for name in Status.__dataclass_fields__}
        print(json.dumps(values))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


if __name__ == "__main__":
    main()
