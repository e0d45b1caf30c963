"""A model's tokens without its server: counted where its tokenizer is on this disk, estimated where it is not."""

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

# What the tokenizers of today's models make of English text, near enough: words with the space before them, numbers of up
# to three digits, runs of signs and of white space. Other scripts are in one piece up to the next space: no tokenizer has
# fewer tokens than that, and one that was trained on English has nearly as many as the text has bytes.
_PIECES = re.compile(r" ?(?:[^\W\d_]|[^\x00-\x7f])+|\d{1,3}| ?[^\s\w]+|\s+|_", re.ASCII)
_ENGLISH = re.compile(r"[\x00-\x7f\xa0\u2010-\u2026]*")  # with its dashes and quotation marks
OVERESTIMATE = 1.05  # estimated over real counts of English, at most: an allowance, none of four was over 1
UNDERESTIMATE = (
    1.15  # real over estimated counts of English, at most: 1.02 to 1.15 on four data sets with SmolLM2's tokenizer
)
WORD_LETTERS = 12  # of an English word that may be one token; a longer run is a name, a key, a sequence or a compound
TOKEN_LETTERS = 4  # of a token in such a run
TOKEN_BYTES = 3  # of a token of another script, in UTF-8: about one sign of Chinese or Thai, 1.5 letters of Russian


class Encode(Protocol):
    """Returns the tokens of a text; `special` adds what starts a sequence."""

    def __call__(self, text: str, *, special: bool) -> list[int]: ...


class LocalTokenizer:
    """Answers as a served model's /tokenize does."""

    def __init__(self, model: str, folder: Path | None) -> None:
        file = folder / "tokenizer.json" if folder else None
        self.model = model
        self._tokenizer = _read(file) if file and file.is_file() else None
        self.exact = self._tokenizer is not None
        self._encode = _encoder(self._tokenizer) if self._tokenizer else _estimated

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text; `special` adds what starts a sequence, which an estimate leaves out."""
        return [self._encode(text, special=special) for text in texts]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token; of an estimate there is none."""
        return [self._tokenizer.decode([one], skip_special_tokens=False) if self._tokenizer else "" for one in ids]


def estimate(text: str) -> int:
    """Return how many tokens a text is, at most as such estimates go; another script may have up to three times as many."""
    return math.ceil(UNDERESTIMATE * sum(map(_tokens, _pieces(text))))


def at_least(text: str) -> float:
    """Return how many tokens a text has whatever the tokenizer, near enough."""
    return sum(1 for _ in _pieces(text)) / OVERESTIMATE


def at_most(text: str) -> float:
    """Return how many tokens a text has at most.

    Of all but ordinary words in an English text that is a bound: a token of a byte-level tokenizer, or of one that falls back
    to bytes, is one byte or more. One is added for the space that some put before a text.
    """
    if not _ENGLISH.fullmatch(text):
        return 1 + _bytes(text)
    return 1 + sum(UNDERESTIMATE if _is_english(piece) else _bytes(piece) for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    return (found.group() for found in _PIECES.finditer(text))


def _is_english(piece: str) -> bool:
    """Return whether a piece may be an ordinary English word, with the space before it."""
    letters = piece.lstrip(" ")
    written = letters.islower() or letters.istitle() or len(letters) == 1
    return letters.isascii() and letters.isalpha() and written and len(letters) <= WORD_LETTERS


def _bytes(piece: str) -> int:
    return len(piece.encode(errors="surrogatepass"))


def _tokens(piece: str) -> int:
    """Return how many tokens a piece may be."""
    if piece.isascii():
        return 1 if _is_english(piece) else max(1, len(piece.strip()) // TOKEN_LETTERS)
    others = sum(map(_bytes, re.findall(r"[^\x00-\x7f]+", piece)))
    return max(1, round(others / TOKEN_BYTES + (_bytes(piece) - others) / (2 * TOKEN_LETTERS)))


def _read(file: Path) -> Tokenizer | None:
    """Return the tokenizer of this file, or None if it is of a kind that is not known here."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # the library raises nothing narrower
        return None
    tokenizer.no_truncation()  # some files hold a limit, which a server does not apply
    tokenizer.no_padding()
    return tokenizer


def _encoder(tokenizer: Tokenizer) -> Encode:
    return lambda text, *, special: list(tokenizer.encode(text, add_special_tokens=special).ids)


def _estimated(text: str, *, special: bool) -> list[int]:  # noqa: ARG001
    return [
        zlib.crc32(f"{number} {piece}".encode(errors="surrogatepass"))
        for piece in _pieces(text)
        for number in range(_tokens(piece))
    ]
