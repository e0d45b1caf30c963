"""A server that dies, hangs, or answers nonsense while the driver lives; with the stub."""

import asyncio
import dataclasses
import itertools
import json
import os
import signal
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.driver import run
from icm_hpc.errors import BadAnswer, NoAnswer, ScoringError, ServerError
from icm_hpc.jobs import local
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.progress import Progress
from icm_hpc.rundir.trace import read_trace
from icm_hpc.scoring import client, session
from tests import offline
from tests.conftest import prepare_run

STUB = ("model=stub", "task.limit=16", "search.steps=100", "search.schedule=constant", "search.ahead=1")
SLOW = (*STUB, "search.memo_mb=0", "model.vllm_args.delay-ms=20")
HEALTHY_S = 60.0  # until the component has seen that the engine is healthy, on a busy machine
HUNG_S = 1.0  # what a request has that a stopped engine will not answer; other requests have server.request_timeout_s


async def drive(settings: Any, run_dir: RunDir, at_step: int, fault: Any) -> dict[str, Any]:
    """Run to the end; do something to the server once, after `at_step`."""
    done: list[int] = []
    with local.serving(run_dir, "a1") as component:

        def watch(now: Progress) -> None:
            if now.step >= at_step and not done:
                done.append(now.step)
                fault(run_dir, component.pid)

        return await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=watch)


def to_engine(number: int) -> Any:
    """Return what sends a signal to the engine, the component's only child, once the component has seen that it is healthy."""

    def send(run_dir: RunDir, component: int) -> None:
        deadline = time.monotonic() + HEALTHY_S
        while "healthy within" not in run_dir.server_log.read_text():
            assert time.monotonic() < deadline, run_dir.server_log.read_text()
            time.sleep(0.05)
        children = Path(f"/proc/{component}/task/{component}/children").read_text().split()
        assert len(children) == 1
        os.kill(int(children[0]), number)

    return send


