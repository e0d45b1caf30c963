"""How small files of a run are written and read: complete or absent, private, and on the disk when that matters."""

import contextlib
import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from ..core.json_values import from_json, typed
from ..errors import ConfigError, DamagedFile


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent, readable by its owner only, and on the disk when this returns."""
    try:
        _write(path, content)
    except OSError as error:
        error.filename = str(path)  # and not that of the temporary file
        raise


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def private_append(path: Path) -> BinaryIO:
    """Open a log for appending; made if missing, readable by its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def fsync_file(path: Path) -> None:
    """Bring a file's content to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it; their names are on the disk when this returns.

    One that is there may be of a start that was killed, or whose file system failed, before its name was on the disk. As long
    as nothing is in it, its name is brought there again: nothing is put into a folder before that.
    """
    if not folder.exists():
        make_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, "is a file, or a link to nothing", str(folder)) from error
        fsync_folder(folder.parent)
        return
    with contextlib.suppress(PermissionError):  # of a folder of the site's that users cannot list
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
        if is_empty:
            fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path, kind: Any = Any) -> Any:
    """Return what a file that `write_atomically` wrote holds, or None if it is not there; polling.py repeats what may pass.

    Raises DamagedFile for what is no JSON, or not of the type `kind` (core/json_values.py).
    """
    try:
        return typed(kind, from_json(path.read_bytes()))
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged: {error}") from error
    except FileNotFoundError:
        return None
    except OSError as error:
        error.filename = error.filename or str(path)  # only a failed open names it
        raise


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file as `write_atomically` does; its folder is made."""
    make_folder(path.parent)
    write_atomically(path, json.dumps(values).encode())


def require_private(folder: Path) -> None:
    """Raise ConfigError if others could put files into `folder` or its parent: a pickle in it would run as us."""
    for place in (folder, folder.parent):
        status = place.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ConfigError(
                f"{place} belongs to user {status.st_uid} with mode {status.st_mode & 0o777:o}: nothing is loaded from a folder"
                f" that others can write; make it your own: chown and chmod 700"
            )
