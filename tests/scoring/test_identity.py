"""Whose scores a run has: the served model is recorded at every start, and another one is refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc.config import loading
from icm_hpc.driver import run
from icm_hpc.engines import stub
from icm_hpc.errors import ScoringError
from icm_hpc.jobs import local
from icm_hpc.rundir.attempts import attempts as attempts_of
from icm_hpc.rundir.folder import RunDir, ServedModel
from icm_hpc.rundir.progress import Progress
from icm_hpc.scoring import connect, identity
from icm_hpc.scoring.client import Client
from tests.conftest import Served, prepare_run
from tests.external import KEY

OURS = ("model=stub", "task.limit=8", "search.schedule=constant")
LOGPROBS = stub.label_logprobs


def quiet(_: Progress) -> None:
    """Watch nothing."""


async def by_our_own(folder: Path, *arguments: str, attempt: str = "a1") -> tuple[dict[str, Any], RunDir]:
    """Run with a server of our own."""
    settings, run_dir = prepare_run(folder, *OURS, *arguments)
    with local.serving(run_dir, attempt):
        return await run.run(settings, run_dir, attempt=attempt, stop=asyncio.Event(), watch=quiet), run_dir


async def by_theirs(folder: Path, model: str, *arguments: str) -> dict[str, Any]:
    """Run with a server that already runs."""
    async with TestServer(stub.application(model=model, max_model_len=10**6, key=KEY)) as server:
        settings, run_dir = prepare_run(folder, *OURS, f"server.url={server.make_url('')}", *arguments)
        return await run.run(settings, run_dir, attempt="a2", stop=asyncio.Event(), watch=quiet)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)


async def test_the_served_model_is_in_its_record_the_summary_and_the_provenance_of_every_start(tmp_path: Path) -> None:
    await by_our_own(tmp_path, "search.steps=5")
    summary, run_dir = await by_our_own(tmp_path, "search.steps=10", attempt="a2")
    served = {"name": "stub", "root": None}
    assert summary["served_model"] == json.loads(run_dir.summary.read_text())["served_model"] == served
    attempts = attempts_of(run_dir)
    assert [attempt["served_model"] for attempt in attempts] == [served, served]
    record = run_dir.read_served_model()
    assert record is not None
    assert (record.name, len(record.logprobs), len(record.logprobs[0])) == ("stub", 3, 4)


async def test_a_run_may_go_on_with_another_server_of_the_same_name_and_answers(tmp_path: Path) -> None:
    await by_our_own(tmp_path, "search.steps=5")
    assert (await by_theirs(tmp_path, "stub", "search.steps=10"))["examples"] == 8


@pytest.mark.parametrize("named", ["", "model.served_name=theirs"])
async def test_a_run_of_our_own_server_does_not_go_on_with_another_model(tmp_path: Path, named: str) -> None:
    first = [named.replace("theirs", "ours")] if named else []
    _, run_dir = await by_our_own(tmp_path, "search.steps=5", *first)
    labels = run_dir.labels.read_bytes()
    began = "ours" if named else "stub"
    with pytest.raises(
        ScoringError,
        match=rf"now serves 'theirs', and the scores of .* are by '{began}'.*--served-model-name {began}\)",
    ) as refused:
        await by_theirs(tmp_path, "theirs", "search.steps=10", *([named] if named else []))
    assert "run.name=NEW" in str(refused.value)
    assert run_dir.labels.read_bytes() == labels


async def test_an_external_run_does_not_go_on_with_another_model_of_our_own(tmp_path: Path) -> None:
    await by_theirs(tmp_path, "theirs", "search.steps=5")
    with pytest.raises(ScoringError, match=r"now serves 'stub', and the scores of .* are by 'theirs'"):
        await by_our_own(tmp_path, "search.steps=10")


async def test_another_model_under_the_same_name_is_refused_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await by_theirs(tmp_path, "llama", "search.steps=5")
    monkeypatch.setattr(stub, "label_logprobs", lambda prompt, ids: LOGPROBS(prompt + b"9", ids))
    with pytest.raises(
        ScoringError, match=r"another model under the name 'llama'.*differ by up to [\d.]+ nats.*run\.name=NEW"
    ):
        await by_theirs(tmp_path, "llama", "search.steps=10")
    run_dir = RunDir(tmp_path / "test")
    assert attempts_of(run_dir)[-1]["counts"]["traffic"]["requests"] == 0


@pytest.mark.parametrize(("shift", "same"), [(0.4, True), (-0.4, True), (0.6, False)])
async def test_noise_of_the_hardware_is_no_other_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float, *, same: bool
) -> None:
    await by_theirs(tmp_path, "llama", "search.steps=5")
    monkeypatch.setattr(stub, "label_logprobs", lambda prompt, ids: [v - shift for v in LOGPROBS(prompt, ids)])
    if same:
        await by_theirs(tmp_path, "llama", "search.steps=6")
    else:
        with pytest.raises(ScoringError, match="another model"):
            await by_theirs(tmp_path, "llama", "search.steps=6")


async def test_another_tokenizer_under_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await by_theirs(tmp_path, "llama", "search.steps=5")
    tokenize = stub.tokenize
    monkeypatch.setattr(stub, "tokenize", lambda text: [token + 1 for token in tokenize(text)])
    with pytest.raises(ScoringError, match="its tokenizer is another"):
        await by_theirs(tmp_path, "llama", "search.steps=10")


async def test_a_record_of_an_earlier_version_is_compared_by_its_name_and_completed(tmp_path: Path) -> None:
    await by_theirs(tmp_path, "theirs", "search.steps=5")
    run_dir = RunDir(tmp_path / "test")
    run_dir.served_model.write_text('{"name": "theirs"}')
    assert run_dir.read_served_model() == ServedModel("theirs")
    await by_theirs(tmp_path, "theirs", "search.steps=6")
    record = run_dir.read_served_model()
    assert record is not None
    assert record.logprobs
    run_dir.served_model.write_text('{"name": "another"}')
    with pytest.raises(ScoringError, match=r"now serves 'theirs', and the scores of .* are by 'another'"):
        await by_theirs(tmp_path, "theirs", "search.steps=7")
    run_dir.served_model.unlink()
    await by_theirs(tmp_path, "theirs", "search.steps=8")
    assert run_dir.read_served_model() == record


async def test_the_record_is_there_before_anything_is_scored_and_its_prompts_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    async def label(_config: Any, run_dir: RunDir, client: Client, *_: Any, **_more: Any) -> dict[str, Any]:
        seen.extend((run_dir.read_served_model(), client.traffic.requests))
        return {}

    monkeypatch.setattr(run, "label", label)
    await by_theirs(tmp_path, "theirs")
    assert seen[0].name == "theirs"
    assert seen[1] == 0


async def test_a_server_that_comes_back_within_a_start_with_another_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bytes] = []

    def answer(prompt: bytes, ids: Any) -> list[float]:
        requests.append(prompt)
        return LOGPROBS(prompt + (b"9" if len(requests) > 150 else b""), ids)

    @web.middleware
    async def lose_once(request: web.Request, handler: Any) -> Any:
        if len(requests) > 150 and not lost:
            lost.append(True)
        if lost and len(lost) < 6 and request.path.endswith("completions"):
            lost.append(True)
            return web.Response(status=503)
        return await handler(request)

    lost: list[bool] = []
    monkeypatch.setattr(stub, "label_logprobs", answer)
    monkeypatch.setattr("icm_hpc.scoring.client.RETRY_WAITS_S", (0.0,))
    app = stub.application(model="theirs", max_model_len=10**6, key=KEY)
    app.middlewares.append(lose_once)
    async with TestServer(app) as server:
        settings, run_dir = prepare_run(
            tmp_path, *OURS, f"server.url={server.make_url('')}", "search.steps=2000", "search.memo_mb=0"
        )
        with pytest.raises(ScoringError, match="another model under the name 'theirs'"):
            await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)


async def test_an_api_of_the_top_k_tokens_is_known_by_its_name() -> None:
    class Api:
        model = "davinci-002"

    loaded = loading.load(["engine=openai", "model.served_name=davinci-002"])
    assert await identity.of_server(Api(), loaded) == ServedModel("davinci-002")  # type: ignore[arg-type]


@pytest.mark.vllm
async def test_a_real_vllm_says_what_it_loaded_and_answers_the_same_again(tiny_server: Served, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        for _ in range(2):
            served = await identity.of_server(client, tiny_server.settings)
            identity.require_same(run_dir, served)
        assert client.traffic.requests == 0
    assert served.name == "tiny"
    assert str(served.root).endswith("/tiny")
    assert [len(row) for row in served.logprobs] == [4, 4, 4]
