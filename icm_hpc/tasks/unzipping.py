"""Compressed files are read up to a bound: a small one may hold more than fits in memory."""

import gzip
import io
import zlib

LEAST = 2**28  # bytes that any file may hold
PIECE = 2**20  # bytes
RATIO = 100  # or so many times its own size


def bound(size: int) -> int:
    """Return how many bytes a compressed file of this size may hold."""
    return max(LEAST, RATIO * size)


def unzipped(content: bytes) -> bytes:
    """Return what a gzip file holds. Raises OSError, or ValueError for one that holds too much."""
    limit = bound(len(content))
    held = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            while piece := file.read(PIECE):  # as much at one time as is there: not as much as there may be
                held += piece
                if len(held) > limit:
                    raise ValueError(
                        f"holds more than {limit / 1e6:.0f} MB in {len(content)} bytes: decompress it first"
                    )
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from error
    return bytes(held)
