"""What a server is asked before it is trusted, against real HTTP."""

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc.engines import ENGINES, stub
from icm_hpc.scoring import checks, measuring
from icm_hpc.scoring.checks import Check
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.session import open_session
from tests.conftest import unavailable

AFTER_MODEL = (checks.COMPLETION, checks.LABELS, checks.CACHING, checks.CONTEXT, checks.CLOCK)
EVERYTHING = (checks.REACHABLE, checks.MODEL, checks.VERSION, *AFTER_MODEL)


@dataclass
class Pretender:
    """A server that says of itself what vLLM says, as far as it is told to."""

    version: str | None = "0.32.0"
    models: tuple[str, ...] = ("m",)
    context: Any = 1000
    tokenizes: bool = True
    logprobs: str = "exact"  # or none, refused, texts, wrong, by_rank: as vLLM before 0.26, which ignores the ids
    counters: bool = True
    broken_counter: str = ""  # a line of /metrics
    caches: bool = True
    asked: int = 0  # completions
    cached: int = 0  # tokens
    seen: frozenset[str] = frozenset()  # prompts
    replicas: frozenset[str | None] = frozenset()  # that prompts were meant for
    ids: tuple[list[int], ...] = ()  # that were asked for

    def application(self) -> web.Application:
        """Return it as an application."""
        app = web.Application()
        app.add_routes([web.get("/v1/models", self._models), web.post("/v1/completions", self._completions)])
        if self.version:
            app.add_routes([web.get("/version", answering({"version": self.version}))])
        if self.tokenizes:
            app.add_routes([web.post("/tokenize", answering({"tokens": list(range(3, 20))}))])
        if self.counters:
            app.add_routes([web.get("/metrics", self._metrics)])
        return app

    async def _models(self, _request: web.Request) -> web.Response:
        cards = [{"id": name, **({"max_model_len": self.context} if self.context else {})} for name in self.models]
        return web.json_response({"data": cards})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            text=f"{self.broken_counter}\n"
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
            f"vllm:prefix_cache_queries_total 1000.0\nvllm:prefix_cache_hits_total {self.cached}.0\n"
        )

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked += 1
        self.replicas |= {request.headers.get("X-data-parallel-rank")}
        if self.logprobs == "refused" and "logprobs" in body:
            return web.Response(status=400, text="logprobs: at most 5")
        prompt = json.dumps(body["prompt"][0])
        if prompt in self.seen and self.caches:
            self.cached += 64
        self.seen |= {prompt}
        ids = body.get("logprob_token_ids")
        self.ids += (ids,) if ids else ()
        if ids and self.logprobs == "by_rank":
            ids = range(1, 1 + min(body["logprobs"], 20))
        values = {f"token_id:{token}": -0.5 * token - (self.logprobs == "wrong") for token in ids or ()}
        if not ids:
            name = "text {}" if self.logprobs == "texts" else "token_id:{}"
            values = {name.format(token): -0.5 * token for token in range(1, 21)}
        choice = {"index": 0, "logprobs": None if self.logprobs == "none" else {"top_logprobs": [values]}}
        return web.json_response({"model": body["model"], "choices": [choice], "usage": {"prompt_tokens": 1}})


