"""Grade-school mathematics: is this solution of the problem right?

Two solutions of one problem that end in different answers cannot both be right; those that end in the same share the label.
"""

import json
import re

from ..core.types import Rule
from . import claims
from .family import Family
from .numbers import Answer, answer_in, exact, last_number
from .rows import Row
from .task import AT_MOST_ONE, SAME, Example

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
HASHES = re.compile(r"####([^\n]*)")
SAID = re.compile(r"\banswer(?:\s+is|\s*[:=])[\s:*]*([^\n]*?)(?=[.!?]*\**(?:\s*$|[.!?]\**\s)|\n)", re.IGNORECASE)


def _example(row: Row, place: int) -> Example:
    """Return a row with `question`, `choice` (the solution) and perhaps `answer` (what the solution ends in)."""
    claim = claims.example(row, place)
    found = _answer(row.value("answer"), row.text("choice"))
    key = json.dumps([found.number, found.text, sorted(found.units)]) if found.number or found.text else ""
    return Example(claim.id, claim.group, claim.text, key=key)


def final_answer(stated: object, solution: str) -> str:
    """Return the answer that a solution ends in, in one form for all ways to write a number; empty if there is none.

    Without a stated one it is what follows ####, or stands in a box, or follows "the answer is", or the last number.
    """
    found = _answer(stated, solution)
    return found.number or found.text


def _answer(stated: object, solution: str) -> Answer:
    if stated is not None:
        text = str(stated)
        return _marked(text) or answer_in(text)
    return _numeric(_marked(solution) or last_number(solution))


def _marked(text: str) -> Answer | None:
    """Return the answer that a text marks as such, the last of each kind; None if it marks none."""
    for mark in (HASHES, BOXED, SAID):
        found = mark.findall(text)
        if found:
            return answer_in(found[-1])
    return None


def _numeric(found: Answer) -> Answer:
    """Return an answer only if it is a number: the words of a solution are no answer by themselves."""
    return found if found.number else Answer()


def _rule(a: Example, b: Example) -> Rule | None:
    """Return the rule of two answers; None where they cannot be compared.

    Units that neither agree nor contain each other (2 hours, 120 minutes) leave open whether numbers mean the same, and so do two
    texts of several words.
    """
    if not a.key or not b.key:
        return None
    if a.key == b.key:
        return SAME
    (number, text, units), (other, other_text, other_units) = json.loads(a.key), json.loads(b.key)
    if number and other:
        if not (set(units) <= set(other_units) or set(other_units) <= set(units)):
            return None
        return SAME if number == other or _is_share(number, units, other, other_units) else AT_MOST_ONE
    one_word = text.isalnum() and other_text.isalnum()
    return AT_MOST_ONE if one_word else None


def _is_share(number: str, units: list[str], other: str, other_units: list[str]) -> bool:
    """Return whether one is a percentage, and the other the same without the sign: 50 %, 0.5."""
    if ("percent" in units) == ("percent" in other_units):
        return False
    percentage, share = (number, other) if "percent" in units else (other, number)
    return exact(f"{percentage}e-2") == share


FAMILY = Family(
    _example,
    (" False", " True"),
    conflict_rule=_rule,
    group=claims.question_of,
    group_prefix="question",
    conflicts_need="two rows with one question (or consistency_id), each with a final answer",
)
