"""A run's labels beside its gold labels: agreement, confusion, calibration. The search never sees these."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import binomtest

from .. import evaluate
from ..config.schema import Config
from ..errors import IcmError
from ..heldout import statistics
from ..rundir.folder import RunDir
from ..tasks import gold
from .figures import GoldFigures
from .labelling import Ints, Labelled

TABLE = 12  # labels, at most, of a table of all pairs
CONFUSED = 20  # pairs of labels


def gold_of(config: Config, run_dir: RunDir) -> dict[str, int]:
    """Return the run's gold labels by id; empty without any, and where they cannot be read."""
    try:
        return gold.unpacked(run_dir.gold) if run_dir.gold.exists() else gold.load(config.task)
    except IcmError:
        return {}


def compared(found: Labelled, known: Mapping[str, int], words: Sequence[str]) -> GoldFigures | None:
    """Compare labels with gold labels; None without any for these examples."""
    agreement = evaluate.compared(known, found.by_id)
    if agreement is None:
        return None
    places = [place for place, id_ in enumerate(found.ids) if id_ in known]
    labels, true = found.labels[places], np.array([known[found.ids[place]] for place in places])
    right, probabilities = labels == true, expit(found.margins[places])
    interval = binomtest(agreement.agreeing, agreement.labelled).proportion_ci(method="wilson")
    bins = statistics.bins(probabilities, right)
    wrong = Counter((words[t], words[given]) for t, given in zip(true, labels, strict=True) if t != given)
    return GoldFigures(
        compared=agreement.labelled,
        agreeing=agreement.agreeing,
        low=float(interval.low),
        high=float(interval.high),
        majority=agreement.majority,
        balanced=agreement.balanced_accuracy,
        words=words,
        confusion=_confusion(true, labels, len(words)) if len(words) <= TABLE else (),
        confused=[(*pair, count) for pair, count in wrong.most_common(CONFUSED)],
        bins=bins,
        calibration_error=sum(one.count * abs(one.probability - one.agreement) for one in bins) / len(places),
    )


def _confusion(true: Ints, labels: Ints, n_labels: int) -> list[list[int]]:
    table = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(table, (true, labels), 1)
    return [[int(count) for count in row] for row in table]
