"""Topics of short sentences, four labels: built in. The two of a pair are about different topics."""

from pathlib import Path

from .family import Family
from .rows import Row
from .task import Example, different

WORDS = (" sports", " food", " music", " money")
RULE = different(len(WORDS))


def _example(row: Row, _place: int) -> Example:
    return Example(row.text("id"), row.text("pair"), f"Sentence: {row.text('text')}\nTopic:")


FAMILY = Family(
    _example,
    WORDS,
    conflict_rule=lambda _a, _b: RULE,
    data=Path(__file__).with_name("topics.jsonl"),
    block_size=2,
)
