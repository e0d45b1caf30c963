"""The server component: `python -m icm_hpc.serving.server RUN_FOLDER` serves the run's model until it is told to stop.

On several nodes Slurm starts one a node: the first leads, the others follow it (follower.py).

Picks a free port, makes a key, publishes both in the attempt's endpoint.json, starts the engine, and leaves an exit record.
An engine that dies or hangs after it has served is restarted, on another port with another key, server.max_restarts
times. `--post-mortem` leaves the exit record of a component that could not.
"""

import contextlib
import http.client
import itertools
import os
import secrets
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from .. import scheduler
from ..config.loading import load_file
from ..config.schema import Config
from ..engines import exit_of, inherited, start_of
from ..engines.engine import Rank
from ..errors import FolderError, IcmError, ServerError
from ..rundir import logs, polling
from ..rundir.folder import Endpoint, Rendezvous, RunDir, ServerExit
from ..rundir.logs import size_of, written_since
from ..rundir.polling import Polled
from . import follower, orphan, process, weights

POLL_S = 0.2
LOOK_S = 1.0  # between two looks at the engine's health and the driver's wishes
PORT_TRIES = 5
RANKS_ARRIVE_S = 60.0  # from the start of the first node's component to that of the last node's
BACK_OFF_S = (1.0, 5.0, 25.0)  # before a restart; the last one holds for all that follow

_PARENT = int(os.environ.get("ICM_PARENT", os.getppid()))  # who said so may be gone before we look
_told_to_stop: list[int] = []
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the key is for no site's proxy


def main() -> None:
    """Serve; the exit code is 0 only after being told to stop."""
    run_dir = RunDir(Path(sys.argv[1]).absolute())
    local = os.environ.get("ICM_ATTEMPT")
    attempt = local or scheduler.attempt()
    if "--post-mortem" in sys.argv[2:]:
        post_mortem(run_dir, attempt, local=bool(local))
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # meant for the driver; the engine inherits this
    rank = 0
    try:
        config = load_file(run_dir.config)
        rank = scheduler.rank() if config.nodes > 1 else 0
        if rank > 0:
            reason = follower.follow(config, run_dir, attempt, rank, own_address(), is_to_stop=_is_to_stop)
        else:
            reason = serve(config, run_dir, attempt, local=bool(local))
    except IcmError as error:
        reason = str(error)
    except Exception as error:  # whatever ended it, the driver must learn of it
        reason = f"{type(error).__name__}: {error}"
    if rank > 0:
        sys.exit(0 if _told_to_stop else f"icm_hpc.serving.server: rank {rank}: {reason}")
    record = ServerExit(attempt, reason, told_to_stop=bool(_told_to_stop))
    try:
        _leave(run_dir, record)
    except (FolderError, OSError) as error:
        reason += f"; and that could not be recorded: {error}"
    if not _told_to_stop:
        sys.exit(f"icm_hpc.serving.server: {reason}")


def _leave(run_dir: RunDir, record: ServerExit) -> None:
    """Take the endpoint back, and record the end."""
    polling.block_until_done(lambda: run_dir.endpoint(record.attempt).unlink(missing_ok=True))
    polling.block_until_done(lambda: run_dir.write_server_exit(record))


def post_mortem(run_dir: RunDir, attempt: str, *, local: bool) -> None:
    """Record the end of a server component that left no record itself."""
    if polling.block_until_done(lambda: run_dir.read_server_exit(attempt)) is None:
        printed = "" if local else f", or did not start: see {run_dir.submitit}/*_server.out"
        _leave(run_dir, ServerExit(attempt, f"it was killed before it could say why{printed}", told_to_stop=False))
    else:
        polling.block_until_done(lambda: run_dir.endpoint(attempt).unlink(missing_ok=True))


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
    if not local:
        require_ranks(config, run_dir, attempt)
    served = weights.locate(config.model)
    host = "127.0.0.1" if local else "0.0.0.0"  # noqa: S104 - every route requires the key
    hosts = (host,) if local else addresses()
    ports_taken = restarts = 0
    for start in itertools.count():
        port, key = free_port(host), secrets.token_urlsafe(32)
        endpoint = Endpoint(attempt, start, hosts, port, key, config.model.known_as)
        end = _serve_once(config, run_dir, endpoint, host, served)
        if _is_to_stop():
            logs.shorten(run_dir.server_log, logs.ENGINE_ENDED)
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
        process.note(run_dir.server_log, f"{end.how}: restart {restarts} of {config.server.max_restarts}")
        _sleep(BACK_OFF_S[min(restarts, len(BACK_OFF_S)) - 1])
    raise AssertionError("the loop returns")


def require_ranks(config: Config, run_dir: RunDir, attempt: str) -> None:
    """Raise ServerError unless the component of every node starts within RANKS_ARRIVE_S: the engine would wait for hours."""
    started = scheduler.tasks_started() or config.nodes
    if started != config.nodes:
        raise ServerError(
            f"Slurm started {started} of the server's {config.nodes} ranks, which server.nodes={config.nodes} needs: is"
            " there an --ntasks or --nodes in cluster.server_srun_flags? slurm/selftest.sbatch tries such a step by itself"
        )
    deadline = time.monotonic() + RANKS_ARRIVE_S
    others = set(range(1, config.nodes))
    arrived = Polled[set[int]](lambda: {n for n in others if run_dir.has_arrived(attempt, n)}, set())
    while missing := sorted(others - arrived()):
        if _is_to_stop():
            return
        if time.monotonic() > deadline:
            raise ServerError(
                f"{config.nodes - len(missing)} of the server's {config.nodes} ranks started within {RANKS_ARRIVE_S:g} s;"
                f" missing: {', '.join(map(str, missing))}. Do their nodes see {run_dir.path}, and start Python there? See"
                f" {run_dir.submitit}/*_server.out"
            )
        time.sleep(POLL_S)


