"""`python -m icm_hpc.evaluate run=NAME`: compare a finished run's labels with the gold labels, if there are any.

Prints one JSON object: examples compared, how many agree, what one label for all would reach, balanced accuracy, AUROC, and
the most frequent confusions.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .config import describe
from .config.loading import existing_run, load, load_file
from .config.schema import Config
from .core.energy import each_label, margins
from .driver.labels import Scored, read_scored
from .errors import ConfigError, IcmError
from .rundir.folder import RunDir
from .tasks import gold

ARGUMENTS = {"run=NAME": "the run: the name of its folder (required)", "run.root=runs": "the folder of all runs"}
CONFUSIONS = 5  # pairs of labels that are printed
NOT_KEPT = "labels.jsonl does not have the log-probability of every label word"
ONE_LABEL = "all gold labels are the same"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of `labelled` examples that have a gold label carry it."""

    labelled: int
    agreeing: int
    majority: float  # what one label for all would reach
    balanced_accuracy: float  # of each gold label the share that carries it, mean over gold labels

    @property
    def share(self) -> float:
        """Agreement, 0 to 1."""
        return self.agreeing / self.labelled


@dataclass(frozen=True, slots=True)
class Auroc:
    """The area under the ROC curve, or why there is none."""

    value: float | None
    left_out: str | None = None


def compared(gold_labels: Mapping[str, int], labels: Mapping[str, int]) -> Agreement | None:
    """Compare labels with gold labels, both by id; None if there are none for these examples."""
    known = {id_: label for id_, label in gold_labels.items() if id_ in labels}
    if not known:
        return None
    counts = Counter(known.values())
    right = Counter(label for id_, label in known.items() if labels[id_] == label)
    balanced = sum(right[label] / count for label, count in counts.items()) / len(counts)
    return Agreement(len(known), right.total(), max(counts.values()) / len(known), balanced)


def auroc(gold_labels: Sequence[int], logprobs: Sequence[Sequence[float]]) -> Auroc:
    """Return how well the labels' log-probabilities rank examples: of each gold label against the others, and their mean.

    An example's score for a label is its margin, log P(label) - log P(all other labels). With two labels both areas are equal.
    """
    if len({len(row) for row in logprobs}) != 1 or len(logprobs[0]) <= max(1, *gold_labels):
        return Auroc(None, NOT_KEPT)
    scores = np.array(logprobs, dtype=np.float64)
    if not np.isfinite(scores).all():
        return Auroc(None, NOT_KEPT)
    if len(set(gold_labels)) == 1:
        return Auroc(None, ONE_LABEL)
    from sklearn.metrics import roc_auc_score  # here: its import takes longer than most commands

    values, true = each_label(margins, scores), np.array(gold_labels)
    areas = [roc_auc_score(true == label, values[:, label]) for label in np.unique(true)]
    return Auroc(float(np.mean(areas)))


def of_run(config: Config, run_dir: RunDir) -> Agreement | None:
    """Compare a run's labels.jsonl with gold; raises ConfigError if the run has none yet."""
    return compared(_gold(config, run_dir), {id_: row.label for id_, row in _scored(run_dir).items()})


def figures_of_run(config: Config, run_dir: RunDir) -> dict[str, Any]:
    """Do the same, and return all figures as they are printed."""
    gold_labels, rows = _gold(config, run_dir), _scored(run_dir)
    found = compared(gold_labels, {id_: row.label for id_, row in rows.items()})
    if found is None:
        return {"labelled": 0}
    known = [(gold_labels[id_], row) for id_, row in rows.items() if id_ in gold_labels]
    area = auroc([label for label, _ in known], [list(row.logprobs.values()) for _, row in known])
    return {
        **asdict(found),
        "agreement": found.share,
        "auroc": area.value,
        **({"auroc_left_out": area.left_out} if area.left_out else {}),
        "confusions": _confusions(known),
    }


def _confusions(known: Sequence[tuple[int, Scored]]) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a gold label and another label, by their words."""
    wrong = Counter((true, row.label) for true, row in known if row.label != true)
    names = dict(enumerate(known[0][1].logprobs))
    return [
        {"gold": names.get(true, str(true)), "label": names.get(label, str(label)), "examples": count}
        for (true, label), count in wrong.most_common(CONFUSIONS)
    ]


def _gold(config: Config, run_dir: RunDir) -> Mapping[str, int]:
    return gold.unpacked(run_dir.gold) if run_dir.gold.exists() else gold.load(config.task)


def _scored(run_dir: RunDir) -> dict[str, Scored]:
    try:
        return read_scored(run_dir.labels)
    except FileNotFoundError as error:
        raise ConfigError(f"{run_dir.labels} is not there: the run has not ended") from error


def main() -> None:
    """Print the figures as JSON."""
    try:
        topic = describe.asked_for_help(sys.argv[1:])
        if topic is not None:
            describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
            return
        run_dir = RunDir(existing_run(load(sys.argv[1:]).run))
        figures = figures_of_run(load_file(run_dir.config), run_dir)
    except IcmError as error:
        sys.exit(f"evaluate: {error}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
