"""The server component: `python -m icm_hpc.server RUN_FOLDER` serves the run's model until it is told to stop.

Picks a free port, makes the attempt's key, publishes both in endpoint.json, starts the engine, and leaves an exit record.
"""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from . import weights
from .config import Config, load_file
from .engines import ENGINES
from .errors import IcmError
from .rundir import Endpoint, RunDir, ServerExit, attempt_of_job, private_append

POLL_S = 0.2
PORT_TRIES = 5
STOP_S = 8.0  # from a kind word to force; Slurm itself kills after KillWait, often 30 s

_told_to_stop: list[int] = []


def main() -> None:
    """Serve; the exit code is 0 only after being told to stop."""
    run_dir = RunDir(Path(sys.argv[1]).absolute())
    local = os.environ.get("ICM_ATTEMPT")
    attempt = local or attempt_of_job()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # meant for the driver; the engine inherits this
    try:
        reason = serve(load_file(run_dir.config), run_dir, attempt, local=bool(local))
    except IcmError as error:
        reason = str(error)
    except Exception as error:  # whatever ended it, the driver must learn of it
        reason = f"{type(error).__name__}: {error}"
    run_dir.endpoint.unlink(missing_ok=True)
    run_dir.write_server_exit(ServerExit(attempt, reason, told_to_stop=bool(_told_to_stop)))
    if not _told_to_stop:
        sys.exit(f"icm_hpc.server: {reason}")


def serve(config: Config, run_dir: RunDir, attempt: str, *, local: bool) -> str:
    """Run the engine, on another port if the first is taken meanwhile; return why it ended.

    A `local` server listens to this machine only, one of a job to the nodes of the cluster.
    """
    served = weights.locate(config.model)
    engine = ENGINES[config.model.engine]
    host = "127.0.0.1" if local else "0.0.0.0"  # noqa: S104 - every route wants the key
    for _ in range(PORT_TRIES):
        port, key = free_port(host), secrets.token_urlsafe(32)
        hosts = (host,) if local else addresses()
        argv = engine.argv(config.model, served, host=host, port=port)
        run_dir.write_endpoint(Endpoint(attempt, hosts, port, key, config.model.name))
        code = _run(argv, {**os.environ, **engine.environment(config.model, key)}, run_dir.server_log)
        if _told_to_stop:
            return f"told to stop by {signal.Signals(_told_to_stop[0]).name}"
        if not is_taken(host, port):
            return f"{config.model.engine} exited with code {code}"
    return f"{PORT_TRIES} ports in turn were taken by others"


def free_port(host: str) -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_taken(host: str, port: int) -> bool:
    """Return whether another process holds the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False


def addresses() -> tuple[str, ...]:
    """Return the names and addresses under which other nodes may reach this one, Slurm's own name first."""
    names = [os.environ.get("SLURMD_NODENAME"), socket.gethostname(), _outgoing_address()]
    return tuple(dict.fromkeys(name for name in names if name))


def _outgoing_address() -> str | None:
    """Return the address from which this node would send (nothing is sent), or None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that is no one's (RFC 5737)
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _run(argv: list[str], environment: Mapping[str, str], log_path: Path) -> int:
    """Run the engine until it ends, is to stop, or our parent is gone; return its exit code."""
    parent = os.getppid()
    with private_append(log_path) as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(argv)}\n".encode())
        log.flush()
        engine = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        while engine.poll() is None and not _told_to_stop:
            if os.getppid() != parent:
                _told_to_stop.append(signal.SIGHUP)
            time.sleep(POLL_S)
        _end(engine)
    return engine.returncode


def _end(engine: "subprocess.Popen[bytes]") -> None:
    """Stop the engine and all its processes: kindly, then by force."""
    if engine.poll() is None:
        engine.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(timeout=STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()


def _die_with_parent() -> None:
    """Ask Linux to end the engine if this process is killed outright (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _stop(number: int, _frame: FrameType | None) -> None:
    _told_to_stop.append(number)


if __name__ == "__main__":
    main()
