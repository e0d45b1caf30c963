"""engine=openai: a run by a completions API, and what such an API must have."""

import asyncio
import json
import math
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc import tasks
from icm_hpc.capacity.plan import plan
from icm_hpc.config import loading
from icm_hpc.config.fingerprint import differences, result_settings
from icm_hpc.driver.run import run as drive
from icm_hpc.engines import stub
from icm_hpc.errors import ConfigError, ScoringError
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.progress import Progress
from icm_hpc.scoring import client, prompts
from icm_hpc.scoring.client import client_of
from icm_hpc.scoring.session import open_session
from icm_hpc.scoring.tokenizer import estimate
from tests.conftest import prepare_run
from tests.external import KEY, holding, secrets_file, submit

API = ("engine=openai", "task.limit=16", "search.steps=30", "search.schedule=constant")
QUOTA = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": None}}


def quiet(_: Progress) -> None:
    """Watch nothing."""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a key, and try again at once."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(client, "RETRY_WAITS_S", (0.0, 0.0))


class Api:
    """A completions API; `spoil` may turn the n-th answer into another."""

    def __init__(self, spoil: Callable[[int, dict[str, Any]], Any] = lambda _, body: body) -> None:
        self.asked: list[dict[str, Any]] = []
        self._spoil = spoil

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answer as OpenAI does, by the stub's scores."""
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"code": "invalid_api_key"}}, status=401)
        body = await request.json()
        self.asked.append(body)
        choices = []
        for i, prompt in enumerate(body["prompt"]):
            ids = [stub.tokenize(word)[0] for word in stub.WORDS]
            values = stub.label_logprobs(stub.as_tokens(prompt), ids)
            top = dict(zip(stub.WORDS, values, strict=True))
            choices.append({"index": i, "text": "True", "logprobs": {"tokens": ["True"], "top_logprobs": [top]}})
        good = {"model": "m-0613", "choices": choices, "usage": {"prompt_tokens": 7 * len(choices)}}
        answer = self._spoil(len(self.asked), good)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Yield the base URL; only /completions is there."""
        app = web.Application()
        app.add_routes([web.post("/v1/completions", self.completions)])
        async with TestServer(app) as server:
            yield str(server.make_url("/v1"))


async def run(folder: Path, url: str, *arguments: str) -> Any:
    """Run the driver to its end; return the summary and the run's folder."""
    settings, run_dir = prepare_run(folder, *API, f"server.url={url}", *arguments)
    summary = await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    return summary, run_dir


async def test_a_run_asks_for_the_top_tokens_of_texts_and_for_nothing_else(tmp_path: Path) -> None:
    api = Api()
    async with api.served() as url:
        summary, run_dir = await run(tmp_path, url, "model.served_name=m", "model.top_logprobs=3")
    assert summary["examples"] == len(run_dir.labels.read_text().splitlines()) == 16
    assert summary["since_start"]["prompt_tokens"] == 7 * summary["since_start"]["prompts"]
    for body in api.asked:
        assert {**body, "prompt": None} == {
            "model": "m",
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 3,
            "prompt": None,
        }
        assert all(isinstance(prompt, str) for prompt in body["prompt"])
    assert loading.load_file(run_dir.config).search.scoring == "top20"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _, body: {**body, "choices": [{**one, "logprobs": None} for one in body["choices"]]},
        lambda _, body: {**body, "choices": [{"index": one["index"], "text": "x"} for one in body["choices"]]},
        lambda *_: web.json_response({"error": {"message": "This is a chat model"}}, status=404),
        lambda *_: web.json_response({"error": {"message": "logprobs is not supported"}}, status=400),
    ],
    ids=["null", "missing", "chat-only", "no-logprobs"],
)
async def test_an_api_without_log_probabilities_is_refused_before_the_search_with_what_would_work(
    tmp_path: Path, spoil: Callable[[int, dict[str, Any]], Any]
) -> None:
    async with Api(spoil).served() as url:
        with pytest.raises(ScoringError, match="gives no log-probabilities of completions by davinci-002") as refused:
            await run(tmp_path, url)
    assert "a vLLM server" in str(refused.value)
    assert not list((tmp_path / "test").glob("shard-*"))


async def test_an_account_that_is_used_up_stops_the_run_with_its_state_saved_and_more_credit_goes_on(
    tmp_path: Path,
) -> None:
    refusals: list[int] = []

    def spoil(n: int, body: dict[str, Any]) -> Any:
        if n < 12:
            return body
        refusals.append(n)
        return web.json_response(QUOTA, status=429, headers={"Retry-After": "0"})

    async with Api(spoil).served() as url:
        with pytest.raises(ScoringError, match="the account is used up: add to it, then resume the run"):
            await run(tmp_path, url)
    assert len(refusals) <= 4, "not asked again, but for what was in flight"
    saved = checkpoint.load_newest(tmp_path / "test" / "shard-000")
    assert saved is not None
    assert saved.state.step < 30
    api, whole = Api(), Api()
    async with api.served() as url:
        _, run_dir = await run(tmp_path, url)
    async with whole.served() as url:
        _, undisturbed = await run(tmp_path / "whole", url)
    assert run_dir.labels.read_bytes() == undisturbed.labels.read_bytes()


async def test_requests_that_come_too_fast_are_asked_again(tmp_path: Path) -> None:
    slow = {"error": {"type": "requests", "code": "rate_limit_exceeded"}}

    def spoil(n: int, body: dict[str, Any]) -> Any:
        return web.json_response(slow, status=429, headers={"Retry-After": "0"}) if n % 3 == 2 else body

    async with Api(spoil).served() as url:
        summary, _ = await run(tmp_path, url)
    assert summary["since_start"]["failures"]["http_429"] == summary["since_start"]["retries"] > 0


