"""`python -m icm_hpc.evaluate run=NAME`: a run's labels beside gold labels, and its held-out rows by condition.

Reads what is there and asks no server. Of the pool: how many labels agree with gold, what one label for all would reach,
balanced accuracy, AUROC, and the most frequent confusions. Of held-out rows (task.test, task.test_share), for each condition:
accuracy, balanced accuracy, AUROC and calibration error with 95 % intervals, and McNemar's test against the other conditions.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from .config import describe
from .config.flags import split_flags
from .config.loading import existing_run, load, load_file
from .config.schema import Config
from .core.energy import each_label, margins
from .driver.labels import Scored, read_scored
from .errors import ConfigError
from .heldout import results
from .heldout.results import Results
from .heldout.statistics import Figures, Interval
from .rundir.folder import RunDir
from .tasks import gold
from .terminal import console, reporting_errors

ARGUMENTS = {
    "run=NAME": "the run: the name of its folder (required)",
    "json=false": "true: print all figures as one JSON object",
    "run.root=runs": "the folder of all runs",
}
CONFUSIONS = 5  # pairs of labels that are printed
COLUMNS: tuple[tuple[str, Callable[[Figures], Interval | None]], ...] = (
    ("accuracy", lambda one: one.accuracy),
    ("balanced accuracy", lambda one: one.balanced_accuracy),
    ("AUROC", lambda one: one.auroc),
    ("calibration error", lambda one: one.calibration_error),
)
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
        raise ConfigError(run_dir.no_labels) from error


@reporting_errors()
def main() -> None:
    """Print the figures."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
        return
    words, flags = split_flags(sys.argv[1:], "json")
    run_dir = RunDir(existing_run(load(words, own=ARGUMENTS).run))
    config = load_file(run_dir.config)
    test = results.of_run(config, run_dir)
    figures = figures_of_run(config, run_dir)
    if flags.get("json"):
        print(json.dumps({**figures, "test": asdict(test) if test else None}))
    else:
        print_figures(figures, test)


def print_figures(figures: Mapping[str, Any], test: Results | None) -> None:
    """Print the figures of a run as tables."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _pool_rows(figures):
        table.add_row(name, value)
    console.print(table)
    if test is None:
        return
    console.print(f"\n{_of_test(test)}")
    if test.majority is None:
        return
    table = Table("condition", *(name for name, _ in COLUMNS), "labellings", box=None, padding=(0, 2, 0, 0))
    for name, result in test.conditions.items():
        cells = [_shown(of(result.figures)) if result.figures else "-" for _, of in COLUMNS]
        table.add_row(
            name, *cells, f"{len(result.done.seeds)}" + (f" ({result.done.left_out})" if result.done.left_out else "")
        )
    console.print(table)
    for one in test.tests:
        console.print(
            f"{one.first} and {one.second}: {one.only_first} rows only right by the first, {one.only_second} only by the"
            f" second (McNemar's exact test: p = {one.p:.3g})"
        )


def _pool_rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not figures["labelled"]:
        yield "pool", "no gold labels"
        return
    yield "pool", f"{figures['agreeing']} of {figures['labelled']} labels agree with gold ({figures['agreement']:.3f})"
    yield "one label for all", f"{figures['majority']:.3f}"
    yield "balanced accuracy", f"{figures['balanced_accuracy']:.3f}"
    yield "AUROC", f"{figures['auroc']:.3f}" if figures["auroc"] is not None else figures["auroc_left_out"]
    for one in figures["confusions"]:
        yield "confusion", f"gold {one['gold']}, labelled {one['label']}: {one['examples']}"


def _of_test(test: Results) -> str:
    missing = f"; not done yet: {', '.join(test.missing)} (resume the run)" if test.missing else ""
    if test.majority is None:
        return f"held-out: {test.rows} rows, {results.NO_GOLD}{missing}"
    return (
        f"held-out: {test.compared} rows with gold labels (one label for all: {test.majority:.3f}); with 95 %"
        f" intervals{missing}"
    )


def _shown(one: Interval | None) -> str:
    return "-" if one is None else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


if __name__ == "__main__":
    main()
