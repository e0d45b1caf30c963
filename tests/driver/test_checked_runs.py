"""What a run makes of the checks of its server."""

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestServer

from icm_hpc.driver import checking, run
from icm_hpc.driver.counting import Counts
from icm_hpc.engines import stub
from icm_hpc.errors import BadAnswer, NoAnswer, ScoringError, ServerError
from icm_hpc.scoring import checks
from icm_hpc.scoring.checks import Check
from icm_hpc.scoring.client import Client
from tests import offline
from tests.conftest import prepare_run
from tests.scoring.test_checks import Pretender


def asking(monkeypatch: pytest.MonkeyPatch, *found: Check) -> list[dict[str, Any]]:
    """Let every check of a server find this; return what is asked for."""
    asked: list[dict[str, Any]] = []

    async def run(_client: Client, tell: checks.Tell, **wanted: Any) -> list[Check]:
        asked.append(wanted)
        for check in found:
            tell(check)
        return list(found)

    monkeypatch.setattr(checks, "run", run)
    return asked


VLLM = ("model=tiny", "task.limit=8", "search.steps=2")


async def test_a_run_checks_its_server_once_an_attempt_for_its_longest_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asking(monkeypatch)
    settings, run_dir, client = offline.prepare(tmp_path, *VLLM)
    counts = Counts()
    for _ in range(2):
        await run.label(settings, run_dir, client, lambda _: None, counts)
    (wanted,) = asked
    assert wanted["label_ids"] == (stub.tokenize(" negative")[0], stub.tokenize(" positive")[0])
    assert wanted["context"] > max(map(len, cast(offline.OfflineClient, client).prompts))


async def test_a_server_that_cannot_score_labels_ends_the_run_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asking(monkeypatch, Check(checks.LABELS, "none came", "serve it with vLLM", passed=False))
    settings, run_dir, client = offline.prepare(tmp_path, *VLLM)
    with pytest.raises(ServerError, match="none came; serve it with vLLM"):
        await run.label(settings, run_dir, client, lambda _: None)
    assert "✗ label log-probabilities: none came" in caplog.text
    assert not run_dir.labels.exists()


async def test_a_server_that_is_only_slower_is_warned_of_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asking(
        monkeypatch,
        Check(checks.VERSION, "vLLM 0.32.0", passed=True),
        Check(checks.CACHING, "off", "turn it on", passed=False),
    )
    settings, run_dir, client = offline.prepare(tmp_path, *VLLM)
    await run.label(settings, run_dir, client, lambda _: None)
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels["✓ version: vLLM 0.32.0"] == "INFO"
    assert levels["✗ prefix caching: off; turn it on"] == "WARNING"


async def test_a_server_lost_while_it_is_checked_is_a_server_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = NoAnswer("the connection broke", counter="connection")
    asking(monkeypatch, Check(checks.COMPLETION, str(lost), "see the log", lost, passed=False))
    settings, run_dir, client = offline.prepare(tmp_path, *VLLM)
    counts = Counts()
    with pytest.raises(NoAnswer, match="the connection broke"):
        await run.label(settings, run_dir, client, lambda _: None, counts)
    assert not counts.checked, "the server that comes back is checked instead"


async def test_the_stub_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asking(monkeypatch)
    await offline.label(tmp_path, "task.limit=8", "search.steps=2")
    assert asked == []


async def test_an_external_server_that_ignores_the_ids_ends_the_run_with_the_version_that_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icm_hpc.scoring.client.RETRY_WAITS_S", ())
    async with TestServer(Pretender(logprobs="by_rank").application()) as server:
        settings, run_dir = prepare_run(tmp_path, *VLLM, f"server.url={server.make_url('')}")
        with pytest.raises(ScoringError, match=r"vLLM 0\.26 or newer is required: older ones ignore logprob_token_ids"):
            await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=lambda _: None)
    assert not run_dir.labels.exists()


async def test_on_a_server_that_others_use_spoilt_plain_log_probabilities_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt = BadAnswer("-9999 came back", counter="logprobs")
    asking(monkeypatch, Check(checks.LABELS, str(spoilt), "serve it with vLLM", spoilt, passed=False))
    settings, run_dir, client = offline.prepare(tmp_path, *VLLM, "server.url=http://theirs:8000")
    await run.label(settings, run_dir, client, lambda _: None)
    assert "✗ label log-probabilities: -9999 came back" in caplog.text
    assert run_dir.labels.exists()


FIGURES = {"repeated": 0.0, "cached": 1e-6, "batched": 0.0}


async def test_noise_and_speed_are_measured_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asking(monkeypatch, Check(checks.NOISE, "some", figures=FIGURES, passed=True))
    for _ in range(2):
        settings, run_dir, client = offline.prepare(tmp_path, *VLLM)
        summary = await run.label(settings, run_dir, client, lambda _: None)
        run_dir.labels.unlink()
        (run_dir.shard(0) / "outcome.h5").unlink()
    assert [wanted["measure"] for wanted in asked] == [True, False]
    assert summary["server"]["noise"] == FIGURES
    assert summary["exactness"]["noise"] == 1e-6


@pytest.mark.parametrize("change", ["model.tensor_parallel_size=2", "server.replicas=2", "model.dtype=float16"])
async def test_another_kind_of_server_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    asked = asking(monkeypatch, Check(checks.NOISE, "some", figures=FIGURES, passed=True))
    for words in (VLLM, (*VLLM, change)):
        settings, run_dir, client = offline.prepare(tmp_path, *words)
        await checking.check(settings, client, run_dir, 100, (1, 2))
    assert [wanted["measure"] for wanted in asked] == [True, True]


async def test_what_could_not_be_measured_is_measured_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = NoAnswer("no answer within 5 s", counter="timeout")
    asking(monkeypatch, Check(checks.NOISE, str(slow), "see the log", slow, passed=False))
    settings, run_dir, client = offline.prepare(tmp_path, *VLLM)
    await run.label(settings, run_dir, client, lambda _: None)
    assert not run_dir.measured.exists()


async def test_a_server_whose_labels_others_spoilt_is_measured_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking(monkeypatch, Check(checks.NOISE, "not checked: label log-probabilities did not pass", passed=None))
    settings, run_dir, client = offline.prepare(tmp_path, *VLLM)
    await checking.check(settings, client, run_dir, 100, (1, 2))
    assert not run_dir.measured.exists()
