"""Answers that say that requests come too fast, and the server behind a hosted proxy, against real HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc.driver.run import run as drive
from icm_hpc.engines import ENGINES, stub
from icm_hpc.errors import RateLimited, ServerError
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.progress import Progress
from icm_hpc.scoring import rate_limit
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.rate_limit import Patience, retry_after_s
from icm_hpc.scoring.session import open_session
from tests import offline
from tests.conftest import prepare_run
from tests.external import KEY

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=timezone.utc)
NONSENSE = (
    "",
    "soon",
    "nan",
    "inf",
    "-inf",
    "-5",
    "1e999",
    "99:99",
    "Mon, 99 Foo 9999999",
    "0x10",
    "1,5",
    "1.5 s",
    "\u0663\u0663:",
)
SEARCH = ("model=tiny", "task.limit=12", "search.steps=20", "search.schedule=constant", "search.memo_mb=0")


def quiet(_: Progress) -> None:
    """Watch nothing."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a key, and wait as little as possible."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setattr(rate_limit, "FIRST_WAIT_S", 0.002)
    monkeypatch.setattr("icm_hpc.scoring.client.RETRY_WAITS_S", (0.0, 0.0))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("7", 7.0), ("0", 0.0), ("1.5", 1.5), (" 2 ", 2.0), ("1e1", 10.0)),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0.0),
        ("Wed, 25 Nov 2026 13:00:10 +0100", 10.0),
        ("Wednesday, 25-Nov-26 12:00:05 GMT", 5.0),
        ("Wed Nov 25 12:00:05 2026", 5.0),
        *((value, None) for value in NONSENSE),
    ],
)
def test_how_long_a_server_asks_us_to_wait_is_read_in_every_form(value: str, seconds: float | None) -> None:
    assert retry_after_s({"Retry-After": value}, NOW) == seconds
    assert retry_after_s({}, NOW) is None


def test_one_request_waits_as_asked_else_longer_and_longer_and_no_longer_than_the_limit_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "FIRST_WAIT_S", 1.0)
    patience = Patience(200)
    assert [patience.next_wait_s(asked) for asked in (None, 1.5, 0, 90, 0.001)] == [1, 1.5, 4, 60, 1]
    assert [patience.next_wait_s(None) for _ in range(4)] == [32, 60, 40.5, None]


@asynccontextmanager
async def refusing(
    refuse: Callable[[int], web.Response | None], timeout_s: float = 5.0, **settings: Any
) -> AsyncIterator[Client]:
    """Yield a client of the stub; the n-th scoring gets what `refuse` returns, if anything."""
    count = 0

    @web.middleware
    async def refuse_some(request: web.Request, handler: Any) -> Any:
        nonlocal count
        if request.path != "/v1/completions":
            return await handler(request)
        count += 1
        return refuse(count) or await handler(request)

    app = stub.application(model="m", max_model_len=1000, key="key")
    app.middlewares.append(refuse_some)
    async with TestServer(app) as server, open_session("key", timeout_s) as session:
        url = str(server.make_url("/")).rstrip("/")
        yield Client(session, ENGINES["stub"], url=url, model="m", request_mb=4, requests_in_flight=2, **settings)


@pytest.mark.parametrize("value", [*NONSENSE[:-1], "0", "0.01", "1e-3", "Wed, 25 Nov 2020 13:00:10 GMT", None])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_rate_limit_is_waited_for_whatever_the_answer_says(status: int, value: str | None) -> None:
    headers = {} if value is None else {"Retry-After": value}

    def refuse(count: int) -> web.Response | None:
        return web.Response(status=status, headers=headers) if count <= 6 else None

    usable = retry_after_s(headers) is not None
    async with refusing(refuse, rate_limit_s=60) as client:
        if status == 503 and not usable:  # a broken server, not one that names a time: three tries
            with pytest.raises(ServerError):
                await client.label_logprobs([b"[1,2]"], [5, 7])
            return
        assert np.isfinite(await client.label_logprobs([b"[1,2]"], [5, 7])).all()
        counter = "http_429" if status == 429 else "http_5xx"
        assert client.traffic.retries == client.traffic.failures[counter] == 6
        assert client.traffic.requests == 1


