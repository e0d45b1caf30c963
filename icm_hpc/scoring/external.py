"""A client of a server that already runs, and that nobody here can restart: it answers, or it is waited for."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp

from ..config import credentials
from ..config.schema import Config
from ..engines import ENGINES
from ..errors import NoAnswer, ScoringError, ServerError
from .client import Client, Traffic, client_of
from .session import open_session

POLL_S = 0.5
REPORT_S = 15.0
REFUSED = (401, 403)  # HTTP's words for a wrong key

log = logging.getLogger(__name__)


@asynccontextmanager
async def connected(config: Config, url: str, traffic: Traffic | None) -> AsyncIterator[Client]:
    """Yield a client of the server at `url`, once that has answered a real scored completion.

    Raises ServerError when server.start_timeout_s are over, and ScoringError for what waiting does not repair.
    """
    found = credentials.of_server(config)
    key, key_from = (found.value, found.source) if found else (None, "there is none")
    async with open_session(key, config.server.request_timeout_s, external_url=url) as session:
        client = _client(session, config, url)
        await _answering(client, config, key_from)
        log.info("server ready: %s answered a scored completion as %s", url, client.model)
        client.traffic = traffic or Traffic()  # the proof does not count
        yield client


def _client(session: aiohttp.ClientSession, config: Config, url: str) -> Client:
    engine, named = ENGINES[config.model.engine], config.model.served_name
    own = config.model.name if engine.models is None else ""  # of a server that lists its models: the only one
    return client_of(session, config, url=engine.completions.base_url(url), model=named or own)


async def _answering(client: Client, config: Config, key_from: str) -> None:
    """Wait until the server proves that it works; while it does not answer at all, that may pass."""
    timeout_s = config.server.start_timeout_s
    began = reported = time.monotonic()
    while True:
        try:
            client.model = client.model or only_model(await client.served())
            await client.prove()
            return
        except NoAnswer as error:
            trouble = error
        except ScoringError as error:
            if error.status in REFUSED:
                raise ScoringError(
                    f"the server refuses the key ({key_from}): {error}", counter=error.counter
                ) from error
            raise
        now = time.monotonic()
        if now - began > timeout_s:
            raise ServerError(f"no scored completion within server.start_timeout_s={timeout_s:g}: {trouble}")
        if now - reported >= REPORT_S:
            reported = now
            log.info("waiting for the server (%.0f s): %s", now - began, trouble)
        await asyncio.sleep(POLL_S)


def only_model(served: Mapping[str, int | None]) -> str:
    """Return the one model that a server lists; raises ScoringError if there is a choice."""
    if len(served) != 1:
        raise ScoringError(f"the server lists the models {sorted(served)}: choose one with model.served_name=NAME")
    (name,) = served
    return name
