"""Label words that can be told apart: by a reader of labels.jsonl, and by the way in which answers are read."""

import unicodedata
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from ..core.types import LabelNumber
from ..errors import TaskError

MOST = np.iinfo(LabelNumber).max + 1
REMEDY = "choose other words (task.labels of a task of your own, or task.label_words=[...])"


def require_distinct(words: Sequence[str]) -> None:
    """Raise TaskError for a label word that is blank, or equal to another but for space and case; or for too many."""
    if len(words) > MOST:
        raise TaskError(f"there are {len(words):,} label words, and at most {MOST:,} can be used")
    known: dict[str, str] = {}
    for word in words:
        if not word.strip():
            raise TaskError(f"the label word {word!r} is blank: {REMEDY}")
        plain = _plain(word)
        if plain in known:
            raise TaskError(f"the label words {known[plain]!r} and {word!r} are equal but for space or case: {REMEDY}")
        known[plain] = word


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
