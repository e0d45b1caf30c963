"""`python -m icm_hpc.status`: the state of every run in the folder, one line each; watch=true: on a screen that refreshes."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from .config import describe, loading
from .config.flags import split_flags
from .errors import ConfigError
from .monitoring import screen, slurm, state, table
from .terminal import console, reporting_errors

ARGUMENTS = {
    "run=NAME": "show this run only; default: all",
    "run.root=runs": "the folder of all runs",
    "watch=false": "true: a screen that refreshes until Ctrl-C; with run=NAME, the course of its energy, too",
    "json=false": "true: print a JSON object per run",
}


@reporting_errors()
def main() -> None:
    """Run the command."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
        return
    words, flags = split_flags(sys.argv[1:], "json", "watch")
    as_json, watch = flags.get("json", False), flags.get("watch", False)
    asked = loading.load(words, own=ARGUMENTS).run
    root = loading.run_folder(dataclasses.replace(asked, name=""))
    if not state.folders(root, asked.name):
        raise ConfigError(_no_runs(root, asked.name))
    if as_json and watch:
        raise ConfigError("json=true prints lines for programs, watch=true a screen for people: choose one")
    if watch and screen.is_possible(console):
        screen.watch(root, asked.name, console)
        return
    run_dirs = state.folders(root, asked.name)
    asking = slurm.Once(state.jobs(run_dirs))
    found = [state.readable_status(run_dir, asking) for run_dir in run_dirs]
    print_json(found) if as_json else console.print(table.lines(found))


def _no_runs(root: Path, name: str) -> str:
    """Return why there is nothing to show, and what to do."""
    if name:
        return f"there is no run {name} in {root}: name its folder with run.root=FOLDER"
    return f"{root} has no runs: start one with python -m icm_hpc.submit, or name another folder of runs with run.root=FOLDER"


def print_json(found: list[state.Status]) -> None:
    """Print a JSON object a run."""
    for one in found:
        values: dict[str, Any] = {name: getattr(one, name) for name in state.Status.__dataclass_fields__}
        print(json.dumps(values))


if __name__ == "__main__":
    main()
