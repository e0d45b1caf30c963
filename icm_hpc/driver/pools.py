"""The pool of a finished run, whose labels are shown for examples that it does not have."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import tasks
from ..config.fingerprint import sha256_of
from ..config.loading import load_file, run_folder
from ..config.schema import Config
from ..core import energy
from ..core.json_values import from_json, typed
from ..core.types import Annealing, Labelling, Labels, Scores, frozen_labels
from ..errors import ConfigError, TaskError
from ..rundir.folder import RunDir
from ..tasks import Task, kept
from .labels import read_scored


def task_of_run(run_dir: RunDir) -> Task:
    """Return the examples of a run's pool: of several shards the first. Raises ConfigError where there are no labels yet."""
    config = load_file(run_dir.config)
    if config.search.pool_run:
        raise ConfigError(
            f"{run_dir.path.name} has no pool of its own: its labels are given by that of"
            f" run={Path(config.search.pool_run).name}; name that one"
        )
    if not run_dir.labels.exists():
        raise ConfigError(run_dir.no_labels)
    task = tasks.load(config.task, seed=config.search.seed, copy=run_dir.data)
    return tasks.divided(task, config.search.pool_size, config.search.beyond).shards[0]


def task_for(config: Config) -> Task:
    """Return the examples of the pool that a run is to be shown: its own copy, or those of the run that it names."""
    copy = RunDir(run_folder(config.run)).pool_data
    if copy.exists():
        return tasks.load(config.task, seed=config.search.seed, copy=copy)
    return task_of_run(RunDir(Path(config.search.pool_run)))


def least(config: Config) -> int:
    """Return how many examples a run needs: a search two of them, a pool that is shown to them one."""
    return 1 if config.search.pool_run else 2


def knows(config: Config, setting: str) -> bool:
    """Return whether a run that is shown the pool of another has what that one has measured for a setting."""
    if not config.search.pool_run:
        return False
    runs = RunDir(run_folder(config.run)), RunDir(Path(config.search.pool_run))
    files = {tasks.WORD_PRIOR: [run.word_prior for run in runs], tasks.LABEL_PRIOR: [run.label_prior for run in runs]}
    return any(path.exists() for path in files[setting])


def files_of_run(run_dir: RunDir, copy: RunDir) -> dict[Path, bytes]:
    """Return, by path, what the folder of another run is to hold of the pool of a finished one."""
    pool, rows = task_of_run(run_dir), read_scored(run_dir.labels)
    try:
        own = [rows[str(example.id)] for example in pool.examples]
    except LookupError:
        raise ConfigError(f"{run_dir.labels} does not have all examples of the run's pool") from None
    labels, scores = [row.label for row in own], [list(row.logprobs.values()) for row in own]
    if {len(row) for row in scores} != {len(pool.label_words)}:
        raise ConfigError(f"{run_dir.labels} does not have the log-probability of every label word")
    shown = json.dumps({"pool": _digest(pool), "labels": labels, "scores": scores})
    measured = ((copy.word_prior, run_dir.word_prior), (copy.label_prior, run_dir.label_prior))
    priors = {path: own.read_bytes() for path, own in measured if own.exists()}
    return {**priors, copy.pool_data: tasks.packed(pool), copy.pool: shown.encode()}


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool of another run."""

    task: Task
    labels: Labels
    scores: Scores

    def labelling(self, annealing: Annealing) -> Labelling:
        """Return its labels with their energy."""
        return energy.evaluation(self.task.problem(), annealing, self.labels, self.scores).labelling


def of_copy(config: Config, run_dir: RunDir) -> Pool:
    """Return the pool that a run's folder has a copy of. Raises TaskError if it is damaged."""
    try:
        pool = replace(
            tasks.load(config.task, seed=config.search.seed, copy=run_dir.data),
            examples=kept.unpacked(run_dir.pool_data),
        )
        shown = typed(Shown, from_json(run_dir.pool.read_bytes()))
        labels, scores = frozen_labels(shown.labels), np.array(shown.scores, dtype=np.float64)
        is_its = shown.pool == _digest(pool)
        if is_its and scores.shape != (len(labels), len(pool.label_words)):
            raise ValueError("a label or a score is missing")
    except (OSError, ValueError, OverflowError) as error:
        raise TaskError(f"{run_dir.pool}: the pool cannot be read: {error}") from error
    if not is_its:
        raise TaskError(f"{run_dir.pool}: its labels are of other examples than {run_dir.pool_data} has")
    return Pool(pool, labels, scores)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the folder of a run holds of the pool that it shows."""

    pool: str  # digest of its examples
    labels: list[int]
    scores: list[list[float]]


def _digest(pool: Task) -> str:
    return sha256_of(f"{one.id} {one.text}" for one in pool.examples)
