"""Several runs beside one another: accuracy by condition and model, the settings in which they differ, how far labels agree.

Runs that differ in search.seed alone are one series, whose bars are means over seeds.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from .. import evaluate
from ..config.fingerprint import result_settings
from ..config.loading import load_file
from ..config.schema import Config
from ..config.searching import BY_METHOD
from ..driver.labels import read_scored
from ..errors import ConfigError
from ..heldout import results
from ..heldout.results import Results
from ..heldout.statistics import Interval
from ..rundir.folder import RunDir
from . import comparison
from .figures import POOL, Bar, Series

UNNAMED = ("search.seed", *(f"search.{key}" for key in BY_METHOD))  # what series are not named by
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the labels of two runs agree, on the examples that both have."""

    first: str
    second: str
    shared: int
    share: float | None  # null without shared examples
    kappa: float | None  # Cohen's; null where one of them has one label only


@dataclass(frozen=True, slots=True)
class Beside:
    """Runs beside one another."""

    series: Sequence[Series]
    differing: Sequence[tuple[str, Mapping[str, Any]]]  # a setting, and its value by run
    agreements: Sequence[Agreement]
    majority: float | None  # accuracy of one label for all, where all runs have the same


@dataclass(frozen=True, slots=True)
class _Run:
    name: str
    config: Config
    labels: Mapping[str, int]
    test: Results | None
    pool: Bar | None
    majority: float | None


def beside(run_dirs: Sequence[RunDir]) -> Beside:
    """Return runs beside one another. Raises ConfigError for one without labels."""
    runs = [_run(run_dir) for run_dir in run_dirs]
    settings = {run.name: result_settings(run.config) for run in runs}
    keys = sorted({key for one in settings.values() for key in one})
    differing = [key for key in keys if len({repr(one.get(key)) for one in settings.values()}) > 1]
    series: dict[str, list[_Run]] = defaultdict(list)
    for run in runs:
        others = [key for key in differing if key not in UNNAMED and not key.startswith("model.")]
        told = [f"{key.partition('.')[2]} {settings[run.name].get(key)}" for key in others]
        series[", ".join([run.config.model.name, *told])].append(run)
    majorities = {run.majority for run in runs}
    return Beside(
        series=[Series(name, [run.name for run in members], _bars(members)) for name, members in series.items()],
        differing=[(key, {name: one.get(key) for name, one in settings.items()}) for key in differing],
        agreements=[_agreement(one, other) for one, other in combinations(runs, 2)],
        majority=majorities.pop() if len(majorities) == 1 else None,
    )


def _run(run_dir: RunDir) -> _Run:
    config, name = load_file(run_dir.config), run_dir.path.name
    if not run_dir.labels.exists():
        raise ConfigError(f"{run_dir.path} has no labels yet: python -m icm_hpc.resume run={name}")
    labels = {id_: row.label for id_, row in read_scored(run_dir.labels).items()}
    test, pool, majority = results.of_run(config, run_dir), None, None
    agreement = evaluate.compared(comparison.gold_of(config, run_dir), labels)
    if agreement:
        low, high = stats.binomtest(agreement.agreeing, agreement.labelled).proportion_ci(CONFIDENCE, "wilson")
        share, majority = agreement.share, agreement.majority
        pool = Bar(POOL, Interval(share, float(low), float(high)), [share], agreement.labelled)
    return _Run(name, config, labels, test, pool, test.majority if test else majority)


def bars_of(test: Results) -> list[Bar]:
    """Return the bars of a run's held-out rows, of the conditions that are done and can be compared."""
    accuracies = {name: one.figures.accuracy for name, one in test.conditions.items() if one.figures}
    return [Bar(name, accuracy, [accuracy.value], test.compared) for name, accuracy in accuracies.items()]


def _bars(runs: Sequence[_Run]) -> list[Bar]:
    by_condition: dict[str, list[Bar]] = defaultdict(list)
    for run in runs:
        for bar in bars_of(run.test) if run.test else [run.pool] if run.pool else []:
            by_condition[bar.condition].append(bar)
    return [bars[0] if len(bars) == 1 else _mean(name, bars) for name, bars in by_condition.items()]


def _mean(name: str, bars: Sequence[Bar]) -> Bar:
    """Return the mean over runs. Runs that agree by accident have no wider certainty than their rows give."""
    values = [bar.accuracy.value for bar in bars]
    mean, error = float(np.mean(values)), float(stats.sem(values))
    over_runs = stats.t.interval(CONFIDENCE, len(values) - 1, mean, error) if error else (mean, mean)
    low = min(over_runs[0], np.mean([bar.accuracy.low for bar in bars]))
    high = max(over_runs[1], np.mean([bar.accuracy.high for bar in bars]))
    return Bar(name, Interval(mean, max(0.0, float(low)), min(1.0, float(high))), values, max(bar.rows for bar in bars))


def _agreement(one: _Run, other: _Run) -> Agreement:
    shared = [id_ for id_ in one.labels if id_ in other.labels]
    if not shared:
        return Agreement(one.name, other.name, 0, None, None)
    first, second = ([run.labels[id_] for id_ in shared] for run in (one, other))
    varied = len(set(first)) > 1 and len(set(second)) > 1
    kappa = float(cohen_kappa_score(first, second)) if varied else None
    return Agreement(one.name, other.name, len(shared), float(np.mean(np.equal(first, second))), kappa)
