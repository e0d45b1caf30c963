"""From a run's folder to a client whose server has proved that it works."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..config.schema import Config
from ..engines import start_of
from ..errors import ServerError, TimedOut
from ..rundir import polling
from ..rundir.folder import Endpoint, RunDir, ServerExit
from ..rundir.logs import tail, written_since
from ..rundir.polling import Polled
from . import external
from .client import Client, Traffic, client_of
from .session import open_session

POLL_S = 0.5
REPORT_S = 15.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def connected(
    config: Config, run_dir: RunDir, attempt: str, traffic: Traffic | None = None
) -> AsyncIterator[Client]:
    """Yield a client of this attempt's server, once that has answered a real scored completion.

    What it sends is counted in `traffic`. Raises ServerError when server.start_timeout_s are over, and NoAnswer if a healthy
    server gives none. A server that hangs, then or later, is reported to its component, which restarts it. One that is
    not ours (external.py) has neither component nor attempt.
    """
    if config.external_url is not None:
        async with external.connected(config, config.external_url, traffic) as theirs:
            yield theirs
        return
    deadline = time.monotonic() + config.server.start_timeout_s
    limits = config.server
    endpoint = await _endpoint(run_dir, attempt, deadline, limits.start_timeout_s)
    while True:
        async with open_session(endpoint.key, limits.request_timeout_s) as session:
            urls = [f"http://{host}:{endpoint.port}" for host in endpoint.hosts]
            clients = [client_of(session, config, url=url, model=endpoint.model) for url in urls]
            client, moved = await _healthy(clients, endpoint, run_dir, deadline, limits.start_timeout_s)
            if client is not None:
                async with _reporting_hangs(run_dir, endpoint):
                    await client.prove()
                    log.info("server ready: it answered a scored completion")
                    left_out = start_of(config.model.engine).left_out(written_since(run_dir.server_log, 0))
                    if left_out:
                        log.warning("%s (%s)", left_out, run_dir.server_log)
                    client.traffic = traffic or Traffic()  # the proof does not count
                    yield client
                return
        endpoint = moved


@asynccontextmanager
async def _reporting_hangs(run_dir: RunDir, endpoint: Endpoint) -> AsyncIterator[None]:
    try:
        yield
    except TimedOut as error:
        reason = str(error)
        await polling.until_done(lambda: run_dir.want_restart(endpoint.attempt, endpoint.start, reason))
        raise


async def server_end(run_dir: RunDir, attempt: str) -> ServerExit:
    """Return, once the server of this attempt has ended, how."""
    read = Polled(lambda: run_dir.read_server_exit(attempt), None)
    while (record := read()) is None:  # noqa: ASYNC110 - the writer is another process
        await asyncio.sleep(POLL_S)
    return record


def server_exit_error(run_dir: RunDir, record: ServerExit) -> ServerError:
    """Return the error for the end of a server."""
    return ServerError(
        f"the server ended: {record.reason}; last lines of {run_dir.server_log}:\n{tail(run_dir.server_log)}"
    )


async def _endpoint(run_dir: RunDir, attempt: str, deadline: float, timeout_s: float) -> Endpoint:

    def given() -> Endpoint | None:
        endpoint = run_dir.read_endpoint(attempt)
        return None if endpoint and run_dir.read_restart_wanted(attempt, endpoint.start) else endpoint

    read: Polled[Endpoint | None] = Polled(given, None)
    while (endpoint := read()) is None:
        if time.monotonic() > deadline:
            raise ServerError(
                f"no server of this attempt ({attempt}) wrote {run_dir.endpoint(attempt)} within"
                f" server.start_timeout_s={timeout_s:g}; did its component start, and does it see this folder?"
            )
        await asyncio.sleep(POLL_S)
    return endpoint


async def _healthy(
    clients: list[Client], endpoint: Endpoint, run_dir: RunDir, deadline: float, timeout_s: float
) -> tuple[Client | None, Endpoint]:
    """Return the first client whose server answers; a node may be known by several names.

    None, and the new endpoint, if the server has moved: the port that it had chosen was taken by another.
    """
    began = reported = time.monotonic()
    read = Polled(lambda: run_dir.read_endpoint(endpoint.attempt), None)
    while True:
        troubles = await asyncio.gather(*(client.trouble() for client in clients))
        for client, trouble in zip(clients, troubles, strict=True):
            if trouble is None:
                log.info("server healthy after %.0f s", time.monotonic() - began)
                return client, endpoint
        latest = read()
        if latest is not None and latest != endpoint:
            return None, latest
        now = time.monotonic()
        if now > deadline:
            raise ServerError(
                f"the server was not healthy within server.start_timeout_s={timeout_s:g}: {'; '.join(map(str, troubles))};"
                f" last lines of {run_dir.server_log}:\n{tail(run_dir.server_log)}"
            )
        if now - reported >= REPORT_S:
            reported = now
            log.info("waiting for the server on port %d (%.0f s)", endpoint.port, now - began)
        await asyncio.sleep(POLL_S)
