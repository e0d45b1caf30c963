"""The result: labels.jsonl, one line an example."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.agreement import Shares
from ..core.energy import margins
from ..core.json_values import from_json, typed
from ..core.types import UNLABELLED, Labels, Scores
from ..errors import DamagedFile
from ..rundir.applied import Piece
from ..rundir.files import write_atomically
from ..rundir.outcome import Outcome, stability_of
from ..tasks import Task
from ..tasks.rows import Id


@dataclass(frozen=True, slots=True)
class Labelled:
    """Examples at the end: of a shard, or beyond the pool."""

    task: Task
    labels: Labels  # no example is unlabelled
    scores: Scores
    by: Sequence[str]  # of each example
    stability: Shares | None = None  # of more than one search


def of_outcome(task: Task, found: Outcome) -> Labelled:
    """Return a shard's examples."""
    by = ["completion" if label == UNLABELLED else "search" for label in found.searched]
    return Labelled(task, found.labels, found.scores, by, stability_of(found))


def of_piece(task: Task, piece: Piece) -> Labelled:
    """Return the examples beyond the pool."""
    return Labelled(task, piece.labels, piece.scores, ["apply"] * len(piece.labels))


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A line of labels.jsonl: one example, with its label."""

    id: Id  # as in the data
    text: str  # as it stands in prompts
    label: int  # the number of its label word
    word: str  # the label word, without spaces around it
    # log P of each label word given the other examples, nats; with search.word_prior less log P(word | premise)
    logprobs: dict[str, float]
    margin: float  # log P(label) - log P(all other labels), nats: under 0, the model prefers another label
    group: str  # of examples about the same question
    # search; completion: the last pass, which labels what the search left; apply: beyond the pool, given the pool's labels
    by: str
    stability: float | None  # share of the other restarts that agree (aligned); null with one search


def write_labels(path: Path, task: Task, results: Iterable[Labelled]) -> None:
    """Write the labels of all shards, one line an example, in the order of the data."""
    lines = {str(row.id): asdict(row) for result in results for row in _lines(result)}
    examples = sorted(task.examples, key=lambda example: example.place)
    ordered = [json.dumps(lines[str(example.id)], ensure_ascii=False) for example in examples]
    write_atomically(path, ("\n".join(ordered) + "\n").encode())


def _lines(result: Labelled) -> Iterator[LabelRow]:
    task, labels = result.task, result.labels
    signed = margins(result.scores, labels)
    for i, example in enumerate(task.examples):
        yield LabelRow(
            id=example.id,
            text=example.text,
            label=int(labels[i]),
            word=task.label_words[labels[i]].strip(),
            logprobs={word.strip(): float(p) for word, p in zip(task.label_words, result.scores[i], strict=True)},
            margin=float(signed[i]),
            group=example.group,
            by=result.by[i],
            stability=_known(result.stability, i),
        )


def _known(shares: Shares | None, index: int) -> float | None:
    return None if shares is None or np.isnan(shares[index]) else float(shares[index])


@dataclass(frozen=True, slots=True)
class Scored:
    """A label with what it was chosen by."""

    label: int
    logprobs: Mapping[str, float]  # log P of each label word, in the order of labels, nats; empty if they were not kept


def read_scored(path: Path) -> dict[str, Scored]:
    """Return the label of each example with its log-probabilities, by id as a text."""
    found = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = typed(dict[str, Any], from_json(line))
                label, logprobs = typed(int, row.get("label")), typed(dict[str, float], row.get("logprobs") or {})
                found[str(typed(Id, row.get("id")))] = Scored(label, logprobs)
            except ValueError as error:
                raise DamagedFile(
                    f"{path}, line {number}: is damaged ({error}); python -m icm_hpc.resume run=NAME writes the file again"
                ) from error
    return found
