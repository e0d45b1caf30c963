"""Files of columns, Parquet and Arrow, read in pieces: a small one may hold more than fits in memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import TaskError
from . import unzipping
from .rows import Row, first_line, require_shallow, shown

BATCH_ROWS = 256  # that are read at one time
ROW_BYTES = 100  # that a row takes at least


def rows_of(path: Path, kind: str) -> Iterator[Row]:
    """Yield the rows of a Parquet or Arrow file."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise TaskError(
            f"task.data={path}: {kind} files need: pip install 'icm-hpc[hub]'; or convert it to .jsonl"
        ) from error
    try:
        rows = list(_within(path, _batches(parquet, path) if kind == ".parquet" else _arrow(pa, path)))
    except Exception as error:  # the library raises many kinds; each ends the command with its text
        raise TaskError(f"task.data={path}: cannot be read as {kind}: {first_line(error)}") from error
    for number, values in enumerate(rows, start=1):
        yield Row(f"{path}, row {number}", values)


def _within(path: Path, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of batches; raises ValueError once they are more than a file of this size may hold."""
    limit = unzipping.bound(path.stat().st_size)
    held = 0
    for batch in batches:
        twice = next((name for name in batch.schema.names if batch.schema.names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"it has the column {shown(twice)} twice")
        batch.validate(full=True)  # or a damaged file is read beyond its end
        held += _own_bytes(batch) + ROW_BYTES * batch.num_rows
        if held > limit:
            raise ValueError(f"holds more than {limit / 1e6:.0f} MB: convert it to .jsonl")
        for values in batch.to_pylist():
            require_shallow("", values)
            yield values


def _own_bytes(batch: Any) -> int:
    """Return the bytes of a batch without the dictionaries that it shares with others."""
    columns = (column.indices if hasattr(column, "indices") else column for column in batch.columns)
    return int(sum(column.nbytes for column in columns))


def _batches(parquet: Any, path: Path) -> Iterator[Any]:
    with parquet.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS)


def _arrow(pa: Any, path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            yield from pa.ipc.open_stream(source)
            return
        yield from map(file.get_batch, range(file.num_record_batches))
