"""`python -m icm_hpc.plan model=405B task=claims task.data=FILE cluster=site`: does a run fit, and what does it cost?

Takes the settings of `submit`, which makes the same plan before it queues a job. The exit code is 1 if the run does not fit.
Hours are a roofline forecast, not a measurement.
"""

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from . import tasks
from .capacity import executor, plan
from .capacity.plan import Plan
from .config import credentials, describe, loading
from .errors import IcmError

ARGUMENTS = {
    "preset=NAME": "the size of an experiment, with held-out rows: small, full (docs/evaluation.md)",
    "json=false": "true: print the plan as one JSON object",
}

console = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200
)


def main() -> None:
    """Run the command."""
    words = sys.argv[1:]
    try:
        topic = describe.asked_for_help(words)
        if topic is not None:
            describe.print_help(__doc__, ARGUMENTS, topic)
            return
        given = [word for word in words if word not in ("json=true", "json=false")]
        addressed, url_from = credentials.addressed(loading.load(given))
        config, where = executor.resolved(addressed)
        task = tasks.load(config.task, seed=config.search.seed)
        found = plan.plan(config, task, tasks.load_test(config.task, task, seed=config.search.seed))
        found.lines = {"cluster": where, **plan.defaults_read(), **found.lines}
        if config.external_url:
            found.lines["server"] += f" ({url_from})"
    except IcmError as error:
        sys.exit(f"icm_hpc: {error}")
    command = plan.Command("submit", tuple(given))
    works = None if found.fits else plan.working_command(found, command)
    found.remedies = plan.fitting(found, command)
    if "json=true" in words:
        print(json.dumps({"fits": found.fits, **asdict(found), "works": works and str(works)}))
    else:
        print_plan(found)
        if works:
            console.print(f"this works:\n  {works}")
    sys.exit(0 if found.fits else 1)


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