def hang(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what stops the engine; what is asked then in the same session has HUNG_S, all else has long enough.

    A busy machine may take seconds for an answer, before the engine is stopped and after it is restarted.
    """
    askers: list[Any] = []  # sessions
    hung: list[Any] = []

    async def exchange(asking: Any, *asked: Any, within_s: float | None, **more: Any) -> Any:
        askers.append(asking)
        return await session.exchange(asking, *asked, within_s=HUNG_S if asking in hung else within_s, **more)

    def stop(run_dir: RunDir, component: int) -> None:
        to_engine(signal.SIGSTOP)(run_dir, component)
        hung.append(askers[-1])

    monkeypatch.setattr(client, "exchange", exchange)
    return stop


def to_component(number: int) -> Any:
    """Return what sends a signal to the component."""
    return lambda _run_dir, component: os.kill(component, number)


async def undisturbed(folder: Path) -> RunDir:
    """Run without a fault and without a server."""
    _, run_dir, _ = await offline.label(folder, *STUB)
    return run_dir


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
async def test_an_engine_that_dies_or_hangs_comes_back_and_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    plain = await undisturbed(tmp_path / "plain")
    settings, run_dir = prepare_run(tmp_path, *SLOW)
    fault = hang(monkeypatch) if number == signal.SIGSTOP else to_engine(number)
    summary = await drive(settings, run_dir, 30, fault)
    assert run_dir.labels.read_bytes() == plain.labels.read_bytes()
    assert (run_dir.shard(0) / "trace.jsonl").read_bytes() == (plain.shard(0) / "trace.jsonl").read_bytes()
    since = summary["since_start"]
    assert since["servers_lost"] == 1
    assert since["failures"]["timeout" if number == signal.SIGSTOP else "connection"] >= 1
    (attempt,) = json.loads(run_dir.provenance.read_text())["attempts"]
    assert (attempt["end"], attempt["counts"]["servers_lost"]) == ("finished", 1)
    assert "restart 1 of 3" in run_dir.server_log.read_text()


async def test_an_engine_that_dies_too_often_fails_the_run_with_its_last_words_and_the_state_saved(
    tmp_path: Path,
) -> None:
    settings, run_dir = prepare_run(tmp_path, *SLOW, "server.max_restarts=0")
    with pytest.raises(ServerError, match=r"stub exited with code -9.*\(killed|stub exited with code -9; it had been"):
        await drive(settings, run_dir, 30, to_engine(signal.SIGKILL))
    saved = checkpoint.load_newest(run_dir.shard(0))
    assert saved is not None
    assert saved.state.step >= 30
    (attempt,) = json.loads(run_dir.provenance.read_text())["attempts"]
    assert attempt["end"].startswith("stopped")


async def test_a_component_that_is_killed_outright_fails_the_run_at_once(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *SLOW)
    with pytest.raises(ServerError, match="killed before it could say why"):
        await drive(settings, run_dir, 30, to_component(signal.SIGKILL))
    assert checkpoint.generations(run_dir.shard(0))


async def test_a_server_that_is_healthy_and_answers_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise NoAnswer("500", counter="http_5xx")

    monkeypatch.setattr(run, "label", broken)
    settings, run_dir = prepare_run(tmp_path, *STUB)
    with pytest.raises(ServerError, match="500"):
        await drive(settings, run_dir, 10**9, None)


async def test_a_server_that_is_lost_again_and_again_after_the_search_is_given_up_unless_more_rows_are_labelled(
    tmp_path: Path,
) -> None:
    rows = iter([1, 1, 1, 2, 2, 2, 2, 2, 2, 2])
    begun: list[Progress] = []

    async def then(_client: Any, _counts: Any, watch: Any, last: Progress, _held: Any) -> None:
        begun.append(last)
        watch(dataclasses.replace(last, applied=last.applied + next(rows), to_apply=last.to_apply + 9))
        raise NoAnswer("500", counter="http_5xx")

    settings, run_dir = prepare_run(tmp_path, *STUB)
    with local.serving(run_dir, "a1"), pytest.raises(ServerError, match="500"):
        await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=lambda _: None, then=then)
    assert len(begun) == 3 + 1 + run.MAX_RECONNECTS_WITHOUT_PROGRESS
    assert {(one.applied, one.to_apply) for one in begun} == {(0, 0)}, "what was done after the search is no part of it"


class Spoilt(offline.OfflineClient):
    """Has no score for some prompts, whenever they are asked."""

    def say(self, prompt: Any, label_ids: Sequence[int]) -> list[float]:
        """Refuse some prompts, by their content."""
        if self.spoils(prompt):
            raise BadAnswer("a value came back as nan", counter="logprobs")
        return super().say(prompt, label_ids)

    def spoils(self, prompt: Any) -> bool:
        """Return whether a prompt is one of the unlucky."""
        return len(self.prompts) > 100 and zlib.crc32(str(prompt).encode()) % 149 == 0


async def test_a_proposal_that_cannot_be_scored_is_abandoned_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", Spoilt)
    summary, run_dir, _ = await offline.label(
        tmp_path, *STUB, "search.method=single", "search.objective=margin", "search.steps=300"
    )
    steps = list(read_trace(run_dir.shard(0)))
    abandoned = [step for step in steps if step["abandoned"]]
    assert 0 < len(abandoned) < 100
    assert summary["since_start"]["proposals_abandoned"] == len(abandoned)
    for before, after in itertools.pairwise(steps):
        if after["abandoned"]:
            assert (after["step"], after["energy"]) == (before["step"] + 1, before["energy"])
            assert (after["counts"], after["flips"]) == (before["counts"], before["flips"])
    assert len(steps) == 301


@pytest.mark.parametrize("seed", range(3))
async def test_a_search_by_blocks_passes_over_what_cannot_be_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", Spoilt)
    summary, run_dir, _ = await offline.label(tmp_path, "model=stub", "task.limit=24", f"search.seed={seed}")
    assert summary["labelled_by_search"] == 24
    steps = list(read_trace(run_dir.shard(0)))
    assert summary["since_start"]["proposals_abandoned"] == sum(step["abandoned"] for step in steps) > 0


async def test_a_server_that_can_score_no_proposal_stops_the_run_with_its_state_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", Spoilt)
    monkeypatch.setattr(Spoilt, "spoils", lambda self, prompt: len(self.prompts) > 200 and len(prompt) > 100)
    with pytest.raises(ScoringError, match="5 proposals in a row could not be scored"):
        await offline.label(tmp_path, *STUB)
    folder = RunDir(tmp_path / "test").shard(0)
    saved = checkpoint.load_newest(folder)
    assert saved is not None
    assert saved.state.step > 5
    assert [step["step"] for step in read_trace(folder)] == list(range(saved.state.step + 1))


async def test_a_server_that_scores_no_plain_prompt_either_stops_the_run_and_no_proposal_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", Spoilt)
    monkeypatch.setattr(Spoilt, "spoils", lambda self, _: len(self.prompts) > 200)
    with pytest.raises(ScoringError, match="no score to a plain prompt"):
        await offline.label(tmp_path, *STUB)
    assert not any(step["abandoned"] for step in read_trace(RunDir(tmp_path / "test").shard(0)))
