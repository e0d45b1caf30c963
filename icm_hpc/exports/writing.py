"""Where exports are written: complete or absent, and never over what is no export."""

import json
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..rundir.files import fsync_file, fsync_folder
from .selection import Selection

Writer = Callable[[Path, Selection], int]  # makes the file or folder, and returns the number of its records
Records = Callable[[Selection], Iterable[dict[str, Any]]]

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def published(out: Path, *, overwrite: bool, is_folder: bool = False) -> Iterator[Path]:
    """Yield a path to write a file or a folder to; it becomes `out` when the block has ended without an error.

    A symbolic link stays, and what it names is replaced. Raises ConfigError if `out` cannot be written or replaced.
    """
    try:
        _require_replaceable(out, overwrite=overwrite, is_folder=is_folder)
        target = out.resolve() if out.is_symlink() else out
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written: {error.strerror}") from error
    try:
        made = scratch / target.name
        yield made
        for path in (made, *made.rglob("*")):
            fsync_folder(path) if path.is_dir() else fsync_file(path)
        if target.is_dir():
            target.rename(scratch / "replaced")
        made.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _require_replaceable(out: Path, *, overwrite: bool, is_folder: bool) -> None:
    """Raise ConfigError if `out` is there and is not to be replaced, or is of a kind that never is."""
    try:
        kind = stat.S_IFMT(out.stat().st_mode)
    except FileNotFoundError:
        if out.is_symlink():
            raise ConfigError(f"out={out}: is a link to nothing: name another path, or remove it") from None
        return
    if kind != (stat.S_IFDIR if is_folder else stat.S_IFREG):
        wanted = "a folder" if is_folder else "a file"
        raise ConfigError(
            f"out={out}: is {KINDS.get(kind, 'something else')}, and {wanted} is to be written: name another path"
        )
    if is_folder and not _is_export(out):
        raise ConfigError(
            f"out={out}: is a folder that holds more than an export: nothing in it is replaced; name another"
        )
    if not overwrite:
        raise ConfigError(f"out={out}: is there already: name another path, or say overwrite=true")


def _is_export(folder: Path) -> bool:
    """Return whether a folder holds nothing but what to=hf writes."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return "README.md" in names and all(
        name in ("README.md", "data") or (name.startswith("data/") and name.endswith(".parquet")) for name in names
    )


def json_lines(records: Records) -> Writer:
    """Return a writer of one JSON object a line."""

    def write(path: Path, selection: Selection) -> int:
        count = 0
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for record in records(selection):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
        return count

    return write


def json_list(records: Records) -> Writer:
    """Return a writer of one JSON list, an element a line."""

    def write(path: Path, selection: Selection) -> int:
        count = 0
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write("[")
            for count, record in enumerate(records(selection), start=1):
                file.write((",\n" if count > 1 else "\n") + json.dumps(record, ensure_ascii=False))
            file.write("\n]\n")
        return count

    return write
