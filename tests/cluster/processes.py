"""The processes of this machine, as /proc lists them.

Standard library only: `daemons.py` runs before anything is installed.
"""

import contextlib
import os
import signal
from pathlib import Path


def pids() -> list[int]:
    """Return all processes of our process namespace: not those of a cluster that runs in one of its own beside us."""
    ours = _namespace(Path("/proc/self"))
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _namespace(path) == ours]


def _namespace(process: Path) -> Path | None:
    try:
        return (process / "ns" / "pid").readlink()
    except OSError:  # it is gone
        return None


def read(pid: int, name: str) -> bytes:
    """Return a file of a process's folder, nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def open_files(pid: int) -> list[str]:
    """Return the paths of the files that a process has open, none if it is gone."""
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found.append(str(link.readlink()))
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, none if it is gone."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def of_command(*words: str) -> list[int]:
    """Return the processes whose command line holds all `words`, each as a whole word, but for those of Slurm itself."""
    found = []
    for pid in pids():
        argv = read(pid, "cmdline").decode(errors="replace").split("\0")
        slurms = read(pid, "comm").startswith((b"srun", b"slurmstepd"))
        if set(words) <= set(argv) and not slurms and "--post-mortem" not in argv:
            found.append(pid)
    return found


def kill(*targets: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to processes, one right after the other."""
    for pid in targets:
        os.kill(pid, number)


def kill_tree(root: int) -> None:
    """Kill a process and all that descend from it, the parents first so that they start no more."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting.extend(children(pid))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
