"""A file system in memory (FUSE) that fails when told to, and forgets what was not synced when told that the power was cut.

`python -m tests.rundir.fuse_disk FOLDER` mounts it. It is told by what is written to FOLDER/.control; what is read there are
the number of calls since the last word, the call that failed, and how many of them change something.
"""

import contextlib
import errno
import functools
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.conftest import unavailable

CONTROL = "/.control"
MOUNT_S = 20.0
LOOKS = ("getattr", "readdir", "open", "read")
CHANGES = (
    *("create", "write", "truncate", "fsync", "fsyncdir", "rename", "unlink", "mkdir", "rmdir"),
    *("chmod", "utimens"),
)


@dataclass
class File:
    """What a file holds, and what of it is safe."""

    content: bytes = b""
    safe: bytes = b""


class Disk:
    """The state of the file system, and what it was told. Names are paths: of files, and of folders, which hold None here."""

    def __init__(self) -> None:
        self.now: dict[str, File | None] = {"/": None}
        self.safe = dict(self.now)
        self.image: dict[str, bytes | None] = {"/": None}
        self.calls, self.changes, self.failed = 0, 0, "none"
        self.fails_at, self.error, self.kills_at = 0, 0, 0

    def tell(self, words: list[str]) -> None:
        """Do what is written to the control file."""
        self.calls, self.changes, self.failed = 0, 0, "none"
        self.fails_at = self.kills_at = 0
        if words[0] == "fail":  # at which call, with which error
            self.fails_at, self.error = int(words[1]), getattr(errno, words[2])
        elif words[0] == "kill":  # at which of the calls that change something: its process, before that is done
            self.kills_at = int(words[1])
        elif words[0] == "cut":
            self._hold({path: file.safe if file else None for path, file in self.safe.items() if self._is_found(path)})
        elif words[0] == "keep":
            self.image = {path: file.content if file else None for path, file in self.now.items()}
        elif words[0] == "restore":
            self._hold(self.image)

    def _hold(self, contents: dict[str, bytes | None]) -> None:
        """Hold this and nothing else, all of it safe."""
        self.now = {path: None if held is None else File(held, held) for path, held in contents.items()}
        self.safe = dict(self.now)

    def _is_found(self, path: str) -> bool:
        """Return whether the names of all folders above it are safe."""
        return all(str(folder) in self.safe for folder in PurePosixPath(path).parents)

    def count(self, name: str, pid: int) -> None:
        """Count a call of a process; raise the error that it was told, or kill the process, at the call that it was told."""
        self.calls += 1
        self.changes += name in CHANGES
        if name in CHANGES and self.changes == self.kills_at:
            self.failed = name
            os.kill(pid, signal.SIGKILL)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.calls == self.fails_at:
            self.failed = name
            raise OSError(self.error, os.strerror(self.error))

    def inside(self, folder: str) -> list[str]:
        """Return the paths in a folder."""
        return [path for path in self.now if path != "/" and parent(path) == folder]

    def sync_folder(self, folder: str) -> None:
        """Make the names of a folder safe."""
        for path in [path for path in self.safe if parent(path) == folder and path not in self.now]:
            del self.safe[path]
        self.safe.update({path: self.now[path] for path in self.inside(folder)})


def parent(path: str) -> str:
    """Return the folder that a path is in."""
    return str(PurePosixPath(path).parent)


def serve(mount: str) -> None:
    """Mount the file system, and serve it until it is unmounted."""
    import mfusepy as fuse  # here: tests that use this file are skipped without

    disk = Disk()

    class Operations(fuse.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path in disk.now and disk.now[path] is None:
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2, "st_uid": os.getuid(), "st_gid": os.getgid()}
            size = len(told()) if path == CONTROL else len(_file(path).content)
            kind = {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}
            return {**kind, "st_uid": os.getuid(), "st_gid": os.getgid()}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *(PurePosixPath(one).name for one in disk.inside(path))]

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            disk.now[path] = File()
            return 0

        def open(self, path: str, flags: int) -> int:
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            content = told() if path == CONTROL else _file(path).content
            return content[offset : offset + size]

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            if path == CONTROL:
                disk.tell(data.decode().split())
            else:
                file = _file(path)
                file.content = file.content[:offset].ljust(offset, b"\0") + data + file.content[offset + len(data) :]
            return len(data)

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            if path != CONTROL:
                _file(path).content = _file(path).content[:length].ljust(length, b"\0")
            return 0

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            _file(path).safe = _file(path).content
            return 0

        def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
            disk.sync_folder(path)
            return 0

        def rename(self, old: str, new: str) -> int:
            disk.now[new] = disk.now.pop(old)
            return 0

        def unlink(self, path: str) -> int:
            del disk.now[path]
            return 0

        def mkdir(self, path: str, mode: int) -> int:
            disk.now[path] = None
            return 0

        def rmdir(self, path: str) -> int:
            if disk.inside(path):
                raise fuse.FuseOSError(errno.ENOTEMPTY)
            del disk.now[path]
            return 0

        def chmod(self, path: str, mode: int) -> int:
            return 0

        def utimens(self, path: str, times: Any = None) -> int:
            return 0

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(do)
        def call(self: Any, path: str, *more: Any) -> Any:
            if path != CONTROL:
                disk.count(do.__name__, fuse.fuse_get_context()[2])
            return do(self, path, *more)

        return call

    for name in (*LOOKS, *CHANGES):
        setattr(Operations, name, counted(getattr(Operations, name)))

    def told() -> bytes:
        return f"{disk.calls} {disk.failed} {disk.changes}".encode()

    def _file(path: str) -> File:
        found = disk.now.get(path)
        if found is None:
            raise fuse.FuseOSError(errno.ENOENT)
        return found

    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "direct_io": True}
    fuse.FUSE(Operations(), mount, foreground=True, nothreads=True, **options)


class Mounted:
    """A mounted disk, as its user sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tell(self, words: str) -> None:
        """Say something to the disk."""
        (self.folder / CONTROL[1:]).write_bytes(words.encode())

    def calls(self) -> tuple[int, str]:
        """Return the number of calls since it was last told something, and the name of the one that failed."""
        count, failed, _ = self._said()
        return int(count), failed

    def changes(self) -> tuple[int, str]:
        """Return how many of these calls change something, and the name of the one at which a process was killed."""
        _, failed, count = self._said()
        return int(count), failed

    def _said(self) -> list[str]:
        return (self.folder / CONTROL[1:]).read_text().split()


@contextmanager
def mounted() -> Iterator[Mounted]:
    """Yield a disk."""
    with tempfile.TemporaryDirectory() as name:
        server = subprocess.Popen([sys.executable, "-m", __name__, name], cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + MOUNT_S
        try:
            while not Path(name).is_mount():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the file system was not mounted")
                time.sleep(0.02)
            yield Mounted(Path(name))
        finally:
            subprocess.run(["umount", "--lazy", name], check=False)
            server.wait(MOUNT_S)


def mounted_or_skipped() -> Iterator[Mounted]:
    """Yield a disk to a fixture. Skip its tests on a machine without FUSE; where only a package is missing, fail in CI."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse that this user may use")
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        unavailable(f"{error}; pip install mfusepy, and apt-get install fuse3")
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(mounted())
        except RuntimeError as error:  # as in a container that may not mount
            pytest.skip(str(error))
        yield found


if __name__ == "__main__":
    serve(sys.argv[1])
