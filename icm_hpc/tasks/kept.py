"""A run's own copy of its examples, as they were when it was submitted: without gold labels."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from ..errors import TaskError
from .task import Example


def packed(examples: Sequence[Example]) -> bytes:
    """Return examples as a run's folder keeps them: gzipped JSON lines, the same bytes for the same examples."""
    lines = [json.dumps([e.id, e.group, e.text, e.key], ensure_ascii=False) for e in examples]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def unpacked(path: Path) -> tuple[Example, ...]:
    """Return the examples of a run's folder; raises TaskError if they are damaged."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        return tuple(Example(*json.loads(line)) for line in lines)
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        raise TaskError(f"{path}: the run's copy of its data cannot be read: {error}") from error
