"""Files of rows: JSON, JSON lines, CSV, TSV, each perhaps gzipped; Parquet and Arrow; folders of them; data sets of the hub.

Each problem is one TaskError that names the file and, where it is in a row, the row.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from ..config import home
from ..config.schema import TaskConfig
from ..errors import TaskError
from . import columns, unzipping
from .rows import Row, first_line, kind_of, require_shallow, shown

LINES = (".jsonl", ".ndjson")
TABLES = {".csv": ",", ".tsv": "\t"}  # by ending, what separates the columns
COLUMNS = (".parquet", ".arrow", ".feather")
READ = (*LINES, ".json", *TABLES, *COLUMNS)
FORMATS = ".json, .jsonl, .ndjson, .csv, .tsv (each also .gz), .parquet, .arrow"
CARDS = ("dataset_info.json", "dataset_infos.json")  # that the datasets library puts beside rows
PACKED = {
    b"PK\x03\x04": "a zip archive, as an .xlsx file is",
    b"\xd0\xcf\x11\xe0": "a file of an office program",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\xfd7zXZ": "compressed by xz",
    b"BZh": "compressed by bzip2",
}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
MAX_DIGITS = 4000  # of an integer; Python itself refuses 4300
SPACE = re.compile(r"\s*")
MAX_FIELD = 2**31 - 1  # characters of a CSV field


def read(config: TaskConfig, built_in: Path | None) -> list[Row]:
    """Return the rows that `task.data` names, or the built-in ones, with their gold labels.

    Raises TaskError for a missing file, one that cannot be read, or a row that is not an object.
    """
    if not config.data and built_in:
        return read_file(built_in)
    if not config.data:
        raise TaskError(f"task={config.name} requires data: task.data=FILE ({FORMATS}) or a Hugging Face data set name")
    if re.match("[a-z0-9]+://", config.data):
        raise TaskError(f"task.data={config.data}: is an address: download it, and name the file")
    path = home.expanded(config.data, instead="task.data without ~")
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise TaskError(
                f"task.data={config.data}: is a pipe or a device, and is read more than once: save it as a file"
            )
        if path.is_dir():
            return _some(path, list(_folder(path, config.split)))
        if path.exists():
            return read_file(path)
    except (OSError, ValueError) as error:  # of a name that no file can have, or a folder that we may not enter
        raise TaskError(f"task.data={config.data}: cannot be read: {first_line(error)}") from error
    if _kind(path) in (*READ, "") and HUB_NAME.fullmatch(config.data) and not _kind(path):
        return _some(config.data, list(_hub(config.data, config.subset, config.split)))
    raise TaskError(f"task.data={config.data}: there is no such file (looked for {path.absolute()})")


def read_file(path: Path) -> list[Row]:
    """Return the rows of a file, by the ending of its name; of another name, by its first bytes."""
    kind = _kind(path)
    if kind in COLUMNS:
        return _some(path, list(columns.rows_of(path, kind)))
    content = _bytes(path)
    if not kind:
        kind = _guess(path, content)
        if kind in COLUMNS:
            return _some(path, list(columns.rows_of(path, kind)))
    text = _text(path, content)
    if kind in TABLES:
        return _some(path, list(_table(path, text, TABLES[kind])))
    return _some(path, list(_lines(path, text) if kind in LINES else _document(path, text)))


def _some(source: object, rows: list[Row]) -> list[Row]:
    if not rows:
        raise TaskError(f"task.data={source}: holds no rows")
    return rows


def _kind(path: Path) -> str:
    """Return the ending that says how a file is read, in lower case; empty if there is none that we know."""
    name = path.name.lower().removesuffix(".gz")
    return next((ending for ending in READ if name.endswith(ending)), "")


def _guess(path: Path, content: bytes) -> str:
    if content.startswith(b"PAR1"):
        return ".parquet"
    if content.startswith(b"ARROW1"):
        return ".arrow"
    start = content[:4096].lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    if start.startswith((b"{", b"[")) or not content:
        return ".json"
    raise TaskError(f"task.data={path}: is not of a format that is read; convert it to one of {FORMATS}")


def _bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        content = unzipping.unzipped(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, ValueError) as error:
        raise TaskError(f"task.data={path}: cannot be read: {first_line(error)}") from error
    packed = next((what for begin, what in PACKED.items() if content.startswith(begin)), None)
    if packed:
        raise TaskError(f"task.data={path}: is {packed}; convert or unpack it to one of {FORMATS}")
    return content


def _text(path: Path, content: bytes) -> str:
    encoding = json.detect_encoding(content)  # UTF-8, or by their first bytes UTF-16 and 32
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not {encoding}; convert the file, as by"
            " iconv -f windows-1252 -t utf-8"
        ) from error


def _lines(path: Path, text: str) -> Iterator[Row]:
    if text.lstrip().startswith("["):
        yield from _document(path, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield _row(where, _parse(where, line.lstrip("\ufeff")))  # of files that were put together


def _document(path: Path, text: str) -> Iterator[Row]:
    """Yield the rows of one JSON value, or of JSON lines under the name of one."""
    if not text.strip():
        return
    first, _, rest = text.lstrip().partition("\n")
    if rest.strip() and first.rstrip().endswith("}") and first.startswith("{"):
        yield from _lines(path, text)
        return
    rows = _elements(path, text) if text.lstrip().startswith("[") else _rows_of(path, _parse(str(path), text))
    for name, value in rows:
        yield _row(f"{path}, row {name}", value)


def _elements(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yield the numbered elements of a JSON list, one by one, so that an error names its row."""
    start = _after(text, text.index("[") + 1)
    number = 1
    while text[start : start + 1] != "]":
        where = f"{path}, row {number}"
        with _named(where):
            value, end = DECODER.raw_decode(text, start)
        yield number, value
        start = _after(text, end)
        if text[start : start + 1] == ",":
            start = _after(text, start + 1)
            if text[start : start + 1] == "]":
                raise TaskError(f"{where}: is not JSON: a comma before the end of the list")
        elif text[start : start + 1] != "]":
            raise TaskError(f"{where}: is not JSON: no comma and no end of the list after it")
        number += 1
    if text[start + 1 :].strip():
        raise TaskError(f"{path}: is not JSON: more text after the end of the list")