def answering(value: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return what answers always the same."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(value)

    return answer


async def checked(url: str, *, model: str = "m", replicas: int = 1, **wanted: Any) -> dict[str, Check]:
    """Return the checks of the server at `url` by their names."""
    async with open_session("key", timeout_s=5) as session:
        client = Client(
            session,
            ENGINES["vllm"],
            url=url,
            model=model,
            request_mb=4,
            requests_in_flight=1,
            replicas=replicas,
            retries=False,
        )
        told: list[Check] = []
        done = await checks.run(client, told.append, measure=False, **wanted)
        assert client.traffic.requests == 0, "what checks send counts in no traffic"
    assert told == done
    assert tuple(check.name for check in done) == EVERYTHING
    assert all(check.remedy for check in done if check.passed is False)
    return {check.name: check for check in done}


async def checked_application(application: web.Application, **wanted: Any) -> dict[str, Check]:
    """Return the checks of an application that runs in this process."""
    async with TestServer(application) as server:
        return await checked(str(server.make_url("/")).rstrip("/"), **wanted)


@asynccontextmanager
async def listening(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """Yield the address of what is no HTTP server."""

    async def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return what serves TLS with a certificate that nobody trusts."""
    if shutil.which("openssl") is None:
        unavailable("no openssl to make a certificate with")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    subprocess.run([*argv, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def unreachable(done: dict[str, Check]) -> Check:
    """Return the first check, after which nothing else was."""
    assert [check.passed for check in done.values()] == [False] + [None] * 7
    return done[checks.REACHABLE]


async def test_a_server_that_can_do_everything_passes_everything_with_few_requests() -> None:
    server = Pretender()
    done = await checked_application(server.application(), context=800, label_ids=[7, 100])
    assert [check.passed for check in done.values()] == [True] * 8
    assert server.asked == 5
    assert "9 tokens asked by id" in done[checks.LABELS].found
    assert "64 tokens came from the cache" in done[checks.CACHING].found
    assert "799 tokens" in done[checks.CLOCK].found


async def test_where_nobody_listens_that_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        first = unreachable(await checked(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert "nothing listens there" in first.found


async def test_an_unknown_name_is_told() -> None:
    first = unreachable(await checked("http://no-such-machine.invalid:8000"))
    assert "the name no-such-machine.invalid is unknown here" in first.found


async def test_a_server_that_never_answers_is_told_from_one_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ANSWER_S", 0.2)
    async with listening(lambda _: asyncio.sleep(1)) as address:
        first = unreachable(await checked(f"http://{address}"))
    assert "no answer within 0.2 s" in first.found


async def test_what_does_not_speak_http_is_told() -> None:
    async def greet(writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()

    async with listening(greet) as address:
        assert "does not speak HTTP" in unreachable(await checked(f"http://{address}")).found


async def test_tls_where_there_is_none_is_told() -> None:
    async with TestServer(Pretender().application()) as server:
        first = unreachable(await checked(f"https://127.0.0.1:{server.port}"))
    assert "no TLS connection" in first.found
    assert "http://" in first.remedy


async def test_a_certificate_that_is_not_trusted_is_told_from_no_tls(tmp_path: Path) -> None:
    server = TestServer(Pretender().application(), scheme="https")
    await server.start_server(ssl=self_signed(tmp_path))
    try:
        first = unreachable(await checked(f"https://127.0.0.1:{server.port}"))
    finally:
        await server.close()
    assert "its certificate is not trusted here" in first.found
    assert "SSL_CERT_FILE" in first.remedy


async def test_a_wrong_key_is_told_with_the_variable_that_holds_the_right_one() -> None:
    first = unreachable(await checked_application(stub.application(model="m", max_model_len=99, key="another")))
    assert "refuses the key (401)" in first.found
    assert "VLLM_API_KEY" in first.remedy


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.HTTPNotFound, "has no /v1/models (404)"),
        (web.HTTPServiceUnavailable, "answered 503"),
        (web.HTTPOk, "is no OpenAI-compatible API"),
    ],
)
async def test_an_answer_that_lists_no_models_is_told(answer: Callable[[], web.HTTPException], said: str) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        raise answer()

    app = web.Application()
    app.add_routes([web.get("/v1/models", refuse)])
    assert said in unreachable(await checked_application(app)).found


async def test_a_model_that_is_not_served_is_told_with_those_that_are() -> None:
    done = await checked_application(Pretender(models=("a", "b")).application())
    assert done[checks.MODEL].found == "the server lists a, b, not m"
    assert done[checks.VERSION].passed
    assert {done[name].passed for name in AFTER_MODEL} == {None}


async def test_the_only_model_need_not_be_named_and_one_of_several_must() -> None:
    done = await checked_application(Pretender(models=("a",)).application(), model="")
    assert all(check.passed for check in done.values())
    done = await checked_application(Pretender(models=("a", "b")).application(), model="")
    assert done[checks.MODEL].passed is False
    assert done[checks.MODEL].remedy == "say which is meant: model=NAME"


@pytest.mark.parametrize("label_ids", [[], [1, 2], [7, 100], range(100, 120)])
async def test_a_server_that_ignores_the_ids_fails_and_the_version_that_is_required_is_reported(label_ids: Any) -> None:
    server = Pretender(version="0.25.1", logprobs="by_rank")
    done = await checked_application(server.application(), label_ids=label_ids)
    assert {name for name, check in done.items() if check.passed is False} == {checks.VERSION, checks.LABELS}
    for name in (checks.VERSION, checks.LABELS):
        assert "vLLM 0.26 or newer is required" in done[name].remedy
    assert "is not in the answer" in done[checks.LABELS].found


@pytest.mark.parametrize(
    "version", ["0.25.1", "0.9.2", "v0.24.0+cu129", "0.26.0rc1", "0.26.0", "0.33.1", "1.0", "0.1.dev1+g1a2b", "x"]
)
async def test_only_a_version_before_0_26_is_too_old(version: str) -> None:
    done = await checked_application(Pretender(version=version).application())
    assert done[checks.VERSION].passed is not version.startswith(("0.25", "0.9", "v0.24"))


async def test_the_tokens_that_are_asked_by_id_are_the_least_likely_of_the_top_k_and_others_outside_it() -> None:
    server = Pretender()
    await checked_application(server.application())
    (asked,) = server.ids
    assert set(asked[:4]) == {17, 18, 19, 20}
    assert len(asked) == 8
    assert min(asked[4:]) > 20


async def test_the_stub_passes() -> None:
    done = await checked_application(stub.application(model="m", max_model_len=1000, key="key"), label_ids=[5, 7])
    assert done[checks.LABELS].passed
    assert {name for name, check in done.items() if check.passed is False} == {checks.CACHING}


@pytest.mark.parametrize("kind", ["none", "refused", "texts", "wrong"])
async def test_a_server_without_exact_log_probabilities_of_labels_is_told(kind: str) -> None:
    done = await checked_application(Pretender(logprobs=kind).application())
    assert done[checks.COMPLETION].passed
    assert done[checks.LABELS].passed is False
    assert "labels cannot be scored" in done[checks.LABELS].remedy


async def test_what_is_not_vllm_is_told_and_what_could_not_be_checked() -> None:
    server = Pretender(version=None, context=None, tokenizes=False, counters=False)
    done = await checked_application(server.application())
    assert {name for name, check in done.items() if check.passed is False} == {
        checks.VERSION,
        checks.LABELS,
        checks.CACHING,
    }
    assert "POST /tokenize is not answered" in done[checks.LABELS].found
    assert "does not say how long its context is" in done[checks.CONTEXT].found
    assert done[checks.CLOCK].passed is None


@pytest.mark.parametrize("line", ["vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits_total NaN"])
async def test_counters_that_are_no_numbers_are_told(line: str) -> None:
    done = await checked_application(Pretender(broken_counter=line).application())
    assert {name for name, check in done.items() if not check.passed} == {checks.CACHING}
    assert "a counter that is no number" in done[checks.CACHING].found


@pytest.mark.parametrize("context", ["1000", True, 0, 1.5])
async def test_a_context_that_is_no_number_of_tokens_is_one_that_is_not_told(context: Any) -> None:
    done = await checked_application(Pretender(context=context).application())
    assert "does not say how long its context is" in done[checks.CONTEXT].found
    assert "how long a prompt may be is not known" in done[checks.CLOCK].found
    done = await checked_application(Pretender(context=context).application(), context=500)
    assert "499 tokens" in done[checks.CLOCK].found


async def test_a_server_that_lists_no_model_is_told() -> None:
    done = await checked_application(Pretender(models=()).application())
    assert done[checks.MODEL].found == "the server lists no model"


async def test_every_label_is_asked_however_many_there_are() -> None:
    done = await checked_application(Pretender().application(), label_ids=range(100, 130))
    assert "34 tokens asked by id" in done[checks.LABELS].found


@pytest.mark.parametrize(
    ("version", "follows"),
    [
        ("0.32.0", "tested"),
        ("v0.29.0+cu129", "tested"),
        ("0.33.0", "newer than 0.32.0, the newest tested one (0.33.0 was read, not run): the checks below show"),
        ("0.33.1", "newer than 0.32.0, the newest tested one: the checks below show whether it works"),
        ("1.0", "newer than 0.32.0, the newest tested one: the checks below show whether it works"),
        ("0.27.0", "untested (tested: 0.27.1, "),
        ("0.1.dev1+g1a2b", "untested (tested: 0.27.1, "),
        ("0.25.1", "older than 0.26"),
    ],
)
async def test_what_follows_from_a_version_is_reported(version: str, follows: str) -> None:
    done = await checked_application(Pretender(version=version).application())
    assert done[checks.VERSION].found.startswith(f"vLLM {version}, {follows}")


async def test_a_cache_that_does_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LAG_S", 0.0)
    done = await checked_application(Pretender(caches=False).application())
    assert done[checks.CACHING].passed is False
    assert "--enable-prefix-caching" in done[checks.CACHING].remedy
    assert done[checks.CLOCK].passed


async def test_of_several_replicas_one_gets_every_prompt() -> None:
    server = Pretender()
    assert (await checked_application(server.application(), replicas=3))[checks.CACHING].passed
    assert server.replicas == {"0"}


@pytest.mark.parametrize("context", [16, 40, 60])
async def test_no_prompt_is_longer_than_a_short_context(context: int) -> None:
    server = Pretender(context=context)
    done = await checked_application(server.application())
    assert max(len(json.loads(prompt)) for prompt in server.seen) == context - 1
    assert done[checks.CACHING].passed is (None if context < 34 else True)


async def test_a_context_that_is_too_short_is_told_and_no_prompt_of_that_length_is_sent() -> None:
    done = await checked_application(Pretender().application(), context=1001)
    assert done[checks.CONTEXT].passed is False
    assert "model.max_model_len=1001" in done[checks.CONTEXT].remedy
    assert done[checks.CLOCK].passed is None
