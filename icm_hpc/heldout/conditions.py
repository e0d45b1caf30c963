"""Which conditions a run's held-out rows are labelled by, and which of them are done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tasks
from ..config.fingerprint import sha256_of
from ..config.schema import CONDITIONS, Config
from ..driver.shard import asked_of
from ..rundir.files import read_json, write_json
from ..rundir.folder import RunDir
from ..tasks import Task

SEVERAL = ("icm", "random", "bootstrap")  # have a labelling of the pool for each search, or seed
# Scorings of the whole pool that a labelling is expected to take: for its scores, of a baseline also for its end.
SCORINGS = {"icm": 1, "gold": 1, "zero_shot": 0, "random": 3, "bootstrap": 5}
NO_GOLD = "none: no example of the pool has a gold label"


@dataclass(frozen=True, slots=True)
class Done:
    """How the held-out rows were labelled by one condition."""

    mark: str  # of the rows and of the run's labels
    seeds: tuple[int, ...]  # of its labellings of the pool
    main: int  # the one of them that is the result
    left_out: str = ""  # why there is none
    # What it took, labels of the pool included, in the start that ended it.
    prompts: int = 0
    prompt_tokens: int = 0
    server_computed_tokens: int | None = None  # by the server's own counters; null if it does not report them


def wanted(config: Config) -> tuple[str, ...]:
    """Return the conditions in the order of CONDITIONS; of a run whose labels need no pool, zero_shot alone."""
    asked = config.evaluate.conditions or (["zero_shot"] if config.search.method == "zero_shot" else CONDITIONS)
    return tuple(name for name in CONDITIONS if name in asked)


def done(run_dir: RunDir, mark: str) -> dict[str, Done]:
    """Return the conditions that are done, by name: of these rows and of these labels of the run, with all their files."""
    return {
        name: one
        for name, one in _recorded(run_dir).items()
        if one.mark == mark and all(labels_of(run_dir, name, seed).exists() for seed in one.seeds)
    }


def record(run_dir: RunDir, name: str, one: Done) -> None:
    """Note that a condition is done."""
    both = {**_recorded(run_dir), name: one}
    write_json(_path(run_dir), {key: _as_json(both[key]) for key in CONDITIONS if key in both})


def mark_of(config: Config, pool: Task, test: Task) -> str:
    """Return what a condition that is done must agree with: a search that went on has other labels."""
    return sha256_of([asked_of(config, pool).mark(), test.sha256()])


def is_finished(run_dir: RunDir, config: Config) -> bool:
    """Return whether all conditions are done that the settings ask for; so they are without a test."""
    if not run_dir.test_data.exists():
        return True
    return set(wanted(config)) <= set(done(run_dir, mark_of(config, *tasks_of(run_dir, config))))


def tasks_of(run_dir: RunDir, config: Config) -> tuple[Task, Task]:
    """Return the examples whose labels are shown, of several shards the first, and the held-out ones."""
    task = tasks.load(config.task, seed=config.search.seed, copy=run_dir.data)
    test = tasks.load_test(config.task, task, seed=config.search.seed, copy=run_dir.test_data)
    assert test is not None, "they have a copy"
    return tasks.divided(task, config.search.pool_size, config.search.beyond).shards[0], test


def labels_of(run_dir: RunDir, condition: str, seed: int) -> Path:
    """Return the file of the labels that held-out rows were given by one labelling of the pool, as labels.jsonl."""
    return run_dir.test / f"{condition}-{seed}.jsonl"


def _recorded(run_dir: RunDir) -> dict[str, Done]:
    """Return what is noted; of a damaged file nothing, and the conditions are written again from what was saved of them."""
    try:
        found: dict[str, Done] = read_json(_path(run_dir), dict[str, Done]) or {}
    except ValueError:
        return {}
    return {name: one for name, one in found.items() if one.left_out or one.main in one.seeds}


def _as_json(one: Done) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Done.__dataclass_fields__}


def _path(run_dir: RunDir) -> Path:
    return run_dir.test / "conditions.json"
