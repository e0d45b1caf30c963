"""The server component: `python -m icm_hpc.server RUN_FOLDER` serves the run's model until it is told to stop.

Picks a free port, makes a key, publishes both in the attempt's endpoint.json, starts the engine, and leaves an exit record.
An engine that dies or hangs after it has served is started anew, on another port with another key, server.max_restarts
times. `--post-mortem` leaves the exit record of a component that could not.
"""

import contextlib
import ctypes
import http.client
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from . import weights
from .config import load_file
from .engines import ENGINES
from .errors import IcmError
from .rundir import Endpoint, RunDir, ServerExit, attempt_of_job, private_append, tail
from .settings import Config

POLL_S = 0.2
LOOK_S = 1.0  # between two looks at the engine's health and the driver's wishes
PORT_TRIES = 5
BACK_OFF_S = (1.0, 5.0, 25.0)  # before a restart; the last one holds for all that follow
STOP_S = 8.0  # from a kind word to force; Slurm itself kills after KillWait, often 30 s

_PARENT = int(os.environ.get("ICM_PARENT", os.getppid()))  # who said so may be gone before we look
_told_to_stop: list[int] = []
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the key is for no site's proxy


def main() -> None:
    """Serve; the exit code is 0 only after being told to stop."""
    run_dir = RunDir(Path(sys.argv[1]).absolute())
    local = os.environ.get("ICM_ATTEMPT")
    attempt = local or attempt_of_job()
    if "--post-mortem" in sys.argv[2:]:
        post_mortem(run_dir, attempt)
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # meant for the driver; the engine inherits this
    try:
        reason = serve(load_file(run_dir.config), run_dir, attempt, local=bool(local))
    except IcmError as error:
        reason = str(error)
    except Exception as error:  # whatever ended it, the driver must learn of it
        reason = f"{type(error).__name__}: {error}"
    run_dir.endpoint(attempt).unlink(missing_ok=True)
    run_dir.write_server_exit(ServerExit(attempt, reason, told_to_stop=bool(_told_to_stop)))
    if not _told_to_stop:
        sys.exit(f"icm_hpc.server: {reason}")


def post_mortem(run_dir: RunDir, attempt: str) -> None:
    """Record the end of a server component that left no record itself."""
    run_dir.endpoint(attempt).unlink(missing_ok=True)
    if run_dir.read_server_exit(attempt) is None:
        run_dir.write_server_exit(ServerExit(attempt, "it was killed before it could say why", told_to_stop=False))


@dataclass(frozen=True, slots=True)
class End:
    """How a start of the engine ended."""

    how: str
    served: bool  # it had answered its health check
    port_taken: bool = False


def serve(config: Config, run_dir: RunDir, attempt: str, *, local: bool) -> str:
    """Run the engine, again after it has died; return why no more.

    A `local` server listens to this machine only, one of a job to the nodes of the cluster.
    """
    served = weights.locate(config.model)
    host = "127.0.0.1" if local else "0.0.0.0"  # noqa: S104 - every route wants the key
    hosts = (host,) if local else addresses()
    ports_taken = restarts = 0
    for start in itertools.count():
        port, key = free_port(host), secrets.token_urlsafe(32)
        endpoint = Endpoint(attempt, start, hosts, port, key, config.model.name)
        end = _serve_once(config, run_dir, endpoint, host, served)
        if _is_to_stop():
            return f"told to stop by {signal.Signals(_told_to_stop[0]).name}"
        if end.port_taken:
            ports_taken += 1
            if ports_taken == PORT_TRIES:
                return f"{PORT_TRIES} ports in turn were taken by others"
            continue
        if not end.served and not restarts:
            return end.how  # it cannot start: to try again would tell us no more
        if restarts == config.server.max_restarts:
            return f"{end.how}; it had been restarted server.max_restarts={restarts} times"
        restarts += 1
        _note(run_dir, f"{end.how}: restart {restarts} of {config.server.max_restarts}")
        _sleep(BACK_OFF_S[min(restarts, len(BACK_OFF_S)) - 1])
    raise AssertionError("the loop returns")


def _serve_once(config: Config, run_dir: RunDir, endpoint: Endpoint, host: str, served: Path | str) -> End:
    engine = ENGINES[config.model.engine]
    argv = engine.argv(config.model, served, host=host, port=endpoint.port)
    began = run_dir.server_log.stat().st_size if run_dir.server_log.exists() else 0
    run_dir.write_endpoint(endpoint)
    environment = {**os.environ, **engine.environment(config.model, endpoint.key)}
    code, healthy, hung = _run(argv, environment, run_dir, endpoint)
    run_dir.endpoint(endpoint.attempt).unlink(missing_ok=True)
    if hung:
        return End(f"{config.model.engine} hung ({hung})", served=True)
    if not healthy and not _told_to_stop and is_taken(host, endpoint.port):
        return End("its port was taken", served=False, port_taken=True)
    remedy = engine.remedy(code, tail(run_dir.server_log, lines=200, begin=began))
    how = f"{config.model.engine} exited with code {code}" + (f" ({remedy})" if remedy else "")
    return End(how, served=healthy)


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


def _run(
    argv: list[str], environment: Mapping[str, str], run_dir: RunDir, endpoint: Endpoint
) -> tuple[int, bool, str | None]:
    """Run the engine until it ends, hangs, is to stop, or our parent is gone.

    Returns its exit code, whether it was healthy, and, if the driver gave it up, why.
    """
    healthy, hung = False, None
    looked = time.monotonic()
    _note(run_dir, " ".join(argv))
    with private_append(run_dir.server_log) as log:
        engine = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        while engine.poll() is None and not hung and not _is_to_stop():
            time.sleep(POLL_S)
            if time.monotonic() - looked >= LOOK_S:
                healthy = healthy or is_healthy(endpoint)
                hung = run_dir.read_restart_wanted(endpoint.attempt, endpoint.start)
                looked = time.monotonic()
    finally:
        _end(engine)
    return engine.returncode, healthy, hung


def is_healthy(endpoint: Endpoint) -> bool:
    """Return whether the engine on this machine answers its health check."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{endpoint.port}/health", headers={"Authorization": f"Bearer {endpoint.key}"}
    )
    try:
        with _DIRECT.open(request, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _is_to_stop() -> bool:
    """Return whether we were told to stop, or have no one left to serve."""
    if os.getppid() != _PARENT:
        _told_to_stop.append(signal.SIGHUP)
    return bool(_told_to_stop)


def _note(run_dir: RunDir, text: str) -> None:
    with private_append(run_dir.server_log) as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())


def _sleep(seconds: float) -> None:
    """Sleep, unless told to stop."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not _is_to_stop():
        time.sleep(POLL_S)


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
