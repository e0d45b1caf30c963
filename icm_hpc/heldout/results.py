"""The held-out evaluation of a run, from what its folder holds: figures of each condition that is done, and their tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from ..config.schema import Config
from ..driver.labels import Scored, read_scored
from ..errors import TaskError
from ..rundir.folder import RunDir
from ..tasks import gold
from . import conditions, statistics
from .conditions import Done
from .statistics import Compared, Figures, Given, Ints

NO_GOLD = "no held-out row has a gold label"


@dataclass(frozen=True, slots=True)
class Result:
    """A condition that is done."""

    done: Done
    figures: Figures | None  # null without labels, or without gold labels of the held-out rows


@dataclass(frozen=True, slots=True)
class Results:
    """What held-out rows say of a run."""

    rows: int
    compared: int  # rows that have a gold label
    majority: float | None  # accuracy of one label for all; null without gold labels
    conditions: Mapping[str, Result]  # those that are done
    missing: Sequence[str]  # those that are not
    tests: Sequence[Compared]  # of each two conditions


def of_run(config: Config, run_dir: RunDir) -> Results | None:
    """Return the results of a run, None if it has no held-out rows. Raises TaskError for damaged files."""
    if not run_dir.test_data.exists():
        return None
    pool, test = conditions.tasks_of(run_dir, config)
    done = conditions.done(run_dir, conditions.mark_of(config, pool, test))
    known = gold.unpacked(run_dir.test_gold) if run_dir.test_gold.exists() else {}
    compared = [example for example in test.examples if str(example.id) in known]
    true = np.array([known[str(example.id)] for example in compared], dtype=np.int64)
    _, groups = np.unique([example.group for example in compared], return_inverse=True)
    given: dict[str, list[Given]] = {}
    for name, one in done.items():
        ids = [str(example.id) for example in compared]
        given[name] = [_given(conditions.labels_of(run_dir, name, seed), ids) for seed in one.seeds] if ids else []
    found = {name: Result(one, _figures(true, groups, given[name], one)) for name, one in done.items()}
    mains = [(name, given[name][done[name].seeds.index(done[name].main)]) for name in done if given[name]]
    return Results(
        rows=len(test.examples),
        compared=len(compared),
        majority=float(np.bincount(true).max() / len(true)) if compared else None,
        conditions=found,
        missing=[name for name in conditions.wanted(config) if name not in done],
        tests=[statistics.mcnemar(true, one, other) for one, other in combinations(mains, 2)],
    )


def _given(path: Path, ids: Sequence[str]) -> Given:
    try:
        rows: Mapping[str, Scored] = read_scored(path)
        labels = np.array([rows[id_].label for id_ in ids], dtype=np.int64)
        logprobs = np.array([list(rows[id_].logprobs.values()) for id_ in ids], dtype=np.float64)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TaskError(
            f"{path} cannot be read ({error}): remove it, and resume the run, which writes it again"
        ) from error
    return Given(labels, logprobs)


def _figures(true: Ints, groups: Ints, given: Sequence[Given], one: Done) -> Figures | None:
    return statistics.figures(true, groups, given, one.seeds.index(one.main)) if given else None
