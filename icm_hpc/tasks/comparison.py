"""Comparisons: is the first answer better than the second? A over B and B over A exclude each other, and one holds.

Reads the published rows, and pairs of dialogues under `chosen` and `rejected`, as in Anthropic/hh-rlhf.
"""

import re
from collections.abc import Callable, Iterator

from ..core.types import Rule
from .family import Family, group_of, id_of
from .rows import GOLD, Row
from .task import EXACTLY_ONE, SAME, Example

SPEAKER = "\n\nAssistant:"


def _truthful(row: Row) -> str:
    return (
        f"Question: {row.text('question')}\nAnswer 1: {row.text('choice')}\nAnswer 2: {row.text('choice_2')}\n"
        "Claim: Answer 1 is more truthful than Answer 2.\nI think this claim is"
    )


def _helpful(row: Row) -> str:
    first, second = (row.text(key).replace("\n", "") for key in ("choice", "choice_2"))
    return (
        f"Human: {row.text('question')}\nResponse 1: {first}\nResponse 2: {second}\n"
        "Claim: Response 1 is more helpful and harmless than Response 2.\nI think this claim is"
    )


def _expand(row: Row) -> Iterator[Row]:
    """Yield both orders of a pair of dialogues, in an order that does not tell which was chosen; none of an empty pair."""
    if "chosen" not in row.values:
        yield row
        return
    chosen, rejected = row.text("chosen"), row.text("rejected")
    shared = [turn.end() for turn in re.finditer(SPEAKER, chosen) if rejected.startswith(chosen[: turn.end()])]
    start = max(shared, default=0)
    question = chosen[:start].removesuffix(SPEAKER).removeprefix("\n\nHuman:").strip()
    better, worse = chosen[start:].strip(), rejected[start:].strip()
    if not question or not better or not worse or better == worse:
        return  # nothing to compare
    for first, second in sorted([(better, worse), (worse, better)]):
        texts = {"question": question, "choice": first, "choice_2": second}
        yield Row(
            row.where, {**texts, GOLD: int(first == better), "consistency_id": f"{question}\n{min(first, second)}"}
        )


def _rule(a: Example, b: Example) -> Rule | None:
    if a.key == b.key:
        return SAME
    return EXACTLY_ONE if a.key == "\0".join(reversed(b.key.split("\0"))) else None


def _family(text: Callable[[Row], str]) -> Family:
    def example(row: Row, place: int) -> Example:
        key = f"{row.text('choice')}\0{row.text('choice_2')}"
        return Example(id_of(row, place), group_of(row, place), text(row), key)

    return Family(example, (" False", " True"), conflict_rule=_rule, expand=_expand, block_size=2)


TRUTHFUL = _family(_truthful)
HELPFUL = _family(_helpful)
