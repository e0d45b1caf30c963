"""HDF5 files that are whole or noticed: the user block, their first 512 bytes, holds the SHA-256 of the rest.

So a flipped bit or a truncated file is found before the HDF5 library reads it.
"""

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import h5py

from ..errors import CheckpointError
from .files import write_atomically
from .polling import TRANSIENT

DAMAGED = ".damaged"  # the ending of a file that was found not to be whole
USER_BLOCK = 512  # bytes
MAGIC = b"icm_hpc checkpoint; SHA-256 of all bytes from 512 on: "

R = TypeVar("R")

log = logging.getLogger(__name__)


def encoded(fill: Callable[[Any], None]) -> bytes:
    """Return the file that `fill` puts into an empty one, sealed."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=USER_BLOCK) as file:
        fill(file)
    content = bytearray(buffer.getvalue())
    header = MAGIC + hashlib.sha256(content[USER_BLOCK:]).hexdigest().encode() + b"\n"
    content[: len(header)] = header
    return bytes(content)


def decoded(content: bytes, read: Callable[[Any], R]) -> R:
    """Return what `read` makes of the file; raises ValueError if it is not whole."""
    wanted = content[len(MAGIC) : len(MAGIC) + 64]
    found = hashlib.sha256(content[USER_BLOCK:]).hexdigest().encode()
    if not content.startswith(MAGIC) or wanted != found:
        raise ValueError("its checksum is wrong: truncated or altered")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            file.visititems(lambda name, item: _require_stored(name, item, len(content)))
            return read(file)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:  # also of the HDF5 library
        raise ValueError(f"it is not what this version writes: {error}") from error


def _require_stored(name: str, item: Any, size: int) -> None:
    """Raise ValueError for an array that is larger than the file: nothing is compressed."""
    if isinstance(item, h5py.Dataset) and item.nbytes > size:
        raise ValueError(f"{name} is said to be {item.nbytes} bytes in a file of {size}")


def save(path: Path, fill: Callable[[Any], None]) -> None:
    """Save a file, whole or not at all. Raises CheckpointError, or OSError if it may be written a moment later."""
    content = encoded(fill)
    try:
        write_atomically(path, content)
    except OSError as error:
        if error.errno in TRANSIENT:
            raise
        raise CheckpointError(f"{path} cannot be saved: {error}") from error


def load(path: Path, read: Callable[[Any], R | None], *, otherwise: str) -> R | None:
    """Return what `read` makes of a file, None without one; one that is not whole is set aside. To be called by the driver.

    `otherwise` says what that leads to. Raises OSError for a file that cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return decoded(content, read)
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be used (%s): %s", path, error, otherwise)
        path.rename(path.with_suffix(DAMAGED))
        return None
