"""The course of the searches, from their traces."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..rundir.folder import RunDir
from ..rundir.trace import last_line, line_of
from .figures import Course

SEARCHES = 8  # whose course is shown
POINTS = 300  # of each
KEYS = {"step", "energy", "temperature", "pool", "counts"}


def folders(run_dir: RunDir) -> list[Path]:
    """Return the folders of all searches that have a trace."""
    return sorted(path.parent for path in run_dir.path.glob("shard-*/trace.jsonl"))


def reached(run_dir: RunDir) -> tuple[int, int]:
    """Return the steps and the labelled examples of all searches, as they were last saved."""
    last = [line for folder in folders(run_dir) if (line := last_line(folder / "trace.jsonl"))]
    return sum(line["step"] for line in last), sum(line.get("pool", 0) for line in last)


def courses(run_dir: RunDir, best: Mapping[int, int]) -> list[Course]:
    """Return the courses of the first searches; `best` has the restart that became a shard's result, where one did."""
    names = {run_dir.shard(shard, restart).name for shard, restart in best.items()}
    found = (_course(folder, is_best=folder.name in names) for folder in folders(run_dir)[:SEARCHES])
    return [course for course in found if course.steps]


def _course(folder: Path, *, is_best: bool) -> Course:
    lines = list(_whole_lines(folder / "trace.jsonl"))
    every = max(1, -(-len(lines) // POINTS))
    kept = lines[::every] + ([lines[-1]] if lines and (len(lines) - 1) % every else [])
    return Course(
        name=folder.name,
        is_best=is_best,
        steps=[line["step"] for line in kept],
        energy=[line["energy"] for line in kept],
        temperature=[line["temperature"] for line in kept],
        pool=[line["pool"] for line in kept],
        counts=[line["counts"] for line in kept],
    )


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the steps of a trace up to what a kill has left of a line."""
    with path.open("rb") as file:
        for line in file:
            values = line_of(line)
            if values is None or not values.keys() >= KEYS:
                return
            yield {key: values[key] for key in KEYS}
