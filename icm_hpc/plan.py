"""`python -m icm_hpc.plan model=405B task=claims task.data=FILE cluster=site`: does a run fit, and what does it cost?

Takes the settings of `submit`, which makes the same plan before it queues a job. The exit code is 1 if the run does not fit.
Times are forecasts: by a roofline, or with measured= from the speed of a server.
"""

import json
import sys
from dataclasses import asdict

from rich.table import Table

from . import tasks
from .capacity import executor, plan
from .capacity.found import Plan
from .config import credentials, describe, home, loading, runs
from .config.flags import split_flags
from .errors import ConfigError
from .rundir.folder import RunDir
from .rundir.measured import Measured, of_lines, read
from .terminal import console, reporting_errors

ARGUMENTS = {
    "preset=NAME": "the size of an experiment, with held-out rows: small, full (docs/evaluation.md)",
    "measured=PATH": "forecast from the speed that was measured: the folder of a run of this model on this hardware, or what"
    " `verify json=true` has printed into a file",
    "json=false": "true: print the plan as one JSON object",
}

MEASURED = "measured="  # a word that is no setting


@reporting_errors()
def main() -> None:
    """Run the command."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic)
        return
    words, flags = split_flags(sys.argv[1:], "json")
    given = [word for word in words if not word.startswith(MEASURED)]
    measured = _measured(words)
    addressed, url_from = credentials.addressed(loading.load(given, own=ARGUMENTS))
    config, where = executor.resolved(addressed)
    runs.require_writable(loading.run_folder(config.run))
    task = tasks.load(config.task, seed=config.search.seed)
    found = plan.plan(config, task, tasks.load_test(config.task, task, seed=config.search.seed), measured)
    found.lines = {"cluster": where, **plan.defaults_read(), **found.lines}
    if config.external_url:
        found.lines["server"] += f" ({url_from})"
    command = plan.Command("submit", tuple(given))
    works = None if found.fits else plan.working_command(found, command)
    found.remedies = plan.fitting(found, command)
    if flags.get("json"):
        print(json.dumps({"fits": found.fits, **asdict(found), "works": works and str(works)}))
    else:
        print_plan(found)
        if works:
            console.print(f"this works:\n  {works}")
    sys.exit(0 if found.fits else 1)


def _measured(words: list[str]) -> Measured | None:
    """Return what a server was measured to do, if the words name it; raises ConfigError where nothing was measured."""
    named = [word.removeprefix(MEASURED) for word in words if word.startswith(MEASURED)]
    if not named:
        return None
    path = home.expanded(named[-1], instead="a path without ~")
    found = read(RunDir(path).measured) if path.is_dir() else of_lines(path)
    if found is None:
        raise ConfigError(f"{path}: this run has measured nothing (it has no {RunDir(path).measured.name})")
    if not (found.sharing or found.speed):
        raise ConfigError(f"{path}: the server's speed is not in it")
    return found


def print_plan(found: Plan) -> None:
    """Print a plan."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = [*found.lines.items(), *(("note", note) for note in found.notes)]
    rows += [("does not fit", misfit) for misfit in found.misfits] or [("fits", "yes")]
    rows += [("would fit", remedy) for remedy in found.remedies]
    for name, text in rows:
        table.add_row(name, text)
    console.print(table)


if __name__ == "__main__":
    main()
