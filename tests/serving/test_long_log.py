"""An engine that prints without end: its log is bounded while it runs, and smaller once it was told to stop."""

import dataclasses
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from icm_hpc.engines import ENGINES, start_of
from icm_hpc.rundir import logs
from icm_hpc.rundir.folder import Rendezvous, RunDir
from icm_hpc.serving import follower, server
from tests.conftest import prepare_run

RUNS, ENDED = logs.Bound(100_000, 10_000, 20_000), logs.Bound(30_000, 5_000, 10_000)
LINE = "print('INFO a line of the engine', n := n + 1)"
FOR_EVER = f"print('it starts')\nn = 0\nwhile True: {LINE}"
# Prints until its log was shortened, then fails.
UNTIL_SHORTENED = f"""
import os, sys
print('it starts', flush=True)
n = size = 0
while os.path.getsize(sys.argv[1]) >= size:
    size = os.path.getsize(sys.argv[1])
    for _ in range(100): {LINE}
    sys.stdout.flush()
print('ValueError: no memory is left')
sys.exit(3)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound logs so that an engine reaches the bound at once."""
    monkeypatch.setattr(logs, "ENGINE_RUNS", RUNS)
    monkeypatch.setattr(logs, "ENGINE_ENDED", ENDED)
    monkeypatch.setattr(server, "LOOK_S", 0.01)
    monkeypatch.setattr(server, "POLL_S", 0.01)
    monkeypatch.setattr(follower, "POLL_S", 0.01)


def prints(monkeypatch: pytest.MonkeyPatch, script: str, log: Path) -> None:
    """Have a process that prints started where the stub would be; the cause of its exit is looked for as vLLM's is."""
    start = dataclasses.replace(
        start_of("stub"),
        argv=lambda *_, **__: [sys.executable, "-c", script, str(log)],
        root_cause=start_of("vllm").root_cause,
    )
    monkeypatch.setitem(ENGINES, "stub", dataclasses.replace(ENGINES["stub"], start=start))


def shortened(log: Path) -> bool:
    """Return whether the middle of a log has been left out."""
    return log.exists() and b"its middle is left out" in log.read_bytes()


def test_the_log_of_an_engine_that_prints_much_and_fails_has_its_begin_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub")
    prints(monkeypatch, UNTIL_SHORTENED, run_dir.server_log)
    assert server.serve(settings, run_dir, "a1", local=True) == "stub exited with code 3: ValueError: no memory is left"
    text = run_dir.server_log.read_text()
    assert "it starts\nINFO a line of the engine 1\n" in text
    assert text.endswith("ValueError: no memory is left\n")
    assert shortened(run_dir.server_log)


def test_the_log_of_an_engine_that_prints_without_end_is_small_once_it_was_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub")
    prints(monkeypatch, FOR_EVER, run_dir.server_log)
    told: list[int] = []
    monkeypatch.setattr(server, "_told_to_stop", told)
    threading.Thread(target=tell_once_shortened, args=(run_dir.server_log, told), daemon=True).start()
    assert server.serve(settings, run_dir, "a1", local=True) == "told to stop by SIGTERM"
    assert run_dir.server_log.stat().st_size <= ENDED.size
    assert run_dir.server_log.stat().st_mode & 0o777 == 0o600


def test_the_log_of_a_rank_on_another_node_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub", "server.nodes=2", "model.tensor_parallel_size=2")
    log = run_dir.rank_log(1)
    prints(monkeypatch, FOR_EVER, log)
    told: list[int] = []
    run_dir.write_rendezvous(Rendezvous("a1", 0, "127.0.0.1", 1, 2))
    threading.Thread(target=tell_once_shortened, args=(log, told), daemon=True).start()
    assert follower.follow(settings, run_dir, "a1", 1, "127.0.0.1", is_to_stop=lambda: bool(told)) == "told to stop"
    assert log.stat().st_size <= ENDED.size


def test_what_earlier_starts_have_written_is_shortened_before_the_next(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.server_log.write_text("the first start\n" + "x\n" * 100_000 + "why it ended\n")
    began = logs.begun(run_dir.server_log)
    assert began == Path(run_dir.server_log).stat().st_size <= ENDED.size
    assert run_dir.server_log.read_text().startswith("the first start\n")
    assert logs.tail(run_dir.server_log, 1) == "why it ended"
    assert logs.written_since(run_dir.server_log, began) == ""


def tell_once_shortened(log: Path, told: list[int]) -> None:
    """Tell a component to stop once the log of its engine has reached the bound."""
    while not shortened(log):
        time.sleep(0.02)
    told.append(signal.SIGTERM)
