"""`python -m icm_hpc.apply run=NAME task.data=FILE`: label new rows with the labels of a finished run.

The pool of the run, with its labels, is shown for each new row: no search is done, and the pool is computed once. This is a
run of its own, NAME-apply: `resume`, `status`, `evaluate`, `export` and `report` take its name. Settings of the command line
replace those of the run, but the task stays: rows of the same kind.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from . import submit, tasks
from .capacity import plan
from .config import describe, loading
from .config.flags import split_flags
from .config.place import MAX_NAME
from .driver import pools
from .errors import ConfigError
from .jobs import launch
from .rundir.folder import RunDir
from .terminal import reporting_errors

ARGUMENTS = {
    "run=NAME": "the finished run whose labels are shown: the name of its folder (required)",
    "task.data=FILE": "the new rows, as the run's own were (required)",
    "run.root=runs": "the folder of all runs",
    "run.name=NAME-apply": "what the new run is called",
    **submit.FLAG_ARGUMENTS,
}
SUFFIX = "-apply"
# Of the finished run, what does not hold for other rows.
IMPLIED = (
    "task.limit=null", "task.test=null", "task.test_share=0", "task.test_limit=null", "search.restarts=1",
    "search.pool_size=null", "search.beyond=shards", "task.draw=groups",
)  # fmt: skip


@reporting_errors()
def main() -> None:
    """Run the command."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic)
        return
    arguments, flags = split_flags(sys.argv[1:], *submit.FLAGS)
    run_dir, settings = _run_of(arguments)
    pool = pools.task_of_run(run_dir)  # refused before anything else where there is none
    implied = (*IMPLIED, f"search.pool_run={run_dir.path}", f"run.root={run_dir.path.parent}")
    own_name = any(word.startswith("run.name=") for word in settings)
    named = () if own_name else (f"run.name={run_dir.path.name[: MAX_NAME - len(SUFFIX)]}{SUFFIX}",)
    config = launch.named(loading.load_file(run_dir.config, (*implied, *named, *settings)))
    if Path(config.run.root) / config.run.name == run_dir.path:
        raise ConfigError(f"run.name={config.run.name} is the finished run itself: choose another name")
    if tasks.label_words(tasks.family_of(config.task), config.task) != pool.label_words:
        raise ConfigError(
            f"task: the run's label words are {list(pool.label_words)}: leave out task.labels and task.label_words"
        )
    command = plan.Command("apply", (f"run={run_dir.path.name}", *settings), run_dir.config, implied)
    launch.start(config, "the run's settings", command, name_is_made_up=not own_name, **flags)


def _run_of(arguments: Sequence[str]) -> tuple[RunDir, list[str]]:
    """Return the run that is applied, and the other settings; raises ConfigError for what another task would be."""
    own = [word for word in arguments if word.startswith(("run=", "run.root="))]
    settings = [word for word in arguments if not word.startswith(("run=", "run.root="))]
    run_dir = RunDir(loading.existing_run(loading.load(own).run))
    if any(word.startswith("task=") for word in settings):
        raise ConfigError("task: new rows are labelled as the run's own were; leave out task=, and give task.data=FILE")
    if not any(word.startswith("task.data=") for word in settings):
        raise ConfigError("which rows? Write task.data=FILE")
    return run_dir, settings


if __name__ == "__main__":
    main()
