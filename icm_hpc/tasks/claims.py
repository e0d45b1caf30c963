"""Claims that are true or false, with the published prompt (Wen et al. 2025).

A claim has no conflict by itself: the published rule is made of the gold labels. Rows may say which claims exclude each
other: of those with the same `exclusion_group` at most one is true.
"""

from collections.abc import Sequence

from ..core.types import Rule
from ..errors import TaskError
from .family import Family, group_of, id_of
from .rows import Row
from .task import AT_MOST_ONE, Example

QUESTION, CLAIM, END = "Question: ", "\nClaim: ", "\nI think this claim is"  # of the prompt


def example(row: Row, place: int) -> Example:
    """Return a row with `question` and `choice` as an example."""
    text = f"{QUESTION}{row.text('question')}{CLAIM}{row.text('choice')}{END}"
    return Example(id_of(row, place), group_of(row, place), text, key=row.name("exclusion_group") or "")


def claimed(claim: Example) -> tuple[str, str]:
    """Return the question and the choice of an example; a question that holds "Claim:" at the start of a line ends there."""
    question, _, choice = claim.text.removeprefix(QUESTION).removesuffix(END).partition(CLAIM)
    return question, choice


def question_of(row: Row) -> str:
    """Return a row's question, the same for all ways to space it."""
    return " ".join(row.text("question").split())


def _rule(a: Example, b: Example) -> Rule | None:
    return AT_MOST_ONE if a.key and a.key == b.key else None


def _require_exclusions_in_one_group(examples: Sequence[Example]) -> None:
    first: dict[str, Example] = {}
    for claim in examples:
        other = first.setdefault(claim.key, claim)
        if claim.key and other.group != claim.group:
            raise TaskError(
                f"exclusion_group {claim.key!r} is in two groups, {other.group!r} ({other.id}) and {claim.group!r}"
                f" ({claim.id}): give its rows one consistency_id, or none"
            )


FAMILY = Family(
    example,
    (" False", " True"),
    conflict_rule=_rule,
    check=_require_exclusions_in_one_group,
    group=lambda row: row.name("exclusion_group"),
    group_prefix="exclusion",
    conflicting="share an exclusion_group",
    claimed=claimed,
)