def _after(text: str, start: int) -> int:
    """Return where the white space from `start` on ends."""
    return SPACE.match(text, start).end()  # type: ignore[union-attr]  # it matches nothing, too


def _rows_of(path: Path, value: Any) -> Iterable[tuple[object, Any]]:
    """Return the rows of a JSON object with their names: of a list that it holds, or of its columns or rows."""
    if isinstance(value, dict) and value:
        members = list(value.values())
        if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):  # pandas, orient="split"
            return _split(path, value["columns"], value["data"])
        lists = [member for member in members if isinstance(member, list) and member and isinstance(member[0], dict)]
        if len(lists) == 1 and not any(isinstance(m, list) and m is not lists[0] for m in members):
            return enumerate(lists[0], start=1)
        if all(isinstance(member, list) for member in members) and len({len(member) for member in members}) == 1:
            return enumerate((dict(zip(value, row, strict=True)) for row in zip(*members, strict=True)), start=1)
        if all(isinstance(member, dict) for member in members):
            if _are_columns(value):  # pandas, orient="columns"
                return ((name, {key: column.get(name) for key, column in value.items()}) for name in members[0])
            return value.items()
        if not any(isinstance(member, dict) for member in members):
            return [(1, value)]
    raise TaskError(
        f"{path}: expected a JSON list of objects, an object that holds one such list, or one object a line; found"
        f" {kind_of(value)}"
    )


def _split(path: Path, columns: list[Any], rows: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) < len(columns):
        raise TaskError(f"{path}: columns must be a list of different texts")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise TaskError(
                f"{path}, row {number}: expected a list of {len(columns)}, one a column; found {kind_of(row)}"
            )
        yield number, dict(zip(columns, row, strict=True))


def _are_columns(value: dict[str, dict[str, Any]]) -> bool:
    """Return whether an object of objects is by column: the inner keys are numbers, the outer ones are not."""
    inner = next(iter(value.values()))
    return bool(inner) and all(key.isdecimal() for key in inner) and not all(key.isdecimal() for key in value)


def _parse(where: str, text: str) -> Any:
    with _named(where):
        return DECODER.decode(text)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Raise what the JSON library finds wrong as a TaskError that says where."""
    try:
        yield
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise TaskError(f"{where}: is not JSON: {error.msg} ({place})") from error
    except ValueError as error:
        raise TaskError(f"{where}: {error}") from error
    except RecursionError as error:
        raise TaskError(f"{where}: brackets are nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice in one object")
    return values


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits; write it as a text, in quotes")
    return int(text)


def _number(text: str) -> float | Decimal:
    """Return a number with all its digits: a Decimal where a float would lose some."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"a number of {len(text)} characters is too large; write it as a text, in quotes")
    try:
        exact = len(text) <= 17 or (len(text) < MAX_DIGITS and Decimal(text) == Decimal(repr(value)))
        return value if exact else Decimal(text)
    except InvalidOperation as error:
        raise ValueError("the exponent of a number is too large; write it as a text, in quotes") from error


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_number)


