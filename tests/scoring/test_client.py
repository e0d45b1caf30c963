"""The client against real HTTP: requests in order and few, retries, and answers that are no scores."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc.engines import ENGINES, stub
from icm_hpc.errors import BadAnswer, IcmError, NoAnswer, ScoringError, TimedOut
from icm_hpc.scoring import client as client_module
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.session import open_session

PROMPTS = [json.dumps(list(range(i, i + 20)), separators=(",", ":")).encode() for i in range(40)]
Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(client_module, "RETRY_WAITS_S", (0.0, 0.0))


@asynccontextmanager
async def served(application: web.Application, *, timeout_s: float = 5, **settings: Any) -> AsyncIterator[Client]:
    """Yield a client of an application that runs in this process."""
    async with TestServer(application) as server, open_session("key", timeout_s=timeout_s) as session:
        given = {"request_mb": 4.0, "requests_in_flight": 4, **settings}
        yield Client(session, ENGINES["stub"], url=str(server.make_url("/")).rstrip("/"), model="m", **given)


def stub_application() -> web.Application:
    """Return the stub."""
    return stub.application(model="m", max_model_len=1000, key="key")


def spoilt(spoil: Answer, healthy_after: int = 10**9) -> web.Application:
    """Return a server whose first answers to scorings are spoilt."""
    count = 0

    async def completions(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        body, prompts = stub.read_body(await request.read())
        listed = [{f"token_id:{i}": -1.0 for i in body["logprob_token_ids"]} for _ in prompts]
        choices = [{"index": i, "logprobs": {"top_logprobs": [values]}} for i, values in enumerate(listed)]
        good = {"model": "m", "choices": choices, "usage": {"prompt_tokens": 1}}
        answer = good if count > healthy_after else spoil(good)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    app = web.Application()
    app.add_routes([web.post("/v1/completions", completions)])
    return app


def without(body: dict[str, Any], *path: Any) -> dict[str, Any]:
    """Return an answer that lacks something."""
    at: Any = body
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return body


def with_value(body: dict[str, Any], value: Any) -> dict[str, Any]:
    """Return an answer in which the last log-probability is another."""
    body["choices"][-1]["logprobs"]["top_logprobs"][0]["token_id:7"] = value
    return body


async def test_many_requests_give_what_one_gives_in_order() -> None:
    async with served(stub_application()) as one:
        whole = await one.label_logprobs(PROMPTS, [5, 7])
        assert one.traffic.requests == 1
    async with served(stub_application(), request_mb=0.0002) as many:
        parts = await many.label_logprobs(iter(PROMPTS), [5, 7])
        assert many.traffic.requests == 10
        assert (many.traffic.prompts, many.traffic.prompt_tokens) == (40, 800)
    np.testing.assert_array_equal(whole, parts)
    wanted = [stub.label_logprobs(prompt[1:-1], [5, 7]) for prompt in PROMPTS]
    np.testing.assert_array_equal(whole, wanted)


async def test_no_prompts_are_no_request() -> None:
    async with served(stub_application()) as client:
        assert (await client.label_logprobs([], [5, 7])).shape == (0, 2)
        assert client.traffic.requests == 0


async def test_a_client_without_the_key_learns_nothing() -> None:
    async with served(stub.application(model="m", max_model_len=10, key="another")) as client:
        assert "refuses this run's key" in str(await client.trouble())
        with pytest.raises(ScoringError, match="401"):
            await client.label_logprobs(PROMPTS[:1], [5, 7])


@pytest.mark.parametrize(
    ("counter", "spoil"),
    [
        ("choices", lambda body: {**body, "choices": body["choices"][:-1]}),
        ("choices", lambda body: {**body, "choices": body["choices"] + body["choices"][-1:]}),
        ("choices", lambda body: without(body, "choices")),
        ("choices", lambda body: {**body, "choices": [None]}),
        ("choices", lambda body: {**body, "choices": [{**choice, "index": None} for choice in body["choices"]]}),
        ("not_json", lambda _: web.json_response(None)),
        ("not_json", lambda _: web.json_response([])),
        ("not_json", lambda _: web.Response(text="<html>a proxy's page</html>", content_type="text/html")),
        ("usage", lambda body: without(body, "usage")),
        ("logprobs", lambda body: without(body, "choices", 0, "logprobs")),
        ("logprobs", lambda body: without(body, "choices", 0, "logprobs", "top_logprobs", 0, "token_id:7")),
        ("logprobs", lambda body: with_value(body, -9999.0)),
        ("logprobs", lambda body: with_value(body, float("nan"))),
        ("logprobs", lambda body: with_value(body, None)),
        ("logprobs", lambda body: with_value(body, "-1.0")),
        ("logprobs", lambda body: with_value(body, 0.5)),
        ("not_json", lambda _: web.Response(body=b'{"half', content_type="application/json")),
        ("http_5xx", lambda _: web.Response(status=500, text="engine dead")),
        ("http_429", lambda _: web.Response(status=429, text="slow down", headers={"Retry-After": "0"})),
        ("connection", lambda _: Broken()),
    ],
)
async def test_an_answer_that_is_no_score_is_asked_for_again_and_then_an_error(counter: str, spoil: Answer) -> None:
    async with served(spoilt(spoil, healthy_after=2)) as client:
        assert np.isfinite(await client.label_logprobs(PROMPTS[:3], [5, 7])).all()
        assert client.traffic.retries == client.traffic.failures[counter] == sum(client.traffic.failures.values()) == 2
    async with served(spoilt(spoil)) as client:
        with pytest.raises((BadAnswer, NoAnswer)):
            await client.label_logprobs(PROMPTS[:3], [5, 7])
        assert client.traffic.failures[counter] == 3
        assert client.traffic.requests == 0


@pytest.mark.parametrize(
    ("counter", "spoil"),
    [
        ("other_model", lambda body: {**body, "model": "another"}),
        ("http_4xx", lambda _: web.Response(status=400, text="prompt too long")),
        ("timeout", lambda _: Dripping()),
    ],
)
async def test_what_no_retry_repairs_is_not_tried_again(counter: str, spoil: Answer) -> None:
    async with served(spoilt(spoil), timeout_s=0.5) as client:
        with pytest.raises((ScoringError, TimedOut)) as raised:
            await client.label_logprobs(PROMPTS[:3], [5, 7])
        assert not isinstance(raised.value, BadAnswer)
        assert client.traffic.retries == 0
        assert client.traffic.failures[counter] == 1


class Broken(web.StreamResponse):
    """An answer whose connection is reset in mid-body."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send the half, and hang up."""
        self.content_length = 1000
        writer = await super().prepare(request)
        await self.write(b'{"model": "m", "choi')
        assert request.transport is not None
        request.transport.abort()
        return writer


class Dripping(web.StreamResponse):
    """An answer that comes a byte at a time."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send for as long as anyone listens."""
        writer = await super().prepare(request)
        for _ in range(100):
            await self.write(b" ")
            await asyncio.sleep(0.05)
        return writer


async def test_a_request_given_up_by_a_stopping_server_is_the_servers_failure_and_no_bad_score() -> None:
    def given_up(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "choices": [{**choice, "finish_reason": "abort"} for choice in body["choices"]]}

    async with served(spoilt(given_up)) as client:
        with pytest.raises(NoAnswer, match="gave up a request"):
            await client.label_logprobs(PROMPTS[:3], [5, 7])


async def test_a_failure_among_many_requests_stops_the_rest() -> None:
    async with served(spoilt(lambda _: web.Response(status=400)), request_mb=0.0002, requests_in_flight=2) as client:
        with pytest.raises(IcmError):
            await client.label_logprobs(PROMPTS, [5, 7])
        assert client.traffic.requests == 0
        with pytest.raises(IcmError):
            await client.label_logprobs(PROMPTS, [5, 7])  # no slot was lost
