"""What of the user's network settings a request takes, and which connection carries it, against real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc import verify
from icm_hpc.driver.run import run as drive
from icm_hpc.engines import ENGINES
from icm_hpc.errors import ConfigError, IcmError
from icm_hpc.scoring import client as client_module
from icm_hpc.scoring import session as session_module
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.session import open_session
from icm_hpc.verify import Asked
from tests.conftest import prepare_run
from tests.external import KEY

PASSWORD = "proxy-password"
MODELS = {"data": [{"id": "m", "max_model_len": 100}]}


def client_of(session: aiohttp.ClientSession, url: str) -> Client:
    """Return a client that tries once."""
    return Client(session, ENGINES["vllm"], url=url, model="m", request_mb=4, requests_in_flight=1, retries=False)


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("place", ["NETRC", "HOME"])
async def test_a_netrc_entry_neither_replaces_our_key_nor_joins_it_nor_stands_in_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, place: str
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv(place, str(netrc if place == "NETRC" else tmp_path))
    seen: list[list[str]] = []

    async def models(request: web.Request) -> web.Response:
        seen.append(request.headers.getall("Authorization", []))
        return web.json_response(MODELS)

    app = web.Application()
    app.add_routes([web.get("/v1/models", models), web.get("/health", models)])
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        for external_url in (None, url, url.replace("http:", "https:")):
            async with open_session(key, 5, external_url=external_url) as session:
                client = client_of(session, url)
                assert await client.served() == {"m": 100}
                assert await client.trouble() is None
    assert seen == [[f"Bearer {key}"] if key else []] * 6


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """Yield the address of a proxy that refuses to pass anything on, and what it is asked for."""
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.splitlines()[0].rsplit(" ", 1)[0])
        assert KEY not in head
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        yield f"me:{PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


@pytest.mark.parametrize("written", ["http://{}", "{}"])
@pytest.mark.parametrize(
    ("url", "no_proxy", "passes"),
    [
        ("https://host.invalid", "", "CONNECT host.invalid:443"),
        ("HTTPS://host.invalid:8443/v1", "other", "CONNECT host.invalid:8443"),
        ("https://host.invalid", "host.invalid", None),
        ("http://host.invalid:8000", "", None),
    ],
)
async def test_verify_uses_the_proxy_exactly_where_a_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    *, url: str, no_proxy: str, passes: str | None, written: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setattr(client_module, "RETRY_WAITS_S", ())
    async with proxy() as (address, asked):
        for name in ("https_proxy", "http_proxy"):
            monkeypatch.setenv(name, written.format(address))
        monkeypatch.setenv("no_proxy", no_proxy)
        await verify.verify(Asked(url=url.removesuffix("/v1")), KEY)
        by_verify, asked[:] = list(asked), []
        settings, run_dir = prepare_run(tmp_path, "model=tiny", f"server.url={url}", "server.start_timeout_s=0.1")
        with pytest.raises(IcmError) as failed:
            await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=lambda _: None)
    assert set(by_verify) == set(asked) == ({passes} if passes else set())
    assert PASSWORD not in str(failed.value) + capsys.readouterr().out
    assert not any(PASSWORD in path.read_text() for path in run_dir.path.rglob("*") if path.is_file())


async def test_a_proxy_of_a_kind_that_is_not_supported_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", f"socks5://me:{PASSWORD}@host:1080")
    with pytest.raises(ConfigError, match=r"only http://HOST:PORT is supported") as refused:
        open_session(KEY, 5, external_url="https://host")
    assert PASSWORD not in str(refused.value)


async def test_a_connection_that_the_server_may_have_closed_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert session_module.KEEPALIVE_S < 5, "after which uvicorn closes an idle connection"
    monkeypatch.setattr(session_module, "KEEPALIVE_S", 0.3)
    connections: list[object] = []

    async def models(request: web.Request) -> web.Response:
        connections.append(request.transport)
        return web.json_response(MODELS)

    app = web.Application()
    app.add_routes([web.get("/v1/models", models)])
    async with TestServer(app) as server, open_session(KEY, 5) as session:
        client = client_of(session, str(server.make_url("")).rstrip("/"))
        for pause_s in (0, 0, 1.0):
            await asyncio.sleep(pause_s)
            await client.served()
    first, second, third = connections
    assert first is second is not third


async def strict(request: web.Request) -> web.Response:
    """Answer as vLLM does, which refuses a request of too many prompts or ids."""
    body = await request.json()
    prompts, ids = body["prompt"], body["logprob_token_ids"]
    if len(prompts) > 1024 or len(ids) > 128 or body["logprobs"] != len(ids):
        return web.Response(status=400, text="exceeds the maximum allowed count")
    listed = [{f"token_id:{token}": -float(prompt[0]) - token / 1000 for token in ids} for prompt in prompts]
    choices = [{"index": i, "logprobs": {"top_logprobs": [values]}} for i, values in enumerate(listed)]
    return web.json_response({"model": "m", "choices": choices, "usage": {"prompt_tokens": len(prompts)}})


@pytest.mark.parametrize("n", [1, 1024, 1025, 3000])
@pytest.mark.parametrize("labels", [1, 2, 128, 129, 300])
async def test_a_request_never_has_more_prompts_or_ids_than_vllm_takes(n: int, labels: int) -> None:
    app = web.Application(client_max_size=2**26)
    app.add_routes([web.post("/v1/completions", strict)])
    async with TestServer(app) as server, open_session(KEY, 30) as session:
        client = client_of(session, str(server.make_url("")).rstrip("/"))
        ids = range(500, 500 + labels)
        values = await client.label_logprobs((json.dumps([i]).encode() for i in range(n)), ids)
    assert values.shape == (n, labels)
    assert values[-1, -1] == -(n - 1) - ids[-1] / 1000
    assert client.traffic.requests == -(-n // 1024) * -(-labels // 128)
