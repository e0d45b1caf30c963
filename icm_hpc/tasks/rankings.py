"""More than two answers to a question, in one column: each two of them are a pair of preference data."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import combinations
from typing import Any

from .rows import Dropped, Row

LISTS = ("answers", "responses", "completions", "candidates", "outputs")
TEXTS = ("text", "response", "answer", "content", "completion", "output")  # of an answer that is an object
SCORES = ("score", "overall_score", "rating", "reward")  # of an answer that is an object: higher is better
RANKS = ("rank", "ranking")  # of an answer that is an object: lower is better
PAIR = ("answer_a", "answer_b")


def pairs_of(row: Row) -> Iterator[Row]:
    """Yield each two answers of a row as a row of their own; nothing where no column has several answers.

    The better one is known where answers are objects with a score or rank, or where the row has a list of these beside them.
    Raises Dropped for an answer that is no text.
    """
    column = next((name for name in LISTS if isinstance(row.value(name), list)), None)
    if column is None:
        return
    answers = row.value(column)
    if len(answers) < 2:
        raise Dropped("there is one answer, and nothing to compare it with")
    texts = [_text(answer) for answer in answers]
    values = [_value(row, place, answer, len(answers)) for place, answer in enumerate(answers)]
    kept = {key: value for key, value in row.values.items() if key not in (column, *SCORES, *RANKS)}
    for pair in combinations(range(len(texts)), 2):
        # By their texts: the places in a list that is sorted by rank tell the better one.
        first, second = sorted(pair, key=lambda place: texts[place])
        winner = _winner(values[first], values[second])
        yield Row(
            row.where,
            {**kept, PAIR[0]: texts[first], PAIR[1]: texts[second], "winner": winner},
            part=f"-{pair[0]}-{pair[1]}",
        )


def _text(answer: Any) -> str:
    found = next((answer[key] for key in TEXTS if answer.get(key)), None) if isinstance(answer, Mapping) else answer
    if not isinstance(found, str):
        raise Dropped("an answer is no text")
    return found


def _value(row: Row, place: int, answer: Any, count: int) -> float | Decimal | None:
    """Return how good an answer is said to be, None if nothing says it."""
    for keys, sign in ((SCORES, 1), (RANKS, -1)):
        for key in keys:
            listed = row.value(key)
            beside = listed[place] if isinstance(listed, list) and len(listed) == count else None
            found = answer.get(key) if isinstance(answer, Mapping) else beside
            if isinstance(found, (int, float, Decimal)) and not isinstance(found, bool) and found == found:
                return sign * found
    return None


def _winner(first: float | Decimal | None, second: float | Decimal | None) -> str | None:
    if first is None or second is None:
        return None
    return "tie" if first == second else PAIR[first < second]
