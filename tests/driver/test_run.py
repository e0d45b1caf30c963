"""The driver against the stub: resuming, stopping, and a server that ends."""

import asyncio
import dataclasses
import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.driver import run
from icm_hpc.errors import CheckpointError, ConfigError, FitError, Interrupted, ServerError
from icm_hpc.jobs import local
from icm_hpc.rundir import lock
from icm_hpc.rundir.attempts import new_attempt
from icm_hpc.rundir.folder import RunDir, ServerExit
from icm_hpc.rundir.progress import Progress, Watch
from icm_hpc.scoring import connect
from tests.conftest import prepare_run

STUB = ("model=stub", "task.limit=16", "search.steps=40")


def quiet(_: Progress) -> None:
    """Watch nothing."""


async def drive(settings: Any, run_dir: RunDir, watch: Watch = quiet, stop: asyncio.Event | None = None) -> Any:
    """Run the driver to its end with a stub server of its own."""
    attempt = new_attempt()
    with local.serving(run_dir, attempt):
        return await run.run(settings, run_dir, attempt=attempt, stop=stop or asyncio.Event(), watch=watch)


async def test_a_run_labels_every_example(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB)
    summary = await drive(settings, run_dir)
    rows = [json.loads(line) for line in run_dir.labels.read_text().splitlines()]
    assert len(rows) == summary["examples"] == 16
    assert {row["label"] for row in rows} <= {0, 1}
    assert [row["by"] for row in rows].count("search") == summary["labelled_by_search"]
    assert all(row["word"] in row["logprobs"] and row["group"] for row in rows)
    assert summary == json.loads(run_dir.summary.read_text())


@pytest.mark.parametrize("memo", ["search.memo_mb=16", "search.memo_mb=0"])
async def test_a_run_interrupted_again_and_again_matches_one_that_was_never_stopped(tmp_path: Path, memo: str) -> None:
    settings, undisturbed = prepare_run(tmp_path / "a", *STUB)
    await drive(settings, undisturbed)
    settings, disturbed = prepare_run(tmp_path / "b", *STUB, memo, "search.ahead=2")
    starts = 0
    while not disturbed.labels.exists():
        stop, starts = asyncio.Event(), starts + 1
        begun: list[int] = []

        def watch(now: Progress, begun: list[int] = begun, stop: asyncio.Event = stop) -> None:
            begun.append(now.step)
            if len(begun) == 4:
                stop.set()

        try:
            await drive(settings, disturbed, watch, stop)
        except Interrupted:
            continue
    assert starts > 3
    assert disturbed.labels.read_bytes() == undisturbed.labels.read_bytes()
    traces = [(r.shard(0) / "trace.jsonl").read_bytes() for r in (undisturbed, disturbed)]
    assert traces[0] == traces[1]
    assert len(json.loads(disturbed.provenance.read_text())["attempts"]) == starts


async def test_the_search_goes_on_when_steps_are_added_to_a_finished_run(tmp_path: Path) -> None:
    settings, long = prepare_run(tmp_path / "a", *STUB)
    await drive(settings, long)
    first, run_dir = prepare_run(tmp_path / "b", *STUB, "search.steps=15")
    await drive(first, run_dir)
    await drive(settings, run_dir)
    assert run_dir.labels.read_bytes() == long.labels.read_bytes()


async def test_state_of_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB)
    await drive(settings, run_dir)
    other = dataclasses.replace(settings, search=dataclasses.replace(settings.search, alpha=7.0))
    with pytest.raises(CheckpointError, match=r"search\.alpha: 30\.0 there, 7\.0 here"):
        await drive(other, run_dir)


async def test_a_pool_longer_than_the_context_is_refused_with_the_numbers(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB, "model.max_model_len=64")
    with pytest.raises(FitError, match=r"all 16 examples is \d+ tokens, but the server's context is 64"):
        await drive(settings, run_dir)


async def test_a_server_of_another_attempt_is_not_talked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB, "server.start_timeout_s=2")
    monkeypatch.setattr(run, "LAST_WORDS_S", 0.1)
    with local.serving(run_dir, "another"), pytest.raises(ServerError, match="no server of this attempt"):
        await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)


async def test_a_second_driver_of_a_run_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB)
    async with lock.held(run_dir.lock, "attempt 7.0 on node3, process 42"):
        with pytest.raises(ConfigError, match=r"in use: attempt 7\.0 on node3"):
            await drive(settings, run_dir)
    assert (await drive(settings, run_dir))["examples"] == 16


async def test_a_server_that_moves_to_another_port_is_found_there(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB)
    with local.serving(run_dir, "a1"):
        async with connect.connected(settings, run_dir, "a1"):
            endpoint = run_dir.read_endpoint("a1")
        assert endpoint is not None
        run_dir.write_endpoint(dataclasses.replace(endpoint, port=1, key="of one that never listened"))
        asyncio.get_running_loop().call_later(1, run_dir.write_endpoint, endpoint)
        summary = await run.run(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    assert summary["examples"] == 16


async def test_a_server_told_to_stop_with_us_is_no_error(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB)
    stop = asyncio.Event()
    run_dir.write_server_exit(ServerExit("a1", "told to stop by SIGTERM", told_to_stop=True))
    asyncio.get_running_loop().call_later(0.5, stop.set)
    with pytest.raises(Interrupted):
        await run.run(settings, run_dir, attempt="a1", stop=stop, watch=quiet)


async def test_what_a_run_leaves_is_for_its_owner_only(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB, "search.steps=3")
    await drive(settings, run_dir)
    assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700
    files = [path for path in run_dir.path.iterdir() if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert not list(run_dir.path.glob("attempts/*/endpoint.json")), "its key is gone with the server"


async def test_our_own_server_serves_under_the_name_that_is_set(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *STUB, "model.served_name=another", "search.steps=3")
    assert (await drive(settings, run_dir))["examples"] == 16


@pytest.mark.parametrize("noted", [True, False])
def test_a_second_signal_when_the_run_has_just_stopped_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, noted: bool
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub")
    received: list[int] = []
    before, real = signal.getsignal(signal.SIGTERM), asyncio.run

    async def stopped(*_: Any, stop: asyncio.Event, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 10)
        raise Interrupted("stopped")

    def again(main: Any) -> Any:
        try:
            return real(main)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "run", stopped)
    monkeypatch.setattr(asyncio, "run", again)
    handlers = {number: signal.getsignal(number) for number in run.STOPPING}
    try:
        with pytest.raises(Interrupted):
            run.drive(settings, run_dir, attempt="a1", watch=lambda _: None, received=received if noted else None)
        after = signal.getsignal(signal.SIGTERM)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert received == [signal.SIGTERM] * 2 * noted
    assert after == (signal.SIG_IGN if noted else before)
