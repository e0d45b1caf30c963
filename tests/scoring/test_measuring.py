"""What is measured of a server: noise, speed, and how much prompts share, against real HTTP."""

import asyncio
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc.engines import ENGINES
from icm_hpc.rundir.measured import Measured, Noise
from icm_hpc.scoring import checks, measuring
from icm_hpc.scoring.checks import Check
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.session import open_session

BLOCK = 16


@dataclass
class Caching:
    """A server with a prefix cache by whole blocks, whose answers depend on more than the prompt, as far as it is told to."""

    again: float = 0.0  # nats by which every answer differs
    cached: float = 0.0  # if a block comes from the cache
    batched: float = 0.0  # with other prompts in the request
    holds: int = 1_000_000  # blocks
    tokenizes: bool = True
    asked: int = 0  # prompts
    blocks: dict[tuple[str, str], None] = field(default_factory=dict)
    tokens: int = 0
    hits: int = 0

    def application(self) -> web.Application:
        """Return it as an application."""
        app = web.Application(client_max_size=2**28)
        app.add_routes([web.get("/v1/models", self._models), web.post("/v1/completions", self._completions)])
        app.add_routes([web.get("/version", self._version), web.get("/metrics", self._metrics)])
        if self.tokenizes:
            app.add_routes([web.post("/tokenize", self._tokens)])
        return app

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "max_model_len": 4096}]})

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    async def _tokens(self, _request: web.Request) -> web.Response:
        return web.json_response({"tokens": list(range(3, 90))})

    async def _metrics(self, _request: web.Request) -> web.Response:
        lines = (f'vllm:cache_config_info{{block_size="{BLOCK}",num_gpu_blocks="100"}} 1.0',)
        counts = (f"vllm:prefix_cache_queries_total {self.tokens}", f"vllm:prefix_cache_hits_total {self.hits}")
        return web.Response(text="".join(f"{line}\n" for line in (*lines, *counts)))

    def _hit(self, salt: str, prompt: Any) -> int:
        """Return the tokens of a prompt that are cached, and cache it."""
        whole = [json.dumps(prompt[:end]) for end in range(BLOCK, len(prompt) + 1, BLOCK)]
        known = list(itertools.takewhile(lambda block: (salt, block) in self.blocks, whole))
        self.blocks.update(dict.fromkeys((salt, block) for block in whole))
        while len(self.blocks) > self.holds:
            del self.blocks[next(iter(self.blocks))]
        hit = min(len(known) * BLOCK, (len(prompt) - 1) // BLOCK * BLOCK)
        self.tokens, self.hits = self.tokens + len(prompt), self.hits + hit
        return hit

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(0.001)
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            self.asked += 1
            differs = self.again * self.asked + self.cached * bool(self._hit(body.get("cache_salt", ""), prompt))
            differs += self.batched * (len(body["prompt"]) > 1)
            start = -1 - int(hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:2], 16) / 256
            ids = body.get("logprob_token_ids") or range(1, 21)
            values = {f"token_id:{token}": start - 0.1 * token - differs for token in ids}
            choices.append({"index": index, "logprobs": {"top_logprobs": [values]}})
        usage = {"prompt_tokens": sum(map(len, body["prompt"]))}
        return web.json_response({"model": "m", "choices": choices, "usage": usage})


async def measured(
    server: Caching, monkeypatch: pytest.MonkeyPatch, **wanted: Any
) -> tuple[dict[str, Check], Measured]:
    """Return the checks of a server by their names, and what they have measured."""
    monkeypatch.setattr(measuring, "PROBE_S", 0.05)
    monkeypatch.setattr(measuring, "LAG_S", 0.0)
    async with TestServer(server.application()) as listening, open_session("key", timeout_s=30) as session:
        url = str(listening.make_url("/")).rstrip("/")
        client = Client(session, ENGINES["vllm"], url=url, model="m", request_mb=4, requests_in_flight=1)
        done = await checks.run(client, lambda _: None, **wanted)
        assert client.traffic.requests == 0, "what is measured counts in no traffic"
    return {check.name: check for check in done}, checks.measured(done)


async def test_a_server_that_answers_the_same_has_no_noise_and_shares_what_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, found = await measured(Caching(), monkeypatch, context=1000, label_ids=[7, 8])
    assert all(check.passed for check in done.values())
    assert found.noise == Noise(0.0, 0.0, 0.0)
    assert found.sharing is not None
    assert found.sharing.computed_tokens == found.sharing.least_tokens < found.sharing.prompt_tokens / 2
    assert found.speed is not None
    assert found.speed.tokens == found.speed.prompts * measuring.SPEED_TOKENS


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Caching(cached=0.01), (0.0, 0.01, 0.0)),
        (Caching(batched=0.02), (0.0, 0.0, 0.02)),
    ],
)
async def test_each_kind_of_noise_is_told_apart(
    server: Caching, expected: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found = await measured(server, monkeypatch, clock=False)
    assert found.noise is not None
    assert (found.noise.repeated, found.noise.cached, found.noise.batched) == pytest.approx(expected)
    assert found.noise.largest == pytest.approx(max(expected))


async def test_a_server_that_never_answers_the_same_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = await measured(Caching(again=1e-6), monkeypatch, clock=False)
    assert found.noise is not None
    assert found.noise.repeated > 0


async def test_a_cache_that_is_too_small_for_what_prompts_share_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done, found = await measured(Caching(holds=8), monkeypatch, clock=False)
    assert done[checks.SHARING].passed is False
    assert "give the cache more memory" in done[checks.SHARING].remedy
    assert found.sharing is not None
    assert found.sharing.computed_tokens > found.sharing.least_tokens


async def test_a_server_that_cannot_score_labels_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    done, found = await measured(Caching(tokenizes=False), monkeypatch)
    assert done[checks.NOISE].found == "not checked: label log-probabilities did not pass"
    assert found == Measured()
