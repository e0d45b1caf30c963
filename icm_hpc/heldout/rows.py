"""The held-out rows of a run: as its settings name them, or its copy of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .. import tasks
from ..config import loading
from ..config.schema import Config
from ..rundir.folder import RunDir
from ..tasks import Task, gold

KEYS = ("data", "subset", "split", "test", "test_share", "test_limit")


def of_run(config: Config, run_dir: RunDir, pool: Task, *, is_new: bool) -> Task | None:
    """Return the held-out rows that a run is to have, None without any; a run that has them goes on with its copy.

    Raises TaskError for rows that cannot be used.
    """
    has_copy = not is_new and _has_copy(config, run_dir)
    copy = run_dir.test_data if has_copy else None
    return tasks.load_test(config.task, pool, seed=config.search.seed, copy=copy)


def files(config: Config, run_dir: RunDir, test: Task | None) -> dict[Path, bytes]:
    """Return, by path, what the folder of a run is to hold of its held-out rows; nothing if it has it."""
    if test is None or _has_copy(config, run_dir):
        return {}
    return {run_dir.test_gold: gold.packed(_gold_of(config, test)), run_dir.test_data: tasks.packed(test)}


def _has_copy(config: Config, run_dir: RunDir) -> bool:
    """Return whether a run's folder holds the rows that its settings name."""
    if not all(path.exists() for path in (run_dir.test_data, run_dir.test_gold, run_dir.config)):
        return False
    saved = loading.load_file(run_dir.config).task
    return all(getattr(saved, key) == getattr(config.task, key) for key in KEYS)


def _gold_of(config: Config, test: Task) -> Mapping[str, int]:
    named = config.task if config.task.test is None else replace(config.task, data=config.task.test)
    ids = {str(example.id) for example in test.examples}
    return {id_: label for id_, label in gold.found(named).labels.items() if id_ in ids}
