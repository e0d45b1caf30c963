"""Topics of short sentences, four labels: built in. The two of a pair are about different topics."""

from pathlib import Path

from .family import Family, group_of, id_of
from .rows import Row
from .task import Example, different

WORDS = (" sports", " food", " music", " money")
RULE = different(len(WORDS))


def _example(row: Row, place: int) -> Example:
    return Example(id_of(row, place), group_of(row, place), f"Sentence: {row.text('text')}\nTopic:")


FAMILY = Family(
    _example,
    WORDS,
    conflict_rule=lambda _a, _b: RULE,
    data=Path(__file__).with_name("topics.jsonl"),
    block_size=2,
    group_columns=("pair", "consistency_id"),
    conflicting="share a pair",
)
