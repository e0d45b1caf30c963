"""Power cuts without a power switch: what a program does to a folder is recorded, and every state that a cut may leave is made.

The model is that of POSIX: what was written to a file is safe once the file was synced, a name once its folder was. Before
that, a file may hold any of what was written since, in part, torn at a block, or zeros where nothing arrived; and of the
changes to a folder any may have arrived and any not, but a rename is one change.
"""

import itertools
import os
import pathlib
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK_BYTES = 4096
MOST_AT_A_TIME = 6  # changes to folders of which every choice is tried; of more, the first and the last ones


@dataclass(frozen=True)
class Event:
    """What became of the folder: a file's content was found changed, a sync, a change of names, or a mark of the test's own."""

    kind: str
    path: str = ""
    value: Any = None


class Recorder:
    """Records what is done below `root`; content is looked at before each of the calls that matter."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._lock = threading.RLock()
        self._seen: dict[str, bytes] = {}
        self.events: list[Event] = []
        for folder in sorted(root.glob("**/"), key=str):
            self.events.append(Event("mkdir", str(folder)))
        self._look()
        self.events.append(Event("sync all"))

    def mark(self, value: Any) -> None:
        """Note something of the test's own."""
        with self._lock:
            self._look()
            self.events.append(Event("mark", value=value))

    def install(self) -> None:
        """Watch this process, for good."""
        self._wrap("fsync", lambda handle: Event("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        for name in ("rename", "replace"):
            self._wrap(name, lambda old, new: Event("rename", os.fspath(old), os.fspath(new)))
        for name in ("unlink", "remove"):
            self._wrap(name, lambda path: Event("unlink", os.fspath(path)))
        self._wrap("mkdir", lambda path, *_: Event("mkdir", os.fspath(path)))

    def _wrap(self, name: str, of: Callable[..., Event]) -> None:
        original = getattr(os, name)

        def wrapped(*args: Any, **more: Any) -> Any:
            with self._lock:
                event = of(*args)
                self._look()
                result = original(*args, **more)
                if event.path.startswith(self._root):
                    self.events.append(event)
                    if event.kind == "rename":
                        self._seen[event.value] = self._seen.pop(event.path, b"")
                    elif event.kind == "unlink":
                        self._seen.pop(event.path, None)
            return result

        setattr(os, name, wrapped)
        accessor = getattr(pathlib, "_NormalAccessor", None)  # of Python 3.10
        if accessor and hasattr(accessor, name):
            setattr(accessor, name, staticmethod(wrapped))

    def _look(self) -> None:
        """Record what files hold that they did not hold before."""
        for place, _, names in os.walk(self._root):
            for name in names:
                path = os.path.join(place, name)  # noqa: PTH118
                with open(path, "rb") as file:  # noqa: PTH123
                    content = file.read()
                if self._seen.get(path) != content:
                    self._seen[path] = content
                    self.events.append(Event("write", path, content))


def recorded(root: Path, do: Callable[[Recorder], Any]) -> list[Event]:
    """Return what `do` does below `root`, in a process of its own."""
    log = root.parent / f"{root.name}.events"
    pid = os.fork()
    if pid == 0:
        try:
            recorder = Recorder(root)
            recorder.install()
            do(recorder)
            recorder.mark("end")
            log.write_bytes(pickle.dumps(recorder.events))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return list(pickle.loads(log.read_bytes()))


@dataclass
class Inode:
    """A file: what is safe of it, and what was written since, the newest last."""

    safe: bytes = b""
    written: list[bytes] = field(default_factory=list)

    def possible(self) -> list[bytes]:
        """Return what may be found of it."""
        found = [self.safe, *self.written]
        if self.written:
            found += torn(self.safe, self.written[-1])
        return list(dict.fromkeys(found))


def torn(before: bytes, after: bytes) -> list[bytes]:
    """Return what a write that was cut off may have left: parts, blocks of before and after, zeros in the place of blocks."""
    # What was safe, and was not written again, stays.
    same = next((i for i, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(before))
    middle = (len(after) // 2 // BLOCK_BYTES) * BLOCK_BYTES
    grown = max(len(after), len(before))
    old = before.ljust(grown, b"\0")
    return [
        after[: (same + len(after)) // 2],
        after[: max(same, len(after) - 1)],
        after[:middle] + old[middle : len(after)],
        old[:middle] + after[middle:],
        before[: len(after)].ljust(len(after), b"\0"),
    ]


class Disk:
    """What is safe of a folder, and what may be lost."""

    def __init__(self) -> None:
        self._inodes: dict[int, Inode] = {}
        self._now: dict[str, int] = {}  # files, by path
        self._safe: dict[str, int] = {}
        self._changes: list[dict[str, int | None]] = []  # of names, in order, that are not safe
        self._folders: dict[str, bool] = {}  # whether they are safe

    def do(self, event: Event) -> None:
        """Take over an event."""
        path = event.path
        if event.kind == "write":
            if path not in self._now:
                self._inodes[len(self._inodes)] = Inode()
                self._change({path: len(self._inodes) - 1})
            self._inodes[self._now[path]].written.append(event.value)
        elif event.kind == "rename":
            self._change({event.value: self._now[path], path: None})
        elif event.kind == "unlink":
            self._change({path: None})
        elif event.kind == "mkdir":
            self._folders.setdefault(path, False)
        elif event.kind == "sync" and path in self._now:
            self._sync(self._inodes[self._now[path]])
        elif event.kind == "sync":
            self._sync_folder(path)
        elif event.kind == "sync all":
            for inode in self._inodes.values():
                self._sync(inode)
            for folder in self._folders:
                self._sync_folder(folder)
                self._folders[folder] = True

    def _change(self, names: dict[str, int | None]) -> None:
        self._changes.append(names)
        _apply(self._now, names)

    @staticmethod
    def _sync(inode: Inode) -> None:
        if inode.written:
            inode.safe, inode.written = inode.written[-1], []

    def _sync_folder(self, folder: str) -> None:
        """Make its names safe: those of its files and of its folders."""
        for names in self._changes:
            if os.path.dirname(next(iter(names))) == folder:  # noqa: PTH120
                _apply(self._safe, names)
        self._changes = [names for names in self._changes if os.path.dirname(next(iter(names))) != folder]  # noqa: PTH120
        for other in self._folders:
            if os.path.dirname(other) == folder:  # noqa: PTH120
                self._folders[other] = True

    def states(self) -> Iterator[tuple[frozenset[str], dict[str, bytes]]]:
        """Yield what a power cut may leave now: the folders, and what each file holds."""
        few = self._changes[: MOST_AT_A_TIME // 2] + self._changes[MOST_AT_A_TIME // 2 :][-MOST_AT_A_TIME // 2 :]
        for arrived in itertools.product((True, False), repeat=len(few)):
            names = dict(self._safe)
            for change in (change for change, came in zip(few, arrived, strict=True) if came):
                _apply(names, change)
            for kept in {False, True}:
                folders = frozenset(path for path, safe in self._folders.items() if safe or kept)
                there = {path: inode for path, inode in names.items() if os.path.dirname(path) in folders}  # noqa: PTH120
                for content in self._contents(there):
                    yield folders, content

    def _contents(self, names: dict[str, int]) -> Iterator[dict[str, bytes]]:
        """Yield what the files may hold: each in turn all that is possible, while the others hold the oldest, or the newest."""
        possible = {path: self._inodes[inode].possible() for path, inode in names.items()}
        oldest = {path: found[0] for path, found in possible.items()}
        newest = {path: (self._inodes[names[path]].written or found)[-1] for path, found in possible.items()}
        yield oldest
        for others in (oldest, newest):
            for path, found in possible.items():
                if len(found) > 1:
                    yield from ({**others, path: one} for one in found)


def _apply(names: dict[str, int], change: dict[str, int | None]) -> None:
    for path, inode in change.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def crash_states(events: list[Event]) -> Iterator[tuple[list[Any], frozenset[str], dict[str, bytes]]]:
    """Yield every state that a power cut may leave, each once: the marks so far, the folders, what each file holds.

    A state that may be left at several moments comes with the marks of the last of them: what it must hold is strictest there.
    """
    disk, began = Disk(), False
    marks: list[Any] = []
    found: dict[Any, tuple[list[Any], frozenset[str], dict[str, bytes]]] = {}
    for event in events:
        if event.kind == "mark":
            marks = [*marks, event.value]
        else:
            disk.do(event)
        began |= event.kind == "sync all"
        if not began:
            continue
        for folders, content in disk.states():
            key = (folders, tuple(sorted((path, hash(held)) for path, held in content.items())))
            found[key] = (marks, folders, content)
    yield from found.values()


def make(root: Path, place: Path, folders: frozenset[str], content: dict[str, bytes]) -> None:
    """Make below `place` a state of what was recorded below `root`."""
    for folder in sorted(folders):
        (place / Path(folder).relative_to(root)).mkdir(parents=True, exist_ok=True)
    for path, held in content.items():
        (place / Path(path).relative_to(root)).write_bytes(held)
