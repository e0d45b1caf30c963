"""The result: labels.jsonl, one line an example."""

import json
from collections.abc import Sequence
from pathlib import Path

from .core.pool import margins
from .core.types import UNLABELLED, Labels, Scores
from .rundir import write_atomically
from .tasks import Task


def write_labels(path: Path, task: Task, searched: Labels, labels: Labels, scores: Scores) -> None:
    """Write id, text, label, its word, log-probabilities, margin (nats), group, and whether the search or the last pass
    gave the label; in the task's order. `searched` are the labels that the search itself ended with.
    """
    signed = margins(scores, labels)
    lines: Sequence[str] = [
        json.dumps(
            {
                "id": example.id,
                "text": example.text,
                "label": int(labels[i]),
                "word": task.label_words[labels[i]].strip(),
                "logprobs": {word.strip(): float(p) for word, p in zip(task.label_words, scores[i], strict=True)},
                "margin": float(signed[i]),
                "group": example.group,
                "by": "completion" if searched[i] == UNLABELLED else "search",
            },
            ensure_ascii=False,
        )
        for i, example in enumerate(task.examples)
    ]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def read_labels(path: Path) -> dict[str, int]:
    """Return the label of each example, by id."""
    with path.open(encoding="utf-8") as file:
        return {row["id"]: int(row["label"]) for row in map(json.loads, file)}
