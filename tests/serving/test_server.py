"""The server component with the stub engine: ports, keys, ends."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from icm_hpc.config.schema import ModelConfig
from icm_hpc.engines import stub
from icm_hpc.errors import ServerError
from icm_hpc.rundir.folder import Rendezvous, RunDir
from icm_hpc.serving import follower, server
from icm_hpc.serving import process as processes
from tests.conftest import prepare_run, start_stub_by


def until(true: Callable[[], object]) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it did not come within a minute"
        time.sleep(0.05)


def start(run_dir: RunDir) -> "subprocess.Popen[bytes]":
    """Start the component as its own process."""
    argv = [sys.executable, "-m", "icm_hpc.serving.server", str(run_dir.path)]
    return subprocess.Popen(argv, env={**os.environ, "ICM_ATTEMPT": "a1"}, stderr=subprocess.DEVNULL)


def test_told_to_stop_it_ends_the_engine_and_says_so(tmp_path: Path) -> None:
    _, run_dir = prepare_run(tmp_path, "model=stub")
    process = start(run_dir)
    until(run_dir.endpoint("a1").exists)
    endpoint = run_dir.read_endpoint("a1")
    assert endpoint is not None
    until(lambda: server.is_taken("127.0.0.1", endpoint.port))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    record = run_dir.read_server_exit("a1")
    assert record is not None
    assert record.told_to_stop
    assert not server.is_taken("127.0.0.1", endpoint.port)


def test_settings_that_cannot_be_read_are_the_end_that_is_recorded(tmp_path: Path) -> None:
    _, run_dir = prepare_run(tmp_path, "model=stub")
    run_dir.config.write_text("model: {name: [")
    assert start(run_dir).wait(timeout=60) == 1
    record = run_dir.read_server_exit("a1")
    assert record is not None
    assert str(run_dir.config) in record.reason


def test_the_signal_meant_for_the_driver_does_not_end_it(tmp_path: Path) -> None:
    _, run_dir = prepare_run(tmp_path, "model=stub")
    process = start(run_dir)
    until(run_dir.endpoint("a1").exists)
    process.send_signal(signal.SIGUSR2)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.terminate()
    process.wait(timeout=30)


def test_the_key_is_in_no_argument_and_no_log(tmp_path: Path) -> None:
    _, run_dir = prepare_run(tmp_path, "model=stub")
    process = start(run_dir)
    until(run_dir.endpoint("a1").exists)
    key = json.loads(run_dir.endpoint("a1").read_text())["key"]
    arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    process.terminate()
    process.wait(timeout=30)
    assert len(key) > 30
    assert not any(key.encode() in words for words in arguments)
    assert key not in run_dir.server_log.read_text()
    assert run_dir.endpoint("a1").exists() is False


def test_an_engine_that_cannot_start_is_recorded_with_its_code(tmp_path: Path) -> None:
    _, run_dir = prepare_run(tmp_path, "model=stub", "model.vllm_args.delay-ms=soon")
    assert start(run_dir).wait(timeout=60) == 1
    record = run_dir.read_server_exit("a1")
    assert record is not None
    assert (record.reason, record.told_to_stop) == ("stub exited with code 2", False)


def test_a_port_taken_in_the_meantime_is_exchanged_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub")
    started = stub.argv
    ports = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken, free = other.getsockname()[1], server.free_port("127.0.0.1")
        offered = iter([taken, free])
        monkeypatch.setattr(server, "free_port", lambda _host: next(offered))

        def argv(model: ModelConfig, weights: Path | str, *, host: str, port: int, **_placed: object) -> list[str]:
            ports.append(port)
            serves = started(model, weights, host=host, port=port)
            return serves if port == taken else [sys.executable, "-c", "raise SystemExit(3)"]

        start_stub_by(monkeypatch, argv)
        assert server.serve(settings, run_dir, "a1", local=True) == "stub exited with code 3"
    assert ports == [taken, free]


def test_other_nodes_are_told_slurms_name_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "gpu1")
    assert server.addresses()[0] == "gpu1"


def test_a_server_of_two_nodes_that_slurm_started_on_one_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub", "server.nodes=2", "model.tensor_parallel_size=2")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    with pytest.raises(ServerError, match="Slurm started 1 of the server's 2 ranks"):
        server.serve(settings, run_dir, "a1", local=False)


def test_a_rank_that_does_not_come_is_named_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub", "server.nodes=3", "model.tensor_parallel_size=3")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    monkeypatch.setattr(server, "RANKS_ARRIVE_S", 0.1)
    run_dir.write_rank_arrival("a1", 1, "192.0.2.1")
    with pytest.raises(ServerError, match=r"2 of the server's 3 ranks started within 0.1 s; missing: 2\."):
        server.require_ranks(settings, run_dir, "a1")
    run_dir.write_rank_arrival("a1", 2, "192.0.2.2")
    server.require_ranks(settings, run_dir, "a1")


def test_a_process_that_even_sigkill_does_not_end_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.1)
    monkeypatch.setattr(processes, "KILL_S", 0.1)
    log = tmp_path / "server.log"
    with processes.engine([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, log) as running:

        def stuck(timeout: float | None = None) -> int:
            raise subprocess.TimeoutExpired("engine", timeout or 0.0)

        reap, running.wait = running.wait, stuck  # type: ignore[method-assign]
    assert "does not end 0.1 s after SIGKILL" in log.read_text()
    reap(timeout=30)


@pytest.mark.parametrize(
    ("timeout_s", "env", "ready"),
    [
        ("7200", (), "7200"),
        ("600.5", (), "601"),
        ("1e9", (), "2000000"),
        ("60", ("model.env.VLLM_ENGINE_READY_TIMEOUT_S='99'",), "99"),
    ],
)
def test_the_engine_waits_for_its_own_parts_as_long_as_the_driver_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: str, env: tuple[str, ...], ready: str
) -> None:
    monkeypatch.setenv("VLLM_ENGINE_READY_TIMEOUT_S", "1")  # a shell's own setting is not meant for this run
    settings, run_dir = prepare_run(tmp_path, "model=tiny", f"server.start_timeout_s={timeout_s}", *env)
    given: list[str] = []

    def run(_: object, __: object, environment: Mapping[str, str], *___: object) -> tuple[int, bool, None]:
        given.append(environment["VLLM_ENGINE_READY_TIMEOUT_S"])
        return 1, False, None

    monkeypatch.setattr(server, "_run", run)
    monkeypatch.setattr("icm_hpc.serving.weights.locate", lambda _: "weights")
    server.serve(settings, run_dir, "a1", local=True)
    assert given == [ready]


def test_the_engine_of_a_second_node_waits_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=tiny", "server.start_timeout_s=7200", "server.nodes=2")
    given: list[str] = []

    @contextlib.contextmanager
    def engine(_: object, environment: Mapping[str, str], __: object) -> Iterator[SimpleNamespace]:
        given.append(environment["VLLM_ENGINE_READY_TIMEOUT_S"])
        yield SimpleNamespace(poll=lambda: 0, returncode=0)

    monkeypatch.setattr("icm_hpc.serving.process.engine", engine)
    monkeypatch.setattr("icm_hpc.serving.weights.locate", lambda _: "weights")
    run_dir.write_rendezvous(Rendezvous("a1", 0, "10.0.0.1", 1, 2))
    follower.follow(settings, run_dir, "a1", 1, "10.0.0.2", is_to_stop=lambda: bool(given))
    assert given == ["7200"]


def test_a_server_on_this_machine_does_not_count_the_tasks_of_a_step_that_it_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=stub")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    start_stub_by(monkeypatch, lambda *_, **__: [sys.executable, "-c", "raise SystemExit(3)"])
    assert server.serve(settings, run_dir, "a1", local=True) == "stub exited with code 3"