async def test_every_request_waits_for_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    async def wait(_: object, tokens: int) -> None:
        waits.append(tokens)

    monkeypatch.setattr("icm_hpc.scoring.rate_limit.RateLimit.wait", wait)
    api = Api()
    async with api.served() as url:
        await run(tmp_path, url, "server.requests_per_min=60", "server.tokens_per_min=1000")
    assert len(waits) == len(api.asked)
    words = [sum(len(prompt.split()) for prompt in body["prompt"]) for body in api.asked]
    assert all(tokens >= least for tokens, least in zip(waits, words, strict=True))


@pytest.mark.parametrize(
    "text", ["Столица Франции — Париж", "法国的首都是巴黎", "😀🎉", 'a "quoted" \\ line\n', "plain words"]
)
async def test_the_rate_counts_the_text_and_not_the_escapes_of_its_json(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    waits: list[int] = []

    async def wait(_: object, tokens: int) -> None:
        waits.append(tokens)

    monkeypatch.setattr("icm_hpc.scoring.rate_limit.RateLimit.wait", wait)
    async with Api().served() as url, open_session(KEY, 5) as session:
        config = loading.load([*API, "server.tokens_per_min=1000"])
        api = client_of(session, config, url=url, model="m")
        await api.top_logprobs(json.dumps(text, ensure_ascii=escaped).encode() for escaped in (True, False))
    assert waits == [2 * estimate(text)]
    assert len(text.split()) <= estimate(text) <= len(text.encode())


async def test_a_prompt_that_by_an_estimate_alone_is_too_long_is_a_warning_and_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "claims.jsonl"
    rows = [{"question": "法国的首都是巴黎,人口约为二百一十万", "choice": f"{i}"} for i in range(8)]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    task = ("task=claims", f"task.data={data}", "task.limit=8", "model.max_model_len=200", "search.steps=3")
    async with Api().served() as url:
        summary, _ = await run(tmp_path, url, *task)
    assert summary["examples"] == 8
    assert "the longest prompt may be" in caplog.text


async def test_a_label_word_that_is_not_among_the_top_tokens_gets_the_published_floor() -> None:
    def spoil(_: int, body: dict[str, Any]) -> Any:
        return {
            **body,
            "choices": [{"index": 0, "logprobs": {"top_logprobs": [{" Positive": math.log(0.25), "x": -2}]}}],
        }

    config = loading.load(list(API))
    task = tasks.load(config.task, seed=0)
    async with Api(spoil).served() as url, open_session(KEY, 5) as session:
        api = client_of(session, config, url=url, model="m")
        tokens = await prompts.of_tokens(api, task)
        (row,) = await prompts.of_text(task, tokens.demonstration_tokens).score(api, [b'"Review:"'])
    np.testing.assert_allclose(row, [math.log(1e-5), math.log(1e-5 + 0.25)])


def test_bare_words_choose_the_preset_and_what_an_api_allows() -> None:
    config = loading.load(["engine=openai"])
    assert (config.model.name, config.model.engine, config.search.scoring) == ("openai", "openai", "top20")
    assert config.external_url == "https://api.openai.com/v1"
    assert loading.load(["model=stub", "replicas=2"]).server.replicas == 2
    three, five = (result_settings(loading.load(["engine=openai", *more])) for more in (["model.top_logprobs=3"], []))
    assert differences(three, five) == "model.top_logprobs: 5 there, 3 here"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["engine=openai", "search.scoring=exact"], "returns top-k log-probabilities only"),
        (["engine=openai", "replicas=2"], "has no replicas"),
        (["engine=openai", "model.path=x"], "has its own weights"),
        (["engine=openai", "model=smol"], "has its own weights: take model=openai"),
        (["engine=openai", "model.top_logprobs=0"], "1 to 20"),
        (["model=stub", "server.requests_per_min=5"], "server.requests_per_min: only for engine=openai"),
        (["model=tiny", "server.tokens_per_min=5", "model.top_logprobs=5"], "model.top_logprobs: only for"),
        (["engine=openai", "server.tokens_per_min=0"], "over 0"),
    ],
)
def test_what_an_api_cannot_do_is_refused_with_the_reason(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        loading.load(arguments)


def test_without_a_key_nothing_is_begun(tmp_path: Path) -> None:
    file = secrets_file(tmp_path, "VLLM_API_KEY=k")
    refused = submit(*API, f"run.root={tmp_path}/runs", OPENAI_API_KEY="", ICM_SECRETS=str(file))
    assert refused.returncode == 1
    assert (
        "engine=openai needs a key, and there is no OPENAI_API_KEY: write it as a line OPENAI_API_KEY=..."
        in refused.stderr
    )
    assert list(tmp_path.iterdir()) == [file]


def test_the_plan_of_an_api_measures_prompts_by_an_estimate() -> None:
    config = loading.load([*API, "model.max_model_len=64"])
    found = plan(config, tasks.load(config.task, seed=0))
    assert list(found.lines) == ["data", "server", "disk"]
    assert "estimated" in found.lines["data"]
    assert "tokens (estimated), and model.max_model_len=64" in found.misfits[0]


async def test_a_whole_command_by_openai_base_url_leaves_no_key(tmp_path: Path) -> None:
    arguments = (*API, f"run.root={tmp_path}", "run=mine")
    async with Api().served() as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "icm_hpc.submit", *arguments),
            env={**os.environ, "OPENAI_BASE_URL": url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    assert f"server   {url} runs already, none is started (OPENAI_BASE_URL of the environment)" in printed.decode()
    assert KEY not in printed.decode()
    assert holding(tmp_path, KEY) == []
