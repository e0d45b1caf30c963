"""The engine as a process of a server component: it ends with us, whole, however we end."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..rundir.files import private_append
from ..rundir.polling import block_until_done

STOP_S = 8.0  # from SIGTERM to SIGKILL; Slurm itself kills after KillWait, often 30 s
KILL_S = 10.0  # from SIGKILL until a process counts as one that cannot be killed, as in a call to a broken GPU driver


@contextmanager
def engine(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the engine; at the end, stop it and all its processes: by SIGTERM, then by SIGKILL."""
    block_until_done(lambda: note(log, " ".join(argv)))
    with block_until_done(lambda: private_append(log)) as output:
        process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        _end(process, log)


def note(log: Path, text: str) -> None:
    """Write a line of our own into the engine's log."""
    with private_append(log) as file:
        file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())


def _end(process: "subprocess.Popen[bytes]", log: Path) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(timeout=KILL_S)
    except subprocess.TimeoutExpired:
        note(log, f"process {process.pid} does not end {KILL_S:g} s after SIGKILL: left to Slurm and the kernel")


def _die_with_parent() -> None:
    """Ask Linux to end the engine if this process is killed outright (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
