"""Grade-school mathematics: is this solution of the problem right?

Two solutions of one problem that end in different answers cannot both be right; those that end in the same share the label.
"""

import re
from decimal import Decimal, InvalidOperation

from ..core.types import Rule
from . import claims
from .family import Family
from .rows import Row
from .task import AT_MOST_ONE, SAME, Example

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def _example(row: Row, place: int) -> Example:
    """Return a row with `question`, `choice` (the solution) and perhaps `answer` (what the solution ends in)."""
    claim = claims.example(row, place)
    return Example(claim.id, claim.group, claim.text, key=final_answer(row.name("answer"), row.text("choice")))


def final_answer(stated: str | None, solution: str) -> str:
    """Return the answer that a solution ends in, in one form for all ways to write a number; empty if there is none.

    Without a stated one it is the last number of the solution.
    """
    if stated is None:
        stated = (NUMBER.findall(solution) or [""])[-1]
    plain = stated.strip().strip("$%. ").replace(",", "")
    try:
        return str(Decimal(plain).normalize() + 0)  # no -0
    except InvalidOperation:
        return plain.casefold()


def _rule(a: Example, b: Example) -> Rule | None:
    if not a.key or not b.key:
        return None
    return SAME if a.key == b.key else AT_MOST_ONE


FAMILY = Family(_example, (" False", " True"), conflict_rule=_rule)
