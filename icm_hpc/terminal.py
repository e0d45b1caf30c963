"""Where commands print what people read."""

import io
import sys

from rich.console import Console

WIDTH = 240  # columns of a table that is not shown on a terminal

if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack what texts and label words are written in

# Texts are the user's: nothing in them is markup, and no line of them is folded.
console = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH
)


def printable(text: str) -> str:
    """Return a text of the data with an escape for each sign that a terminal would obey, but for line breaks."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)
