"""The labels that a run has: its result, or what its searches have saved so far."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .. import tasks
from ..config.schema import Config
from ..config.searching import method_of
from ..core import energy
from ..core.types import UNLABELLED, Labelling, pool_of
from ..driver.labels import LabelRow
from ..errors import CheckpointError, IcmError
from ..exports.lines import Line, lines_of, row_at
from ..rundir import checkpoint
from ..rundir.folder import RunDir
from ..tasks import Task
from .figures import Numbers

SO_FAR = "search, so far"

log = logging.getLogger(__name__)

Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled examples of a run."""

    ids: Sequence[str]
    labels: Ints  # [M]
    margins: Numbers  # [M]; nats
    stability: Numbers  # [M]; NaN where unknown
    row: Callable[[int], LabelRow]  # by place in these
    best: Mapping[int, int]  # the restart that the labels of a shard are of

    @property
    def by_id(self) -> dict[str, int]:
        """The label of each example."""
        return dict(zip(self.ids, self.labels.tolist(), strict=True))


def task_of(config: Config, run_dir: RunDir) -> Task | None:
    """Return the run's task, or None if it cannot be loaded here."""
    try:
        return tasks.load(config.task, seed=config.search.seed, copy=run_dir.data)
    except IcmError as error:
        log.warning("the examples cannot be loaded: %s", error)
        return None


def finished(run_dir: RunDir, best: Mapping[int, int]) -> Labelled:
    """Return what labels.jsonl holds; one row at a time is in memory."""
    with run_dir.labels.open("rb") as file:
        lines = lines_of(file)
    return Labelled(
        ids=[line.id for line in lines],
        labels=np.array([line.label for line in lines], dtype=np.int64),
        margins=np.array([line.margin for line in lines], dtype=np.float64),
        stability=np.array([np.nan if line.stability is None else line.stability for line in lines]),
        row=lambda place: _read(run_dir, lines[place]),
        best=best,
    )


def _read(run_dir: RunDir, line: Line) -> LabelRow:
    with run_dir.labels.open("rb") as file:
        return row_at(file, line)


def saved(config: Config, run_dir: RunDir, task: Task) -> Labelled:
    """Return the labels of the searches' saved states: in each shard those of the one that has come furthest."""
    parts = tasks.divided(task, config.search.pool_size, config.search.beyond).shards
    reached = {number: one for number in range(len(parts)) if (one := _furthest(config, run_dir, number))}
    rows: list[Callable[[], LabelRow]] = []
    labels, margins = [], []
    for number, (_, labelling) in reached.items():
        signed = energy.margins(labelling.scores, labelling.labels)
        for index, margin in zip(pool_of(labelling.labels).tolist(), signed.tolist(), strict=True):
            rows.append(partial(_row, parts[number], labelling, index, margin))
            labels.append(int(labelling.labels[index]))
            margins.append(margin)
    return Labelled(
        ids=[str(parts[n].examples[i].id) for n, (_, one) in reached.items() for i in pool_of(one.labels)],
        labels=np.array(labels, dtype=np.int64),
        margins=np.array(margins, dtype=np.float64),
        stability=np.full(len(labels), np.nan),
        row=lambda place: rows[place](),
        best={number: restart for number, (restart, _) in reached.items()},
    )


def _furthest(config: Config, run_dir: RunDir, number: int) -> tuple[int, Labelling] | None:
    """Return the restart of a shard whose saved labels are the most, and of these the best, and its labelling."""
    found = []
    for restart in range(config.search.restarts):
        try:
            state = checkpoint.load_newest(run_dir.shard(number, restart), method_of(config.search).state)
        except CheckpointError as error:
            log.warning("%s", error)
            continue
        if state:
            reached = state.state.best if config.search.result == "best" else state.state.current
            found.append((restart, reached))
    labelled = [(restart, one) for restart, one in found if (one.labels != UNLABELLED).any()]
    return max(labelled, key=lambda one: (len(pool_of(one[1].labels)), one[1].energy), default=None)


def _row(task: Task, labelling: Labelling, index: int, margin: float) -> LabelRow:
    example, label = task.examples[index], int(labelling.labels[index])
    words = [word.strip() for word in task.label_words]
    return LabelRow(
        id=example.id,
        text=example.text,
        label=label,
        word=words[label],
        logprobs=dict(zip(words, labelling.scores[index].tolist(), strict=True)),
        margin=margin,
        group=example.group,
        by=SO_FAR,
        stability=None,
    )
