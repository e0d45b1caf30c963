"""Pages, code and messages use plain words: those that a reader would search for."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCOPE = (
    "*.md",
    "docs/*.md",
    "slurm/*",
    "configs/**/*.yaml",
    "icm_hpc/**/*.py",
    "benchmarks/*.py",
    "tests/cluster/README.md",
    "tests/**/*.py",
)
FILES = sorted({file for pattern in SCOPE for file in ROOT.glob(pattern)} - {Path(__file__)})  # which lists the words

BANNED = {
    r"befall\w*": "happen to",
    r"obituary": "server exit error",
    r"in vain": "without progress",
    r"anew": "again; start anew: restart",
    r"told of|tells? of": "report, name",
    r"mend(s|ed|ing)?": "repair, correct",
    r"likeliest": "top-k, most probable",
    r"wants": "requires, expects",
    r"(is|are) to be had": "is available",
    r"lest": "so that ... not",
    r"(?<=[,;:]\s)of which": "start a new sentence",
    r"whole or not there": "atomic",
    r"as if refused": "speculatively: as if rejected",
    r"kind word": "grace period, SIGTERM",
    r"strangers?": "other users",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_uses_plain_words(file: Path) -> None:
    text = re.sub(
        r"\btest_\w+", lambda name: name[0].replace("_", " "), file.read_text()
    )  # a test's name is a sentence
    found = [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; say: {instead}"
        for words, instead in BANNED.items()
        for match in re.finditer(rf"\b(?:{words})\b".replace(" ", r"\s+"), text, re.IGNORECASE)
    ]
    assert found == []


def test_the_check_finds_a_banned_word() -> None:
    assert re.search(rf"\b(?:{'|'.join(BANNED)})\b", "vLLM is started anew")
