"""Labels as tables: Parquet, CSV, and the arrays of cleanlab."""

import csv as csv_format
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..driver.labels import LabelRow
from ..errors import ConfigError
from .selection import Selection

BATCH = 1000  # rows in memory
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what a spreadsheet may take for the beginning of a formula


def features(selection: Selection) -> Any:
    """Return the columns of a Parquet file, as `datasets.Features`; raises ConfigError where that library is missing."""
    try:
        from datasets import ClassLabel, Features, Sequence, Value
    except ImportError as error:
        raise ConfigError("to=parquet and to=hf need: pip install 'icm-hpc[hub]'; or use to=csv") from error
    label = ClassLabel(names=list(selection.names))
    text, number = Value("string"), Value("float64")
    columns = {"id": text, "text": text, "label": label, "word": text, "logprobs": Sequence(number), "margin": number}
    columns |= {"group": text, "by": text, "stability": number}
    return Features({**columns, "gold": label} if selection.gold is not None else columns)


def parquet(path: Path, selection: Selection) -> int:
    """Write a Parquet file, with the names of the labels in its metadata, as `datasets` reads them."""
    schema = features(selection).arrow_schema
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    count, rows = 0, selection.rows()
    with ParquetWriter(path, schema) as writer:
        while batch := [_columns(selection, row) for row in islice(rows, BATCH)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _columns(selection: Selection, row: LabelRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in LabelRow.__dataclass_fields__}
    values |= {"id": str(row.id), "logprobs": list(row.logprobs.values())}
    if selection.gold is not None:
        values["gold"] = selection.gold.get(str(row.id))
    return values


def csv(path: Path, selection: Selection) -> int:
    """Write a CSV file in UTF-8; with `spreadsheet`, a byte order mark, and ' before what would be a formula."""
    count = 0
    with path.open("w", encoding="utf-8-sig" if selection.spreadsheet else "utf-8", newline="") as file:
        writer = csv_format.writer(file)
        names = [name for name in LabelRow.__dataclass_fields__ if name != "logprobs"]
        gold = ["gold"] if selection.gold is not None else []
        header = [*names, *gold, *(f"logprob_{name}" for name in selection.names)]
        writer.writerow(_cells(selection, header))
        for row in selection.rows():
            values = _columns(selection, row)
            count += 1
            writer.writerow(_cells(selection, [*(values[name] for name in (*names, *gold)), *values["logprobs"]]))
    return count


def _cells(selection: Selection, values: list[Any]) -> Iterator[Any]:
    for value in values:
        is_formula = isinstance(value, str) and value.startswith(FORMULA)
        yield f"'{value}" if selection.spreadsheet and is_formula else value


def cleanlab(path: Path, selection: Selection) -> int:
    """Write an .npz file: `labels` (i64[N]), `pred_probs` (f64[N, K], rows sum to 1), `ids` (texts) and `names` (of labels).

    The probabilities are out of sample: each is given the other examples, not its own label.
    """
    count, k = len(selection.kept()), len(selection.words)
    labels, logs = np.empty(count, np.int64), np.empty((count, k))
    ids = []
    for number, row in enumerate(selection.rows()):
        labels[number], logs[number] = row.label, list(row.logprobs.values())
        ids.append(str(row.id))
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    probabilities = shares / shares.sum(axis=1, keepdims=True)
    with path.open("wb") as file:
        np.savez(file, labels=labels, pred_probs=probabilities, ids=np.array(ids), names=np.array(selection.names))
    return count
