"""Where commands print what people read, and how they end if they cannot go on."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from .errors import IcmError, Interrupted, OutputError

WIDTH = 240  # columns of a table that is not shown on a terminal
INTERRUPTED = 130  # exit code

for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:  # it was closed, and the next file that is opened must not take its place
        setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))

if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack what texts and label words are written in


# Texts are the user's: nothing in them is markup, and no line of them is folded.
console = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH
)


class _Output:
    """Standard output of a command: what cannot be written is reported once, and then discarded."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.goes_on = False  # else the command ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write a text. Raises OutputError, or BrokenPipeError if its reader has gone."""
        with self._reported():
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is in the buffer; raises the same."""
        with self._reported():
            self._file.flush()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            words = f"standard output cannot be written: {error.strerror}"
            if not self.goes_on:
                raise error if isinstance(error, BrokenPipeError) else OutputError(words) from error
            with contextlib.suppress(OSError):
                print(f"icm_hpc: {words}; the run goes on", file=sys.stderr)


def go_on_without_output() -> None:
    """Let a command that starts a run go on if nothing more can be printed."""
    if isinstance(sys.stdout, _Output):
        sys.stdout.goes_on = True


@contextmanager
def reporting_errors() -> Iterator[None]:
    """End a command with one line and exit code 1 for an error that its user can act on, with 130 after an interruption."""
    try:
        with contextlib.redirect_stdout(_Output(sys.stdout)) as output:
            try:
                yield
            finally:
                output.flush()
    except IcmError as error:
        sys.exit(f"icm_hpc: {error}")
    except Interrupted:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader has gone, such as head
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # of no file
            raise
        sys.exit(f"icm_hpc: {_words(error)}")


def _words(error: OSError) -> str:
    if error.filename is None and not _has_working_directory():
        return "the working directory was removed: change to a folder that is there"
    return f"{error.filename or 'a file'}: cannot be read or written: {error.strerror}"


def _has_working_directory() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True
