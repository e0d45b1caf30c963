"""The course of a search's energy, from samples of its trace, as a line of blocks."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

BLOCKS = "▁▂▃▄▅▆▇█"
WHOLE_BYTES = 4 * 2**20  # of a trace that is read in full; of a longer one, as many lines as there are columns
LINE_BYTES = 2**18  # in which the end of a line is looked for
HEAD_BYTES = 100  # of a line, which begin with step and energy (trace.TraceLine)
HEAD = re.compile(rb'\{"step": (\d+), "energy": (-?[0-9.e+-]+),')

Point = tuple[int, float]  # step, energy after it


def course(trace: Path, points: int) -> tuple[Point, ...]:
    """Return about so many points of a trace, or all of them if it is short; none if there is no trace."""
    try:
        return _course(trace, trace.stat().st_size, points)
    except FileNotFoundError:
        return ()


@functools.lru_cache(maxsize=64)
def _course(trace: Path, size: int, points: int) -> tuple[Point, ...]:
    """Return the points of a trace of this size: it only grows, and steps that are done again are the same."""
    with trace.open("rb") as file:
        if size <= WHOLE_BYTES:
            lines = file.read(size).split(b"\n")[:-1]
        else:
            lines = [_line_from(file, size * number // points) for number in range(points)]
            lines.append(_line_from(file, max(0, size - LINE_BYTES), last=True))
    heads = (HEAD.match(line[:HEAD_BYTES]) for line in lines)
    return tuple(dict.fromkeys((int(head[1]), float(head[2])) for head in heads if head))


def _line_from(file: IO[bytes], offset: int, *, last: bool = False) -> bytes:
    """Return the head of the first line that begins after this offset, or of the last whole line; empty if none is near."""
    file.seek(offset)
    if last:
        return file.read(LINE_BYTES).rpartition(b"\n")[0].rpartition(b"\n")[2]
    if offset and not file.readline(LINE_BYTES).endswith(b"\n"):
        return b""
    return file.readline(HEAD_BYTES)


def by_column(points: Sequence[Point], width: int) -> list[float]:
    """Return the energy at the end of each of at most `width` equal parts of the steps."""
    if not points or width < 1:
        return []
    first, last = points[0][0], points[-1][0]
    width = min(width, last - first + 1)
    ends = {(step - first) * width // (last - first + 1): energy for step, energy in points}
    found = [points[0][1]]
    for column in range(width):
        found.append(ends.get(column, found[-1]))
    return found[1:]


def sparkline(values: Sequence[float]) -> str:
    """Return a block a value, from the lowest to the highest of them."""
    lowest, highest = min(values, default=0.0), max(values, default=0.0)
    per_block = (highest - lowest) / (len(BLOCKS) - 1) or 1.0
    return "".join(BLOCKS[round((value - lowest) / per_block)] for value in values)
