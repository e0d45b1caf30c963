"""A model's tokens without its server: counted where its tokenizer is on this disk, estimated where it is not."""

import math
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

# What the tokenizers of today's models make of English text, near enough: words with the space before them, numbers of up
# to three digits, runs of signs and of white space.
_PIECES = re.compile(r" ?[^\W\d_]+|\d{1,3}| ?[^\s\w]+|\s+|_")
OVERESTIMATE = 1.05  # estimated over real counts, at most: an allowance, none of six was over 1
UNDERESTIMATE = 1.15  # real over estimated counts, at most: 1.04 to 1.14 on six data sets with SmolLM2's tokenizer


class LocalTokenizer:
    """Answers as a served model's /tokenize does."""

    def __init__(self, model: str, folder: Path | None) -> None:
        file = folder / "tokenizer.json" if folder else None
        self.model = model
        encode = _encoder(file) if file and file.is_file() else None
        self.exact = encode is not None
        self._encode = encode or _estimated

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text; `special` adds what starts a sequence, which an estimate leaves out."""
        return [self._encode(text, special) for text in texts]


def estimate(text: bytes) -> int:
    """Return how many tokens a text is, at most, as estimates go."""
    return math.ceil(UNDERESTIMATE * len(_PIECES.findall(text.decode())))


def _encoder(file: Path) -> Callable[[str, bool], list[int]] | None:
    """Return what encodes by this file, or None if it is of a kind that is not known here."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # the library raises nothing narrower
        return None
    return lambda text, special: list(tokenizer.encode(text, add_special_tokens=special).ids)


def _estimated(text: str, special: bool) -> list[int]:  # noqa: ARG001
    return [zlib.crc32(piece.encode()) for piece in _PIECES.findall(text)]
