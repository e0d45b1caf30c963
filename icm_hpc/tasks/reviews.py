"""Sentiment of short reviews: the built-in task. The two of a pair are about one subject, and exactly one praises it."""

from pathlib import Path

from ..config import TaskConfig
from . import rows
from .task import EXACTLY_ONE, Example, Task

DATA = Path(__file__).with_name("reviews.jsonl")


def load(_config: TaskConfig) -> Task:
    """Return the built-in reviews."""
    examples = tuple(
        Example(row.text("id"), row.text("pair"), f"Review: {row.text('text')}\nSentiment:")
        for row in rows.read_file(DATA)
    )
    return Task("reviews", examples, (" negative", " positive"), conflict_rule=lambda _a, _b: EXACTLY_ONE)
