"""States of runs as a table: a line a run."""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .state import Status

COLUMNS = ("run", "state", "server", "job", "step", "energy", "flips", "last save", "attempts", "ETA")
DISPENSABLE = (
    "attempts",
    "flips",
    "job",
    "last save",
    "server",
    "step",
)  # where a screen is narrow, the first one first
NAME_WIDTH, STATE_WIDTH = (10, 40), (8, 30)  # on a screen: at least, at most; what is longer is cut


def lines(found: Sequence[Status]) -> Text:
    """Return all columns in full, a line a run of any length.

    A rich table measures and styles every cell, which takes a second for 1,000 runs.
    """
    rows = [COLUMNS, *(tuple(_cells(one).values()) for one in found)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    header, *rest = ("  ".join(map(set_cell_size, row, widths)).rstrip() for row in rows)
    return Text("\n").join([Text(header, "bold"), *map(Text, rest)])


def fitting(found: Sequence[Status], console: Console, width: int) -> Table:
    """Return a table of this width: long names are cut, and columns left out, until it fits."""
    for left_out in range(len(DISPENSABLE) + 1):
        columns = [column for column in COLUMNS if column not in DISPENSABLE[:left_out]]
        table = _cut(found, columns)
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= width:
            return table
    return _cut(found, columns, NAME_WIDTH[0], STATE_WIDTH[0])


def _cut(
    found: Sequence[Status], columns: Sequence[str], name: int = NAME_WIDTH[1], state: int = STATE_WIDTH[1]
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        widest = {"run": name, "state": state}.get(column)
        table.add_column(column, no_wrap=True, overflow="ellipsis", max_width=widest)
    for one in found:
        cells = _cells(one)
        table.add_row(*(cells[column] for column in columns))
    return table


def _cells(one: Status) -> dict[str, str]:
    values = (
        one.run,
        state_words(one),
        one.server,
        one.job,
        steps(one),
        one.energy if one.energy is None else f"{one.energy:.3f}",
        one.flips,
        one.saved_s if one.saved_s is None else f"{duration(one.saved_s)} ago",
        one.attempts,
        one.eta_s if one.eta_s is None else duration(one.eta_s),
    )
    return {column: "-" if value is None else str(value) for column, value in zip(COLUMNS, values, strict=True)}


def state_words(one: Status) -> str:
    """Return the state of a run's driver, and how it exited if it failed."""
    return one.driver if one.exit is None else f"{one.driver} ({_exit_words(one.exit)})"


def steps(one: Status) -> str | None:
    """Return the steps of a run, of so many where that is known, and the examples beyond the pool."""
    if one.step is None or one.steps is None:
        return None if one.step is None else str(one.step)
    beyond = f" +{one.applied}/{one.to_apply}" if one.to_apply else ""
    return f"{one.step}/{one.steps}{beyond}"


def duration(seconds: float) -> str:
    """Return H:MM:SS."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _exit_words(exit_code: str) -> str:
    """Return CODE:SIGNAL in words."""
    code, _, number = exit_code.partition(":")
    return f"exit code {code}" if number in ("", "0") else f"signal {number}"
