"""`python -m icm_hpc.submit model=405B task=claims task.data=FILE`: label a data set, on Slurm or on this machine.

cluster=auto, the default, is Slurm where sbatch is on the PATH and the model asks for GPUs; cluster=local and
cluster=slurm decide it. Your and your site's defaults: ~/.config/icm_hpc/defaults.yaml and $ICM_DEFAULTS.

Annealing are key=value (configs/ and settings.py have them all); dry_run=true prints the batch script and queues nothing;
wait=true stays until a Slurm job has ended.
"""

import sys
from collections.abc import Sequence

from .capacity import plan
from .config import credentials, loading
from .driver.run import Interrupted
from .errors import ConfigError, IcmError
from .jobs import launch

FLAGS = ("dry_run", "wait")
INTERRUPTED = 130  # exit code


def main() -> None:
    """Run the command."""
    if any(word in ("-h", "--help", "help") for word in sys.argv[1:]):
        print(__doc__)
        return
    try:
        arguments, flags = split_flags(sys.argv[1:])
        config, url_from = credentials.addressed(loading.load(arguments))
        command = plan.Command("submit", tuple(arguments))
        launch.start(launch.named(config), url_from, command, name_is_made_up=not config.run.name, **flags)
    except IcmError as error:
        sys.exit(f"icm_hpc: {error}")
    except Interrupted:
        sys.exit(INTERRUPTED)


def split_flags(words: Sequence[str]) -> tuple[list[str], dict[str, bool]]:
    """Return settings, and the flags that are given; raises ConfigError for a flag that is neither true nor false."""
    pairs = {key: value for key, _, value in (word.partition("=") for word in words) if key in FLAGS}
    for key, value in pairs.items():
        if value not in ("true", "false"):
            raise ConfigError(f"{key}={value}: one of true, false")
    settings = [word for word in words if word.partition("=")[0] not in FLAGS]
    return settings, {key: value == "true" for key, value in pairs.items()}


if __name__ == "__main__":
    main()
