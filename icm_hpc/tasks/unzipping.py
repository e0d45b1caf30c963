"""Compressed files are read up to a bound: a small one may hold more than fits in memory."""

import gzip
import io
import zlib

LEAST = 2**28  # bytes that any file may hold
RATIO = 100  # or so many times its own size


def bound(size: int) -> int:
    """Return how many bytes a compressed file of this size may hold."""
    return max(LEAST, RATIO * size)


def unzipped(content: bytes) -> bytes:
    """Return what a gzip file holds. Raises OSError, or ValueError for one that holds too much."""
    limit = bound(len(content))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            held = file.read(limit + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from error
    if len(held) > limit:
        raise ValueError(f"holds more than {limit / 1e6:.0f} MB in {len(content)} bytes: decompress it first")
    return held
