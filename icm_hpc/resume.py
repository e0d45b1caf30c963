"""`python -m icm_hpc.resume run=NAME`: continue a stopped run from its saved state.

Settings of the command line replace those of the run. Settings that decide its labels cannot change: use `cluster=` and
`server.` keys to choose another place, and search.steps, search.scorings or search.restarts to search longer.
"""

import sys

from . import submit
from .capacity import plan
from .config import describe, loading
from .config.flags import split_flags
from .errors import ConfigError
from .jobs import launch
from .monitoring import finished
from .rundir.folder import RunDir
from .terminal import reporting_errors

ARGUMENTS = {
    "run=NAME": "the run: the name of its folder (required)",
    "run.root=runs": "the folder of all runs",
    **submit.FLAG_ARGUMENTS,
}


@reporting_errors()
def main() -> None:
    """Run the command."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic)
        return
    arguments, flags = split_flags(sys.argv[1:], *submit.FLAGS)
    run = loading.load([word for word in arguments if word.startswith(("run=", "run."))]).run
    run_dir = RunDir(loading.existing_run(run))
    here = f"run.root={run_dir.path.parent}"  # the folder may have been moved
    words = [word for word in arguments if not word.startswith("run.root=")]
    command = plan.Command("resume", (*words, here), run_dir.config)
    config = launch.named(loading.load_file(run_dir.config, command.words))
    if finished.is_finished(run_dir, config):
        if config.search.pool_run:
            raise ConfigError(f"{run_dir.path} has finished: its labels are in {run_dir.labels}")
        raise ConfigError(
            f"{run_dir.path} has finished: its labels are in {run_dir.labels}. To continue, raise search.restarts (to"
            f" {config.search.restarts + 1}); or search.steps or search.scorings, if they were the limit"
        )
    launch.start(config, "the run's settings", command, resumed=True, **flags)


if __name__ == "__main__":
    main()
