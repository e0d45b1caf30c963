"""A run against a server that already runs: found by its address, asked with its key, lost and found again."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc.capacity.plan import plan
from icm_hpc.config import credentials, loading
from icm_hpc.config.fingerprint import differences, result_settings
from icm_hpc.driver.run import run as drive
from icm_hpc.engines import stub
from icm_hpc.errors import ConfigError, Interrupted, ScoringError, ServerError
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.progress import Progress
from icm_hpc.scoring import client, external
from icm_hpc.scoring.session import open_session
from icm_hpc.tasks import load as load_task
from tests import offline
from tests.conftest import Served, prepare_run
from tests.external import KEY, command_lines, free_port, holding, running_stub, submit

SEARCH = ("task.limit=16", "search.steps=40", "search.schedule=constant")
THEIRS = ("model=tiny", *SEARCH)
SLURM = ("cluster.executor=slurm", "dry_run=false")


def quiet(_: Progress) -> None:
    """Watch nothing."""


def theirs(key: str = KEY, model: str = "theirs") -> web.Application:
    """Return a server that already runs."""
    return stub.application(model=model, max_model_len=10**6, key=key)


async def undisturbed(folder: Path, *arguments: str) -> bytes:
    """Return the labels of a run without any server."""
    _, run_dir, _ = await offline.label(folder, *SEARCH, *arguments)
    return run_dir.labels.read_bytes()


async def test_a_running_server_is_used_under_the_name_that_it_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    async with TestServer(theirs()) as server:
        settings, run_dir = prepare_run(tmp_path, *THEIRS, f"server.url={server.make_url('/v1/')}")
        summary = await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    assert summary["examples"] == 16
    assert run_dir.labels.read_bytes() == await undisturbed(tmp_path / "plain")
    assert list((run_dir.path / "attempts").iterdir()) == [], "no endpoint, no exit record"


def test_of_several_models_none_is_guessed() -> None:
    assert external.only_model({"one": None}) == "one"
    with pytest.raises(ScoringError, match=r"\['a', 'b'\]: choose one with model\.served_name=NAME"):
        external.only_model({"b": 1, "a": 1})


async def test_a_wrong_key_is_refused_at_once_with_its_source_and_without_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def parrot(request: web.Request) -> web.Response:
        return web.Response(status=401, text=f"who is {request.headers['Authorization']}?")

    app = web.Application()
    app.add_routes([web.get("/v1/models", parrot)])
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    async with TestServer(app) as server:
        settings, run_dir = prepare_run(tmp_path, *THEIRS, f"server.url={server.make_url('')}")
        with pytest.raises(ScoringError, match=r"refuses the key \(VLLM_API_KEY of the environment\)") as refused:
            await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    assert "who is Bearer (the key)?" in str(refused.value)
    assert holding(run_dir.path, KEY) == []


async def test_no_error_quotes_the_key_whatever_a_server_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def parrot(request: web.Request) -> web.Response:
        return web.Response(text=f"you sent {request.headers['Authorization']}", content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/v1/models", parrot)])
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    async with TestServer(app) as server:
        settings, run_dir = prepare_run(tmp_path, *THEIRS, f"server.url={server.make_url('')}")
        with pytest.raises(ScoringError, match="is not JSON: b'you sent Bearer \\(the key\\)'") as refused:
            await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    assert KEY not in str(refused.value)
    assert holding(run_dir.path, KEY) == []


@pytest.mark.parametrize("key", ["two words", "a\nb", "ключ"])
def test_a_key_that_no_header_may_hold_is_refused_and_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises(ConfigError, match="VLLM_API_KEY of the environment: has a space") as refused:
        credentials.find("VLLM_API_KEY")
    assert key not in str(refused.value)


class Flaky:
    """A server on a port of its own that goes away and comes back."""

    def __init__(self) -> None:
        self.port = free_port()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def up(self) -> None:
        """Serve."""
        self._runner = web.AppRunner(theirs())
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def down(self) -> None:
        """Go away."""
        assert self._runner is not None
        await self._runner.cleanup()


@pytest.fixture
async def flaky(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Flaky]:
    """One that is up, and a client that knows its key and does not wait between its tries."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setattr(client, "RETRY_WAITS_S", (0.0,))
    server = Flaky()
    await server.up()
    yield server
    await server.down()


