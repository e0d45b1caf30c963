"""Label words that can be told apart: by a reader of labels.jsonl, and by the way in which answers are read."""

import unicodedata
from collections.abc import Sequence
from itertools import permutations

from ..errors import TaskError

REMEDY = "choose other words (task.labels of a task of your own, or task.label_words=[...])"


def require_distinct(words: Sequence[str]) -> None:
    """Raise TaskError for a label word that is blank, or equal to another but for space and case."""
    for word in words:
        if not word.strip():
            raise TaskError(f"the label word {word!r} is blank: {REMEDY}")
    for one, other in permutations(words, 2):
        if _plain(one) == _plain(other):
            raise TaskError(f"the label words {one!r} and {other!r} are equal but for space or case: {REMEDY}")


def require_readable_in_top_tokens(words: Sequence[str]) -> None:
    """Raise TaskError for a label word that another contains.

    search.scoring=top20 counts tokens that contain a label's name, and none that contains two.
    """
    for one, other in permutations(words, 2):
        if one.strip().lower() in other.strip().lower():
            raise TaskError(
                f"the label word {other!r} contains {one!r}: search.scoring=top20 counts a token for the one label whose name"
                f" it contains, so {other!r} would never be counted: {REMEDY}, or search.scoring=exact if the server is vLLM"
            )


def _plain(word: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", word).casefold().split())
