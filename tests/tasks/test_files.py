"""Files of rows: formats, encodings and folders that are read; what cannot be is one line that names file and row."""

import csv
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import TaskError
from icm_hpc.tasks import files

ROWS: list[dict[str, Any]] = [{"question": f"Q{i}, é?", "choice": f'"c"\n{i}', "label": i % 2} for i in range(4)]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"


def table(separator: str) -> str:
    """Return the rows as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


COLUMNS = {key: [row[key] for row in ROWS] for key in ROWS[0]}
BY_INDEX = {key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}
SPLIT = {"columns": list(COLUMNS), "index": [0, 1, 2, 3], "data": [list(row.values()) for row in ROWS]}
FILES: dict[str, bytes] = {
    "rows.jsonl": LINES.encode(),
    "rows.ndjson": LINES.encode(),
    "rows.JSONL": LINES.encode(),
    "rows.jsonl.gz": gzip.compress(LINES.encode()),
    "rows.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "packed.jsonl": gzip.compress(LINES.encode()),
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "bom.json": json.dumps(ROWS).encode("utf-8-sig"),
    "bom.jsonl": LINES.encode("utf-8-sig"),
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16.json": json.dumps(ROWS).encode("utf-16"),
    "lines.json": LINES.encode(),
    "crlf.jsonl": LINES.replace("\n", "\r\n").encode(),
    "list.jsonl": json.dumps(ROWS, indent=1).encode(),
    "data.json": json.dumps({"data": ROWS}).encode(),
    "versioned.json": json.dumps({"version": 1, "examples": ROWS}).encode(),
    "columns.json": json.dumps(COLUMNS).encode(),
    "by_index.json": json.dumps(BY_INDEX).encode(),
    "rows_by_name.json": json.dumps({str(i): row for i, row in enumerate(ROWS)}).encode(),
    "split.json": json.dumps(SPLIT).encode(),
    "2025_11_25": LINES.encode(),
    "rows.txt": LINES.encode(),
}


def read(data: Path, split: str = "train") -> list[dict[str, Any]]:
    """Return the values of the rows of a file or folder."""
    return [dict(row.values) for row in files.read(TaskConfig(name="claims", data=str(data), split=split), None)]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_by_its_name_or_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize(("name", "separator"), [("rows.csv", ","), ("rows.TSV", "\t"), ("rows.csv.gz", ",")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_and_all_its_values_are_texts(tmp_path: Path, name: str, separator: str, encoding: str) -> None:
    content = table(separator).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read(tmp_path / name) == [{key: str(value) for key, value in row.items()} for row in ROWS]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('text\tlabel\n"Good\t1\nbad"\t0\n', [('"Good', "1"), ('bad"', "0")]),
        ('text\tlabel\n"Good" he said\t1\nbad\t0\n', [('"Good" he said', "1"), ("bad", "0")]),
        ('text\tlabel\r\n"Good, ""all""."\t1\r\nbad\t0\r\n', [('Good, "all".', "1"), ("bad", "0")]),
        ('text\tlabel\n"Good\nor\tnot"\t1\nbad\t0\n', [("Good\nor\tnot", "1"), ("bad", "0")]),
    ],
)
def test_quotes_in_tabular_text_hold_fields_together_or_are_part_of_them(
    tmp_path: Path, content: str, rows: list[tuple[str, str]]
) -> None:
    (tmp_path / "rows.tsv").write_bytes(content.encode())
    assert [(row["text"], row["label"]) for row in read(tmp_path / "rows.tsv")] == rows


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "x.parquet"
    )
    with pytest.raises(TaskError, match=r"cannot be read as \.parquet: it has the column 'text' twice"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize("data", ["https://host/rows.jsonl", "s3://bucket/rows.parquet", "file:///rows.csv"])
def test_an_address_is_no_file(data: str) -> None:
    with pytest.raises(TaskError, match="is an address: download it, and name the file"):
        files.read(TaskConfig(name="claims", data=data), None)


def test_a_pipe_is_refused_since_it_can_be_read_once_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(TaskError, match="is a pipe or a device, and is read more than once: save it as a file"):
        read(tmp_path / "rows.jsonl")


def test_a_row_of_a_table_is_named_by_the_line_that_it_begins_in(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(table(","))
    rows = files.read_file(tmp_path / "rows.csv")
    assert [row.where.rpartition(", ")[2] for row in rows] == ["line 2", "line 4", "line 6", "line 8"]


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".feather"])
def test_a_file_of_columns_is_read(tmp_path: Path, ending: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    path = tmp_path / f"rows{ending}"
    rows = pa.Table.from_pylist([*ROWS, {"question": None, "choice": "c", "label": None}])
    write: dict[str, Callable[..., Any]] = {".parquet": parquet.write_table, ".feather": feather.write_feather}
    if ending in write:
        write[ending](rows, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
    assert read(path) == [*ROWS, {"question": None, "choice": "c", "label": None}]


def test_folders_that_the_library_has_saved_are_read_with_and_without_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"test": saved}).save_to_disk(str(tmp_path / "splits"))
    assert read(tmp_path / "one") == read(tmp_path / "splits", "test") == ROWS
    with pytest.raises(
        TaskError,
        match=r"save_to_disk, split train, cannot be loaded: it has no split train \(task.split\); it has test",
    ):
        read(tmp_path / "splits")


def test_a_folder_of_files_is_read_by_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    first, last = LINES.split("\n")[:2], LINES.split("\n")[2:]
    (tmp_path / "data" / "train-00000-of-00002.jsonl").write_text("\n".join(first))
    (tmp_path / "data" / "train-00001-of-00002.jsonl").write_text("\n".join(last))
    (tmp_path / "test.csv").write_text("question,choice\n2+2?,4\n")
    (tmp_path / "README.md").write_text("What this is.")
    assert read(tmp_path) == ROWS
    assert read(tmp_path, "test") == [{"question": "2+2?", "choice": "4"}]
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.jsonl").write_text("{}")
    assert read(tmp_path) == ROWS
    with pytest.raises(
        TaskError, match=r"has no file of split dev \(task.split\); it has data/train-00000-of-00002.jsonl,"
    ):
        read(tmp_path, "dev")


def test_a_split_in_two_formats_is_refused_and_a_single_file_needs_no_name_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "claims.jsonl").write_text(LINES)
    assert read(tmp_path) == ROWS
    (tmp_path / "train.jsonl").write_text(LINES)
    (tmp_path / "train.csv").write_text(table(","))
    with pytest.raises(
        TaskError, match=r"split train is there in several formats, train\.csv, train\.jsonl: name one file"
    ):
        read(tmp_path)


BROKEN: dict[str, tuple[bytes, str]] = {
    "digits.jsonl": (
        LINES.encode() + b'{"id": ' + b"1" * 5000 + b"}",
        "line 5: a number of 5000 digits; write it as a text",
    ),
    "digits.json": (b'[{"a": 1}, {"id": ' + b"1" * 5000 + b"}]", "row 2: a number of 5000 digits"),
    "deep.jsonl": (LINES.encode() + b"[" * 100_000, "line 5: brackets are nested too deeply"),
    "deep.json": (b'[{"a": 1}, ' + b"[" * 100_000, "row 2: brackets are nested too deeply"),
    "large.jsonl": (b'{"answer": 1e9999999}', "line 1: a number of 9 characters is too large; write it as a text"),
    "twice.jsonl": (b'{"choice": "c", "choice": "d"}', "line 1: the key 'choice' occurs twice in one object"),
    "comma.json": (b'[{"a": 1},\n{"a": 2},\n]', "row 2: is not JSON: a comma before the end of the list"),
    "comma.jsonl": (b'{"a": 1}\n{"a": 2,}', "line 2: is not JSON: "),
    "open.json": (b'[{"a": 1}', "row 1: is not JSON: no comma and no end of the list after it"),
    "more.json": (b'[{"a": 1}] [', "is not JSON: more text after the end of the list"),
    "nul.jsonl": (b'{"a": "b\0"}', "line 1: is not JSON: Invalid control character"),
    "zeros.jsonl": (b"\0" * 64, "zeros.jsonl"),
    "latin1.jsonl": (
        LINES.encode() + '{"choice": "Café"}'.encode("latin1"),
        "line 5: byte 0xe9 is not utf-8; convert the file",
    ),
    "numbers.json": (b"[1, 2]", "row 1: expected an object with keys and values, found a number"),
    "lists.jsonl": (b'{"a": 1}\n["b"]', "line 2: expected an object with keys and values, found a list of 1"),
    "text.json": (b'"abc"', "expected a JSON list of objects"),
    "empty.jsonl": (b"", "task.data={}: holds no rows"),
    "empty.json": (b"", "task.data={}: holds no rows"),
    "none.json": (b"[]", "task.data={}: holds no rows"),
    "header.csv": (b"question,choice\n", "task.data={}: holds no rows"),
    "long.csv": (b"a,b\n1,2\n1,2,3\n", "line 3: has 3 fields, and the header has 2"),
    "short.csv": (b"a,b\n1\n", "line 2: has 1 fields, and the header has 2"),
    "semicolon.csv": (
        b"question;choice\nQ;c\n",
        "line 1: the header is one column, 'question;choice': columns of .csv",
    ),
    "double.csv": (b"a,a\n1,2\n", "line 1: the header has a column twice"),
    "quote.csv": (b'a,b\n1,"2\n', "line 2: is not a table: unexpected end of data"),
    "cut.jsonl.gz": (gzip.compress(LINES.encode())[:-20], "task.data={}: cannot be read: "),
    "rows.xlsx": (
        b"PK\x03\x04zip",
        "task.data={}: is a zip archive, as an .xlsx file is; convert or unpack it to one of .json, .jsonl",
    ),
    "zip.csv": (b"PK\x03\x04zip", "task.data={}: is a zip archive"),
    "packed.jsonl": (b"\x28\xb5\x2f\xfd\x04", "task.data={}: is compressed by zstd; convert or unpack it"),
    "packed.bin": (b"\0\1\2", "task.data={}: is not of a format that is read; convert it to one of .json, .jsonl"),
    "open.tsv": (b'a\tb\n"1\t2\n3\n', "line 2: is not a table"),
    "rows.parquet": (b"PAR1 no", "task.data={}: cannot be read as .parquet: "),
    "rows.arrow": (b"ARROW1 no", "task.data={}: cannot be read as .arrow: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_one_line_with_the_place(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    if name.endswith((".parquet", ".arrow")):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError) as refused:
        read(tmp_path / name)
    assert message.format(tmp_path / name) in str(refused.value)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        "nowhere.jsonl",
        "nowhere.csv",
        "data/nowhere.parquet",
        "./nowhere",
        "/nowhere/at/all",
        "~/nowhere",
        "a/b/c",
        "a b",
    ],
)
def test_what_can_only_be_a_file_is_no_data_set_of_the_hub(data: str) -> None:
    with pytest.raises(TaskError, match="there is no such file"):
        files.read(TaskConfig(name="claims", data=data), None)


def test_numbers_in_json_keep_all_their_digits(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"a": 0.12345678901234567890123456789012, "b": 12345678901234567890123456789012, "c": 0.1}'
    )
    (row,) = read(tmp_path / "rows.jsonl")
    assert [str(value) for value in row.values()] == [
        "0.12345678901234567890123456789012",
        "12345678901234567890123456789012",
        "0.1",
    ]


def test_columns_without_the_extra_are_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        TaskError, match=r"\.parquet files need: pip install 'icm-hpc\[hub\]'; or convert it to \.jsonl"
    ):
        read(tmp_path / "rows.parquet")
