"""Sentiment of short reviews: built in. The two of a pair are about one subject, and exactly one praises it."""

from pathlib import Path

from .family import Family, group_of, id_of
from .rows import Row
from .task import EXACTLY_ONE, Example

DATA = Path(__file__).with_name("reviews.jsonl")


def _example(row: Row, place: int) -> Example:
    return Example(id_of(row, place), group_of(row, place), f"Review: {row.text('text')}\nSentiment:")


FAMILY = Family(
    _example,
    (" negative", " positive"),
    conflict_rule=lambda _a, _b: EXACTLY_ONE,
    data=DATA,
    block_size=2,
    group_columns=("pair", "consistency_id"),
    conflicting="share a pair",
)