def _row(where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f"{where}: expected an object with keys and values, found {kind_of(value)}")
    require_shallow(where, value)
    return Row(where, value)


def _table(path: Path, text: str, separator: str) -> Iterator[Row]:
    """Yield the rows of a table with a header; all values are texts."""
    csv.field_size_limit(MAX_FIELD)
    are_texts = separator == "\t" and _has_quotes_in_texts(text)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if are_texts else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, quoting=quoting)
    header: list[str] | None = None
    start = 0
    try:
        for fields in reader:
            where, start = f"{path}, line {start + 1}", reader.line_num
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = [field.strip() for field in fields]
                _require_header(where, header, separator)
            elif len(fields) != len(header):
                raise TaskError(f"{where}: has {len(fields)} fields, and the header has {len(header)}")
            else:
                yield Row(where, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise TaskError(f"{path}, line {start + 1}: is not a table: {error}") from error


def _has_quotes_in_texts(text: str) -> bool:
    """Return whether quotes in a file with tabs are part of its texts: each line has as many fields, and read with quotes
    that hold fields together the lines are not the rows.
    """
    lines = [line for line in re.split("\r\n|\r|\n", text) if line.strip()]
    tabs = {line.count("\t") for line in lines}
    if '"' not in text or len(tabs) != 1 or 0 in tabs:
        return False
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    except csv.Error:
        return True
    return sum(any(field.strip() for field in fields) for fields in rows) != len(lines)


def _require_header(where: str, header: list[str], separator: str) -> None:
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        raise TaskError(
            f"{where}: the header has a column twice: {shown(next(one for one in named if named.count(one) > 1))}"
        )
    other = next((mark for mark in ";\t,|" if mark != separator and mark in header[0]), None)
    if len(header) == 1 and other:
        raise TaskError(
            f"{where}: the header is one column, {shown(header[0])}: columns of .csv are separated by commas, of .tsv by tabs"
        )


def _folder(path: Path, split: str) -> Iterator[Row]:
    """Yield the rows of a split of a folder: one that datasets.save_to_disk wrote, or files named by split."""
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        yield from _saved(path, split)
        return
    files = [file for file in sorted(path.rglob("*")) if _holds_rows(file, path)]
    named = [file for file in files if file.parent.name == split or _begins_with(split, file)]
    if (
        not named
        and len(files) == 1
        and split == "train"
        and not _begins_with("test|valid|validation|val|dev|eval", files[0])
    ):
        named = files
    if not named:
        found = ", ".join(str(file.relative_to(path)) for file in files[:5]) or f"none of {FORMATS}"
        raise TaskError(f"task.data={path}: the folder has no file of split {split} (task.split); it has {found}")
    if len({_kind(file) for file in named}) > 1:
        found = ", ".join(str(file.relative_to(path)) for file in named[:5])
        raise TaskError(f"task.data={path}: split {split} is there in several formats, {found}: name one file")
    for file in named:
        yield from read_file(file)


def _holds_rows(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    return bool(_kind(file)) and file.is_file() and not hidden and file.name not in CARDS


def _begins_with(split: str, file: Path) -> bool:
    names = "|".join(map(re.escape, split.split("|")))
    return re.match(rf"({names})(?![A-Za-z0-9])", file.name) is not None


def _saved(path: Path, split: str) -> Iterator[Row]:
    def load(datasets: Any) -> Any:
        found = datasets.load_from_disk(str(path))
        if not isinstance(found, dict):
            return found
        if split not in found:
            raise ValueError(f"it has no split {split} (task.split); it has {', '.join(found)}")
        return found[split]

    yield from _of_datasets(str(path), split, load, f"task.data={path}: the folder of save_to_disk, split {split},")


def _hub(name: str, subset: str | None, split: str) -> Iterator[Row]:
    def load(datasets: Any) -> Any:
        return datasets.load_dataset(name, subset, split=split)

    what = f"task.data={name}: there is no such file, and the Hugging Face data set of this name, split {split},"
    yield from _of_datasets(name, split, load, what)


def _of_datasets(name: str, split: str, load: Callable[[Any], Any], what: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise TaskError(f"{what} needs: pip install 'icm-hpc[hub]'") from error
    try:
        rows = load(datasets)
    except Exception as error:  # the library raises many kinds; each ends the command with its text
        raise TaskError(f"{what} cannot be loaded: {first_line(error)}") from error
    for number, values in enumerate(rows):
        yield Row(f"{name}, split {split}, row {number}", dict(values))
