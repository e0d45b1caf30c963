"""A run's own copy of its examples, as they were when it was submitted: without gold labels."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from ..core.json_values import from_json, typed
from ..errors import TaskError
from .rows import Id
from .task import Example
from .unzipping import unzipped


def packed(examples: Sequence[Example]) -> bytes:
    """Return examples as a run's folder keeps them: gzipped JSON lines, the same bytes for the same examples."""
    lines = [json.dumps([e.id, e.group, e.text, e.key, e.place], ensure_ascii=False) for e in examples]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def unpacked(path: Path) -> tuple[Example, ...]:
    """Return the examples of a run's folder; raises TaskError if they are damaged."""
    try:
        return tuple(map(_example, unzipped(path.read_bytes()).decode().split("\n")))
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: the run's copy of its data cannot be read: {error}") from error


def _example(line: str) -> Example:
    values = from_json(line)
    has_place = isinstance(values, list) and len(values) == 5  # earlier versions kept none
    kind = tuple[Id, str, str, str, int] if has_place else tuple[Id, str, str, str]
    return Example(*typed(kind, values))
