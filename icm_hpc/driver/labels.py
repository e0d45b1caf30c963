"""The result: labels.jsonl, one line an example."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.energy import margins
from ..core.types import UNLABELLED, Labels, Scores
from ..rundir.files import write_atomically
from ..tasks import Task


@dataclass(frozen=True, slots=True)
class Labelled:
    """A shard at its end."""

    task: Task
    searched: Labels  # as the search itself ended
    labels: Labels  # with the last pass: no example is unlabelled
    scores: Scores


def write_labels(path: Path, task: Task, results: Iterable[Labelled]) -> None:
    """Write the labels of all shards, one line an example, in the task's order."""
    lines = {str(line["id"]): line for result in results for line in _lines(result)}
    ordered = [json.dumps(lines[str(example.id)], ensure_ascii=False) for example in task.examples]
    write_atomically(path, ("\n".join(ordered) + "\n").encode())


def _lines(result: Labelled) -> Iterator[dict[str, Any]]:
    """Yield id, text, label, its word, log-probabilities, margin (nats), group, and what gave the label."""
    task, labels = result.task, result.labels
    signed = margins(result.scores, labels)
    for i, example in enumerate(task.examples):
        yield {
            "id": example.id,
            "text": example.text,
            "label": int(labels[i]),
            "word": task.label_words[labels[i]].strip(),
            "logprobs": {word.strip(): float(p) for word, p in zip(task.label_words, result.scores[i], strict=True)},
            "margin": float(signed[i]),
            "group": example.group,
            "by": "completion" if result.searched[i] == UNLABELLED else "search",
        }


def read_labels(path: Path) -> dict[str, int]:
    """Return the label of each example, by id as a text."""
    with path.open(encoding="utf-8") as file:
        return {str(row["id"]): int(row["label"]) for row in map(json.loads, file)}