def once(at_step: int, do: Callable[[], Any]) -> Callable[[Progress], None]:
    """Return a watch that does something once."""
    done: list[Any] = []

    def watch(now: Progress) -> None:
        if now.step >= at_step and not done:
            done.append(do())

    return watch


async def test_a_server_that_goes_away_is_waited_for_and_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, flaky: Flaky
) -> None:
    settings, run_dir = prepare_run(tmp_path, *THEIRS, "search.memo_mb=0", f"server.url={flaky.url}")

    async def away() -> None:
        await flaky.down()
        await asyncio.sleep(2)
        await flaky.up()

    watch = once(10, lambda: asyncio.ensure_future(away()))
    summary = await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=watch)
    assert summary["since_start"]["servers_lost"] == 1
    assert run_dir.labels.read_bytes() == await undisturbed(tmp_path / "plain")


async def test_a_server_that_hangs_is_a_lost_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    hung: list[str] = []

    @web.middleware
    async def hang_once(request: web.Request, handler: Any) -> Any:
        if hanging.is_set() and not hung:
            hung.append(request.path)
            await asyncio.sleep(30)
        return await handler(request)

    hanging = asyncio.Event()
    app = theirs()
    app.middlewares.append(hang_once)
    async with TestServer(app) as server:
        url = f"server.url={server.make_url('')}"
        settings, run_dir = prepare_run(tmp_path, *THEIRS, "search.memo_mb=0", url, "server.request_timeout_s=1")
        summary = await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=once(10, hanging.set))
    assert summary["since_start"]["servers_lost"] == summary["since_start"]["failures"]["timeout"] == 1
    assert run_dir.labels.read_bytes() == await undisturbed(tmp_path / "plain")


async def test_a_server_that_comes_back_with_another_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    for steps, model in ((5, "theirs"), (10, "theirs")):
        async with TestServer(theirs(model=model)) as server:
            url = f"server.url={server.make_url('')}"
            settings, run_dir = prepare_run(tmp_path, *THEIRS, url, f"search.steps={steps}")
            await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=quiet)
    async with TestServer(theirs(model="another")) as server:
        settings, run_dir = prepare_run(tmp_path, *THEIRS, f"server.url={server.make_url('')}")
        with pytest.raises(ScoringError, match=r"now serves 'another', and the scores of .* are by 'theirs'"):
            await drive(settings, run_dir, attempt="a2", stop=asyncio.Event(), watch=quiet)


async def test_without_a_key_none_is_sent() -> None:
    async with open_session(None, 5) as session:
        assert "Authorization" not in session.headers


async def test_a_server_that_stays_away_fails_the_run_with_the_state_saved(tmp_path: Path, flaky: Flaky) -> None:
    settings, run_dir = prepare_run(
        tmp_path, *THEIRS, "search.memo_mb=0", f"server.url={flaky.url}", "server.start_timeout_s=1"
    )
    watch = once(10, lambda: asyncio.ensure_future(flaky.down()))
    with pytest.raises(ServerError, match=r"no scored completion within server\.start_timeout_s=1: .*Connect"):
        await drive(settings, run_dir, attempt="a1", stop=asyncio.Event(), watch=watch)
    saved = checkpoint.load_newest(run_dir.shard(0))
    assert saved is not None
    assert saved.state.step >= 10


async def test_a_stop_is_heard_while_the_server_is_waited_for(tmp_path: Path) -> None:
    settings, run_dir = prepare_run(tmp_path, *THEIRS, f"server.url=http://127.0.0.1:{free_port()}")
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, stop.set)
    with pytest.raises(Interrupted):
        await drive(settings, run_dir, attempt="a1", stop=stop, watch=quiet)