def _serve_once(config: Config, run_dir: RunDir, endpoint: Endpoint, host: str, served: Path | str) -> End:
    start = start_of(config.model.engine)
    rank = _announced(config, run_dir, endpoint) if config.nodes > 1 else None
    argv = start.argv(config.model, served, host=host, port=endpoint.port, replicas=config.server.replicas, rank=rank)
    began = polling.block_until_done(lambda: logs.begun(run_dir.server_log))
    polling.block_until_done(lambda: run_dir.write_endpoint(endpoint))
    patience_s = config.server.start_timeout_s
    address = rank.address if rank else None
    settings = start.environment(config.model, endpoint.key, address=address, start_timeout_s=patience_s)
    code, healthy, given_up = _run(config, argv, {**inherited.environment(os.environ), **settings}, run_dir, endpoint)
    for path in (run_dir.endpoint(endpoint.attempt), run_dir.rendezvous(endpoint.attempt)):
        polling.block_until_done(partial(path.unlink, missing_ok=True))
    ports = (endpoint.port, rank.port, rank.rpc_port) if rank else (endpoint.port,)
    if not healthy and not _told_to_stop and any(is_taken(host, port) for port in ports):
        return End("its port was taken", served=False, port_taken=True)
    if given_up:
        return End(given_up, served=healthy)
    how = exit_of(start, code, written_since(run_dir.server_log, began))
    return End(f"{config.model.engine} {how}", served=healthy)


def _announced(config: Config, run_dir: RunDir, endpoint: Endpoint) -> Rank:
    """Tell the other nodes of a start of the engine; return our own part in it."""
    address = own_address()
    with socket.socket() as one, socket.socket() as two:  # held together, so that they differ
        for probe in (one, two):
            probe.bind(("", 0))
        port, rpc_port = one.getsockname()[1], two.getsockname()[1]
    meeting = Rendezvous(endpoint.attempt, endpoint.start, address, port, rpc_port)
    polling.block_until_done(lambda: run_dir.write_rendezvous(meeting))
    return Rank(0, config.nodes, address, port, rpc_port)


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
    names = [scheduler.node_name(), socket.gethostname(), _outgoing_address()]
    return tuple(dict.fromkeys(name for name in names if name))


def own_address() -> str:
    """Return the address by which other nodes reach this one: that of Slurm's name for it, else of its way out."""
    for name in addresses():
        with contextlib.suppress(OSError):
            found = str(socket.getaddrinfo(name, None, family=socket.AF_INET)[0][4][0])
            if not found.startswith("127."):
                return found
    return "127.0.0.1"


def _outgoing_address() -> str | None:
    """Return the address from which this node would send (nothing is sent), or None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that is no one's (RFC 5737)
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _run(
    config: Config, argv: list[str], environment: Mapping[str, str], run_dir: RunDir, endpoint: Endpoint
) -> tuple[int, bool, str | None]:
    """Run the engine until it ends, hangs, loses a rank, is to stop, or our parent is gone.

    Returns its exit code, whether it was healthy, and why it was given up, if it was.
    """
    healthy, given_up = False, None
    news = Polled(lambda: _news(config, run_dir, endpoint), _News(None, None))
    driver = orphan.Watch(run_dir.lock)
    started = looked = time.monotonic()
    began = polling.block_until_done(lambda: size_of(run_dir.server_log))
    with process.engine(argv, environment, run_dir.server_log) as engine:
        while engine.poll() is None and not given_up and not _is_to_stop():
            time.sleep(POLL_S)
            if time.monotonic() - looked >= LOOK_S:
                if not healthy and is_healthy(endpoint, start_of(config.model.engine).health):
                    healthy = True
                    with contextlib.suppress(OSError):  # a line of the log is no reason to end
                        process.note(run_dir.server_log, f"healthy within {time.monotonic() - started:.0f} s")
                found = news()
                given_up = f"{config.model.engine} hung ({found.hang})" if found.hang else found.rank_exit
                healthy = healthy or found.hang is not None
                if driver.gave_back():
                    process.note(
                        run_dir.server_log, "the driver's node has died, and no other is free: the job was requeued"
                    )
                logs.shorten(run_dir.server_log, logs.ENGINE_RUNS, began)
                looked = time.monotonic()
    return engine.returncode, healthy, given_up


@dataclass(frozen=True, slots=True)
class _News:
    """Why a start of the engine is to be given up."""

    hang: str | None  # as the driver saw it
    rank_exit: str | None  # how the engine ended on another node


def _news(config: Config, run_dir: RunDir, endpoint: Endpoint) -> _News:
    hang = run_dir.read_restart_wanted(endpoint.attempt, endpoint.start)
    ranks = [run_dir.read_rank_exit(endpoint.attempt, n, endpoint.start) for n in range(1, config.nodes)]
    return _News(hang, next(filter(None, ranks), None))


def is_healthy(endpoint: Endpoint, path: str) -> bool:
    """Return whether the engine on this machine answers its health check."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{endpoint.port}{path}", headers={"Authorization": f"Bearer {endpoint.key}"}
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


def _sleep(seconds: float) -> None:
    """Sleep, unless told to stop."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not _is_to_stop():
        time.sleep(POLL_S)


def _stop(number: int, _frame: FrameType | None) -> None:
    _told_to_stop.append(number)


if __name__ == "__main__":
    main()
