"""Grade-school mathematics: is this solution of the problem right?

Two solutions of one problem that end in different answers cannot both be right; those that end in the same share the label.
"""

import json
import re
from fractions import Fraction
from functools import lru_cache

from ..core.types import Rule
from . import claims
from .family import Family
from .numbers import MAX_DIGITS, Answer, answer_in, last_number
from .rows import Row
from .task import AT_MOST_ONE, SAME, Example

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
WORKED_OUT = re.compile(rf"-?\d{{1,{MAX_DIGITS}}}(?:[./]\d{{1,{MAX_DIGITS}}})?")
HASHES = re.compile(r"####([^\n]*)")
# An end is looked for at the first of several equal signs only: at each of them, thousands take minutes.
FIRST = r"(?:(?<![.!?])|(?![.!?]))(?:(?<!\*)|(?!\*))(?:(?<!\s)|(?!\s))"
SAID = re.compile(
    rf"\banswer(?:\s+is|\s*[:=])[\s:*]*([^\n]*?)(?=\n|{FIRST}[.!?]*\**(?:\s*$|[.!?]\**\s))", re.IGNORECASE
)


def _example(row: Row, place: int) -> Example:
    """Return a row with `question`, `choice` (the solution) and perhaps `answer` (what the solution ends in)."""
    claim = claims.example(row, place)
    blank = "" if isinstance(row.values.get("answer"), str) else None
    stated = row.value("answer")
    found = _answer(blank if stated is None else stated, row.text("choice"))
    key = json.dumps([found.number, found.text, sorted(found.units)]) if found.number or found.text else ""
    return Example(claim.id, claim.group, claim.text, key=key)


def final_answer(stated: object, solution: str) -> str:
    """Return the answer that a solution ends in, in one form for all ways to write a number; empty if there is none.

    Without a stated one it is what follows ####, or stands in a box, or follows "the answer is", or the last number. The last
    number is no answer where the stated one is blank: published data have that where a solution was cut off.
    """
    found = _answer(stated, solution)
    return found.number or found.text


def _answer(stated: object, solution: str) -> Answer:
    text = "" if stated is None else str(stated)
    if text.strip():
        return _marked(text) or answer_in(text)
    found = _marked(solution) or (last_number(solution) if stated is None else Answer())
    return found if found.number else Answer()  # the words of a solution are no answer by themselves


def _marked(text: str) -> Answer | None:
    """Return the answer that a text marks as such, the last of each kind; None if it marks none."""
    for mark in (HASHES, BOXED, SAID):
        found = mark.findall(text)
        if found:
            return answer_in(found[-1])
    return None


def _rule(a: Example, b: Example) -> Rule | None:
    """Return the rule of two answers; None where they cannot be compared.

    Units that neither agree nor contain each other (2 hours, 120 minutes) leave open whether numbers mean the same, and so do
    two texts of several words.
    """
    if not a.key or not b.key:
        return None
    if a.key == b.key:
        return SAME
    (number, text, units), (other, other_text, other_units) = _read(a.key), _read(b.key)
    if number and other:
        if not (units <= other_units or other_units <= units):
            return None
        return SAME if number == other or _is_share(number, units, other, other_units) else AT_MOST_ONE
    one_word = text.isalnum() and other_text.isalnum()
    return AT_MOST_ONE if one_word else None


@lru_cache(maxsize=4096)
def _read(key: str) -> tuple[str, str, frozenset[str]]:
    number, text, units = json.loads(key)
    return number, text, frozenset(units)


def _is_share(number: str, units: frozenset[str], other: str, other_units: frozenset[str]) -> bool:
    """Return whether one is a percentage, and the other the same without the sign: 50 %, 0.5."""
    if ("percent" in units) == ("percent" in other_units):
        return False
    percentage, share = (number, other) if "percent" in units else (other, number)
    if not (WORKED_OUT.fullmatch(percentage) and WORKED_OUT.fullmatch(share)):
        return False
    return Fraction(percentage) / 100 == Fraction(share)


FAMILY = Family(
    _example,
    (" False", " True"),
    conflict_rule=_rule,
    group=claims.question_of,
    group_prefix="question",
    conflicting="share a question (or consistency_id) and both have a final answer",
    claimed=claims.claimed,
)