async def test_a_rate_limit_that_does_not_pass_ends_with_how_long_it_was_waited_for() -> None:
    async with refusing(lambda _: web.Response(status=429, text="slow down"), rate_limit_s=0.1) as client:
        with pytest.raises(RateLimited, match=r"429: slow down; waited for server\.start_timeout_s=0\.1 in all"):
            await client.label_logprobs([b"[1,2]"], [5, 7])


async def test_a_run_under_a_rate_limit_loses_no_server_and_ends_as_if_there_were_none(tmp_path: Path) -> None:
    count = 0

    @web.middleware
    async def limit(request: web.Request, handler: Any) -> Any:
        nonlocal count
        count += 1
        return await handler(request) if count % 3 == 0 else web.Response(status=429)

    app = stub.application(model="theirs", max_model_len=10**6, key=KEY)
    app.middlewares.append(limit)
    async with TestServer(app) as server:
        settings, run_dir = prepare_run(tmp_path, *SEARCH, f"server.url={server.make_url('')}")
        summary = await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    assert summary["since_start"]["servers_lost"] == 0
    assert summary["since_start"]["failures"]["http_429"] == summary["since_start"]["retries"] > 10
    _, whole, _ = await offline.label(tmp_path / "whole", *SEARCH[1:])
    assert run_dir.labels.read_bytes() == whole.labels.read_bytes()


async def test_a_rate_limit_that_does_not_pass_stops_the_run_with_its_state_saved(tmp_path: Path) -> None:
    limited = asyncio.Event()

    @web.middleware
    async def limit(request: web.Request, handler: Any) -> Any:
        return web.Response(status=429) if limited.is_set() else await handler(request)

    app = stub.application(model="theirs", max_model_len=10**6, key=KEY)
    app.middlewares.append(limit)
    async with TestServer(app) as server:
        settings, run_dir = prepare_run(
            tmp_path, *SEARCH, f"server.url={server.make_url('')}", "server.start_timeout_s=0.2"
        )

        def limit_from_step_5(now: Progress) -> None:
            if now.step >= 5:
                limited.set()

        with pytest.raises(ServerError, match=r"waited for server\.start_timeout_s=0\.2 in all"):
            await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=limit_from_step_5)
    saved = checkpoint.load_newest(run_dir.shard(0))
    assert saved is not None
    assert saved.state.step >= 5


METRICS = {
    "not there": lambda: web.Response(status=404),
    "forbidden": lambda: web.Response(status=403, text="no"),
    "a page": lambda: web.Response(text="<html>sign in</html>", content_type="text/html"),
    "json": lambda: web.json_response({"detail": "Not Found"}),
    "empty": lambda: web.Response(text=""),
    "others": lambda: web.Response(text="process_open_fds 7.0\n"),
    "broken": lambda: web.Response(status=502),
    "limited": lambda: web.Response(status=429, headers={"Retry-After": "3600"}),
}


@pytest.mark.parametrize("kind", METRICS)
async def test_without_metrics_a_run_goes_on_with_one_warning_and_counts_that_are_unknown(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("icm_hpc.scoring.client.RETRY_WAITS_S", (0.0,))

    @web.middleware
    async def proxy(request: web.Request, handler: Any) -> Any:
        return METRICS[kind]() if request.path == "/metrics" else await handler(request)

    app = stub.application(model="theirs", max_model_len=10**6, key=KEY)
    app.middlewares.append(proxy)
    async with TestServer(app) as server:
        settings, run_dir = prepare_run(tmp_path, *SEARCH, f"server.url={server.make_url('')}")
        summary = await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    since = summary["since_start"]
    assert (since["server_prompt_tokens"], since["server_computed_tokens"]) == (None, None)
    assert since["servers_lost"] == since["retries"] == sum(since["failures"].values()) == 0
    warned = [record for record in caplog.records if "the server's own counts are not known" in record.getMessage()]
    assert [record.levelno for record in warned] == [logging.WARNING]
    assert len(run_dir.labels.read_text().splitlines()) == 12


async def test_with_metrics_the_counts_are_the_servers(tmp_path: Path) -> None:
    async with TestServer(stub.application(model="theirs", max_model_len=10**6, key=KEY)) as server:
        settings, run_dir = prepare_run(tmp_path, *SEARCH, f"server.url={server.make_url('')}")
        summary = await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    since = summary["since_start"]
    assert since["server_prompt_tokens"] == since["prompt_tokens"] > 0
