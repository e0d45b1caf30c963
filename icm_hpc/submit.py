"""`python -m icm_hpc.submit model=405B task=claims task.data=FILE`: label a data set, on Slurm or on this machine.

cluster=auto, the default, uses Slurm if sbatch is on the PATH and the model requires GPUs. cluster=local and cluster=slurm
choose. Your defaults are in ~/.config/icm_hpc/defaults.yaml, your site's in the file that $ICM_DEFAULTS names.
"""

import sys

from .capacity import plan
from .config import credentials, describe, loading
from .config.flags import split_flags
from .jobs import launch
from .terminal import reporting_errors

FLAGS = ("dry_run", "wait")
FLAG_ARGUMENTS = {
    "dry_run=false": "true: print the batch script, and queue nothing",
    "wait=false": "true: return when the Slurm job has ended",
}
ARGUMENTS = {
    "preset=NAME": "the size of an experiment, with held-out rows: small, full (docs/evaluation.md)",
    **FLAG_ARGUMENTS,
}


@reporting_errors()
def main() -> None:
    """Run the command."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic)
        return
    arguments, flags = split_flags(sys.argv[1:], *FLAGS)
    config, url_from = credentials.addressed(loading.load(arguments, own=ARGUMENTS))
    command = plan.Command("submit", tuple(arguments))
    launch.start(launch.named(config), url_from, command, name_is_made_up=not config.run.name, **flags)


if __name__ == "__main__":
    main()
