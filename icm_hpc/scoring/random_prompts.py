"""Prompts that nobody has sent before, so that nothing of them is in a server's cache."""

import json
import secrets
from collections.abc import Sequence

Pieces = Sequence[int] | Sequence[str]  # what prompts are drawn from: token ids, or words
TEXT = "a river of small stones runs under the old bridge and past seven green doors near town"


def prompt(pieces: Pieces, n: int) -> bytes:
    """Return a prompt of n token ids, or the text of n words, which are n tokens or more."""
    found = [secrets.choice(pieces) for _ in range(n)]
    return json.dumps(" ".join(map(str, found)) if are_words(pieces) else found).encode()


def are_words(pieces: Pieces) -> bool:
    """Return whether pieces are words; else they are token ids."""
    return isinstance(pieces[0], str)
