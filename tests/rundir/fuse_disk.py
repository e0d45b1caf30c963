"""A file system in memory (FUSE) that fails when told to, and forgets what was not synced when told that the power was cut.

`python -m tests.rundir.fuse_disk FOLDER` mounts it. It is told by what is written to FOLDER/.control; what is read there are
the number of calls since the last word, and the call that failed.
"""

import errno
import functools
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTROL = "/.control"
MOUNT_S = 20.0
CALLS = (
    *("getattr", "readdir", "create", "open", "read", "write", "truncate", "fsync", "fsyncdir", "rename", "unlink"),
    *("mkdir", "chmod", "utimens"),
)


@dataclass
class File:
    """What a file holds, and what of it is safe."""

    content: bytes = b""
    safe: bytes = b""


@dataclass
class Tree:
    """Names: files and folders."""

    files: dict[str, File]
    folders: set[str]

    def copy(self) -> "Tree":
        """Return the same names; the files are the same, too."""
        return Tree(dict(self.files), set(self.folders))


class Disk:
    """The state of the file system, and what it was told."""

    def __init__(self) -> None:
        self.now = Tree({}, {"/"})
        self.safe = self.now.copy()
        self.image: list[tuple[str, bytes]] = []
        self.image_folders: set[str] = set()
        self.calls, self.fails_at, self.error, self.failed = 0, 0, 0, "none"

    def tell(self, words: list[str]) -> None:
        """Do what is written to the control file."""
        self.calls, self.fails_at, self.failed = 0, 0, "none"
        if words[0] == "fail":  # at which call, with which error
            self.fails_at, self.error = int(words[1]), getattr(errno, words[2])
        elif words[0] == "cut":
            files = {path: File(file.safe, file.safe) for path, file in self.safe.files.items()}
            self.now = Tree(files, set(self.safe.folders))
            self.safe = self.now.copy()
        elif words[0] == "keep":
            self.image = [(path, file.content) for path, file in self.now.files.items()]
            self.image_folders = set(self.now.folders)
        elif words[0] == "restore":
            self.now = Tree({path: File(content, content) for path, content in self.image}, set(self.image_folders))
            self.safe = self.now.copy()

    def count(self, name: str) -> None:
        """Count a call; raise the error that it was told, at the call that it was told."""
        self.calls += 1
        if self.calls == self.fails_at:
            self.failed = name
            raise OSError(self.error, os.strerror(self.error))

    def sync_folder(self, folder: str) -> None:
        """Make the names of a folder safe."""
        for names, safe in ((self.now.files, self.safe.files),):
            for path in [path for path in safe if os.path.dirname(path) == folder and path not in names]:  # noqa: PTH120
                del safe[path]
            safe.update({path: file for path, file in names.items() if os.path.dirname(path) == folder})  # noqa: PTH120
        self.safe.folders |= {path for path in self.now.folders if os.path.dirname(path) == folder}  # noqa: PTH120


def serve(mount: str) -> None:
    """Mount the file system, and serve it until it is unmounted."""
    import mfusepy as fuse  # here: the tests that use this file skip without

    disk = Disk()

    class Operations(fuse.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path in disk.now.folders:
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2, "st_uid": os.getuid(), "st_gid": os.getgid()}
            size = len(told()) if path == CONTROL else len(_file(path).content)
            kind = {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}
            return {**kind, "st_uid": os.getuid(), "st_gid": os.getgid()}

        def readdir(self, path: str, fh: int) -> list[str]:
            inside = [*disk.now.files, *disk.now.folders]
            names = [os.path.basename(one) for one in inside if one != "/" and os.path.dirname(one) == path]  # noqa: PTH119, PTH120
            return [".", "..", *names]

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            disk.now.files[path] = File()
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
            disk.now.files[new] = disk.now.files.pop(old)
            return 0

        def unlink(self, path: str) -> int:
            del disk.now.files[path]
            return 0

        def mkdir(self, path: str, mode: int) -> int:
            disk.now.folders.add(path)
            return 0

        def chmod(self, path: str, mode: int) -> int:
            return 0

        def utimens(self, path: str, times: Any = None) -> int:
            return 0

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(do)
        def call(self: Any, path: str, *more: Any) -> Any:
            if path != CONTROL:
                disk.count(do.__name__)
            return do(self, path, *more)

        return call

    for name in CALLS:
        setattr(Operations, name, counted(getattr(Operations, name)))

    def told() -> bytes:
        return f"{disk.calls} {disk.failed}".encode()

    def _file(path: str) -> File:
        if path not in disk.now.files:
            raise fuse.FuseOSError(errno.ENOENT)
        return disk.now.files[path]

    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "direct_io": True}
    fuse.FUSE(Operations(), mount, foreground=True, nothreads=True, **options)


def unavailable_here() -> str:
    """Return why no such disk can be had on this machine; empty if one can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that this user may use"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"{error}; pip install mfusepy, and apt-get install fuse3"
    return ""


class Mounted:
    """A mounted disk, as its user sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tell(self, words: str) -> None:
        """Say something to the disk."""
        (self.folder / CONTROL[1:]).write_bytes(words.encode())

    def calls(self) -> tuple[int, str]:
        """Return the number of calls since it was last told something, and the name of the one that failed."""
        count, failed = (self.folder / CONTROL[1:]).read_text().split()
        return int(count), failed


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


if __name__ == "__main__":
    serve(sys.argv[1])