def test_a_run_by_vllm_base_url_starts_no_server_resumes_with_equal_labels_and_has_its_key_nowhere(
    tmp_path: Path,
) -> None:
    port = free_port()
    arguments = (*THEIRS, "search.memo_mb=0", f"run.root={tmp_path}", "run=mine")
    with running_stub(port, delay_ms=30) as url:
        environment = {**os.environ, "VLLM_BASE_URL": url, "VLLM_API_KEY": KEY}
        argv = [sys.executable, "-m", "icm_hpc.submit", *arguments]
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE)
        run_dir = RunDir(tmp_path / "mine")
        while not (run_dir.shard(0) / "trace.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
        seen = command_lines(process)
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        assert f"server   {url} runs already, none is started (VLLM_BASE_URL of the environment)" in printed
        assert "stopped; the state is saved" in printed
        assert loading.load_file(run_dir.config).server.url == url
        # The address is the run's own by now; a stray one is not followed.
        resumed = submit(
            *("run=mine", f"run.root={tmp_path}"), module="resume", VLLM_API_KEY=KEY, VLLM_BASE_URL="http://stray:1"
        )
    assert resumed.returncode == 0, resumed.stderr
    assert f"server   {url} runs already, none is started (the run's settings)" in resumed.stdout
    assert run_dir.labels.read_bytes() == asyncio.run(undisturbed(tmp_path / "plain"))
    assert not run_dir.server_log.exists()
    assert "--served-model-name" in seen.decode(), "the stub was seen"
    assert f"icm_hpc.serving.server\0{run_dir.path}" not in seen.decode()
    assert KEY.encode() not in seen
    assert KEY not in printed + resumed.stdout + resumed.stderr
    assert holding(tmp_path, KEY) == []
    told = submit(f"run.root={tmp_path}", "json=true", module="status")
    assert {row["run"]: row["server"] for row in map(json.loads, told.stdout.splitlines())}["mine"] == "external"


@pytest.mark.vllm
def test_a_real_vllm_that_already_runs_labels_a_run(tiny_server: Served, tmp_path: Path) -> None:
    run_dir = tiny_server.run_dir
    while (endpoint := run_dir.read_endpoint(tiny_server.attempt)) is None:
        pass
    done = submit(
        *("model=tiny", "task.limit=12", "search.steps=15", f"run.root={tmp_path}", "run=mine"),
        VLLM_BASE_URL=f"http://{endpoint.hosts[0]}:{endpoint.port}/v1",
        VLLM_API_KEY=endpoint.key,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 (" in done.stdout
    assert "for all who use it" in done.stdout
    assert len((tmp_path / "mine" / "labels.jsonl").read_text().splitlines()) == 12
    assert not (tmp_path / "mine" / "server.log").exists()
    assert holding(tmp_path, endpoint.key) == []


@pytest.mark.parametrize("url", ["http://me:pass@host", "http://host/?key=pass", "http://host/#pass", "ftp://x", "x"])
def test_an_address_that_is_none_or_may_hold_a_secret_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"server\.url") as refused:
        loading.load([f"server.url={url}"])
    assert "pass" not in str(refused.value).replace("user:password@", "")
    monkeypatch.setenv("VLLM_BASE_URL", url)
    with pytest.raises(ConfigError, match="VLLM_BASE_URL of the environment: url"):
        credentials.addressed(loading.load(["model=tiny"]))


def test_a_slurm_job_whose_key_is_in_the_environment_only_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    arguments = ("model=tiny", "cluster.executor=slurm", "server.url=http://host:8000", f"run.root={tmp_path}/runs")
    refused = submit(*arguments, VLLM_API_KEY=KEY)
    assert refused.returncode == 1
    assert "VLLM_API_KEY is in the environment only, which Slurm would store" in refused.stderr
    assert "chmod 600" in refused.stderr
    assert KEY not in refused.stdout + refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_driver_only_script_asks_for_no_gpu_and_is_bash(tmp_path: Path) -> None:
    arguments = (
        "model=405B",
        "cluster=slurm",
        "server.url=http://host:8000",
        "dry_run=true",
        f"run.root={tmp_path}/a b",
    )
    printed = submit(*arguments)
    assert printed.returncode == 0, printed.stderr
    assert "hetjob" not in printed.stdout
    assert "gpu" not in printed.stdout.lower()
    assert "@{" not in printed.stdout
    assert "http://host:8000 runs already (server.url)" in printed.stderr
    syntax = subprocess.run(["bash", "-n"], input=printed.stdout, text=True, capture_output=True, check=False)
    assert syntax.stderr == ""


def test_a_plan_of_an_external_server_is_of_data_and_disk_only() -> None:
    config = loading.load(["model=405B", "task.limit=16", "server.url=http://host"])
    found = plan(config, load_task(config.task, seed=0))
    assert found.fits
    assert list(found.lines) == ["data", "server", "disk"]


def test_labels_belong_to_a_model_and_not_to_an_address() -> None:
    plain = result_settings(loading.load(["model=tiny"]))
    moved = result_settings(loading.load(["model=tiny", "server.url=http://host"]))
    named = result_settings(loading.load(["model=tiny", "model.served_name=other"]))
    assert differences(moved, plain) == ""
    assert differences(named, plain) == "model.served_name: None there, 'other' here"
