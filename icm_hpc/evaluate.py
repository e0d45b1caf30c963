"""`python -m icm_hpc.evaluate run=NAME`: compare a finished run's labels with the gold labels, if there are any.

Prints one JSON object: examples compared, how many agree, and what one label for all would reach.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from .config import describe
from .config.loading import existing_run, load, load_file
from .config.schema import Config, TaskConfig
from .driver.labels import read_labels
from .errors import ConfigError, IcmError
from .rundir.folder import RunDir
from .tasks import gold

ARGUMENTS = {"run=NAME": "the run: the name of its folder (required)", "run.root=runs": "the folder of all runs"}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of `labelled` examples that have a gold label carry it."""

    labelled: int
    agreeing: int
    majority: float  # what one label for all would reach

    @property
    def share(self) -> float:
        """Agreement, 0 to 1."""
        return self.agreeing / self.labelled


def agreement(task: TaskConfig, labels: Mapping[str, int]) -> Agreement | None:
    """Compare labels, by id, with the task's gold labels; None if it has none for these examples."""
    return compared(gold.load(task), labels)


def compared(gold_labels: Mapping[str, int], labels: Mapping[str, int]) -> Agreement | None:
    """Compare labels with gold labels, both by id; None if there are none for these examples."""
    known = {id_: label for id_, label in gold_labels.items() if id_ in labels}
    if not known:
        return None
    agreeing = sum(labels[id_] == label for id_, label in known.items())
    (_, most), *_ = Counter(known.values()).most_common(1)
    return Agreement(len(known), agreeing, most / len(known))


def of_run(config: Config, run_dir: RunDir) -> Agreement | None:
    """Compare a run's labels.jsonl with gold; raises ConfigError if the run has none yet."""
    try:
        labels = read_labels(run_dir.labels)
    except FileNotFoundError as error:
        raise ConfigError(f"{run_dir.labels} is not there: the run has not ended") from error
    return compared(gold.unpacked(run_dir.gold), labels) if run_dir.gold.exists() else agreement(config.task, labels)


def main() -> None:
    """Print the agreement as JSON."""
    try:
        topic = describe.asked_for_help(sys.argv[1:])
        if topic is not None:
            describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
            return
        run_dir = RunDir(existing_run(load(sys.argv[1:]).run))
        found = of_run(load_file(run_dir.config), run_dir)
    except IcmError as error:
        sys.exit(f"evaluate: {error}")
    print(json.dumps({**asdict(found), "agreement": found.share} if found else {"labelled": 0}))


if __name__ == "__main__":
    main()
