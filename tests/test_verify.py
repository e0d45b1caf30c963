"""`python -m icm_hpc.verify`: what it prints and how it ends; of real vLLM, with and without a prefix cache."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from icm_hpc import verify
from icm_hpc.driver import run
from icm_hpc.errors import ConfigError
from icm_hpc.jobs import local
from icm_hpc.rundir.folder import Endpoint
from icm_hpc.scoring import connect
from tests.conftest import Served, prepare_run, require_vllm

CHECKS = 11  # lines


def command(*words: str, key: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command, with a key in its environment."""
    argv = [sys.executable, "-m", "icm_hpc.verify", *words]
    environment = {**os.environ, "VLLM_API_KEY": key, **variables}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    "url", ["http://host:8000", "http://host:8000/", "http://host:8000/v1", "http://host:8000/v1/"]
)
def test_an_address_may_end_as_one_is_used_to(url: str) -> None:
    assert verify.parse([f"url={url}"]).url == "http://host:8000"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "url is missing: write url=http://HOST:PORT"),
        (["url=host:8000"], "url=http://HOST:PORT"),
        (["url=http://host:99999"], "url=http://HOST:PORT"),
        (["url=http://host..domain:8000"], "url=http://HOST:PORT"),
        (["url=http://host:8000", "json=yes"], "json=yes: true or false"),
        (["url=http://host:8000", "key=secret"], "is not understood"),
        (["url=http://host:8000", "context=long"], "context=long: tokens"),
    ],
)
def test_a_word_that_says_nothing_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        verify.parse(words)


def test_a_key_among_the_words_is_refused_and_not_repeated() -> None:
    done = command("url=http://127.0.0.1:1", "api_key=secret")
    assert done.returncode == 1
    assert "VLLM_API_KEY" in done.stderr
    assert "secret" not in done.stderr


def test_a_server_that_is_not_there_ends_the_command_with_a_cross_and_exit_code_1() -> None:
    done = command("url=http://127.0.0.1:1")
    assert done.returncode == 1
    first, *others = done.stdout.splitlines()
    assert first.startswith("✗ reachable: http://127.0.0.1:1 refuses the connection")
    assert len(others) == CHECKS - 1
    assert all(line.startswith("– ") for line in others)
    done = command("url=http://127.0.0.1:1", "json=true")
    assert [json.loads(line)["passed"] for line in done.stdout.splitlines()] == [False] + [None] * (CHECKS - 1)


def test_a_key_with_a_line_break_is_refused_and_not_repeated() -> None:
    done = command("url=http://127.0.0.1:1", key="secret\nsecret")
    assert done.returncode == 1
    assert done.stderr.startswith("icm_hpc: VLLM_API_KEY of the environment: has")
    assert "secret" not in done.stderr


def test_a_terminal_without_ticks_is_told_all_the_same() -> None:
    done = command("url=http://127.0.0.1:1", PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert done.stdout.startswith("\\u2717 reachable")
    assert not done.stderr


async def endpoint_of(served: Served) -> Endpoint:
    """Return where a server listens, once it does."""
    async with connect.connected(served.settings, served.run_dir, served.attempt):
        endpoint = served.run_dir.read_endpoint(served.attempt)
    assert endpoint is not None
    return endpoint


async def verified(served: Served, *words: str, key: str | None = None) -> tuple[int, dict[str, str]]:
    """Return the exit code, and the lines by the names of their checks."""
    endpoint = await endpoint_of(served)
    url = f"url=http://{endpoint.hosts[0]}:{endpoint.port}/v1"
    done = command(url, *words, key=endpoint.key if key is None else key)
    lines = done.stdout.splitlines()
    assert len(lines) == CHECKS, done.stderr
    return done.returncode, {line[2:].partition(":")[0]: line for line in lines}


def crosses(lines: dict[str, str]) -> set[str]:
    """Return the names of the checks that failed."""
    return {name for name, line in lines.items() if line.startswith("✗")}


@pytest.mark.vllm
@pytest.mark.versions
async def test_vllm_passes_every_check(tiny_server: Served) -> None:
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        before = await client.metrics()
        code, lines = await verified(tiny_server, "model=tiny")
        after = await client.metrics()
    assert code == 0
    assert after.computed_tokens - before.computed_tokens > 8191, "the full-length prompt was computed whole"
    assert all(line.startswith("✓") for line in lines.values()), lines
    assert "128 tokens came from the cache" in lines["prefix caching"]
    assert "8191 tokens" in lines["full-length prompt"]


@pytest.mark.vllm
async def test_vllm_with_a_wrong_key_a_wrong_model_or_too_short_a_context_is_reported(tiny_server: Served) -> None:
    code, lines = await verified(tiny_server, key="wrong")
    assert (code, crosses(lines)) == (1, {"reachable"})
    code, lines = await verified(tiny_server, "model=large")
    assert (code, crosses(lines)) == (1, {"model"})
    assert "the server lists tiny" in lines["model"]
    code, lines = await verified(tiny_server, "context=1000000")
    assert (code, crosses(lines)) == (1, {"context"})
    assert "8192 tokens, and 1000000 are required" in lines["context"]


@pytest.fixture(scope="module")
def cacheless_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Real vLLM that was told to cache no prefixes."""
    require_vllm()
    folder = tmp_path_factory.mktemp("cacheless")
    settings, run_dir = prepare_run(folder, "model=tiny", "model.vllm_args.enable-prefix-caching=false")
    with local.serving(run_dir, "tests"):
        yield Served(settings, run_dir, "tests")


@pytest.mark.vllm
async def test_vllm_without_a_prefix_cache_is_reported(cacheless_server: Served) -> None:
    code, lines = await verified(cacheless_server)
    assert (code, crosses(lines)) == (1, {"prefix caching"})
    assert "--enable-prefix-caching" in lines["prefix caching"]
    async with connect.connected(cacheless_server.settings, cacheless_server.run_dir, "tests") as client:
        before = await client.metrics()
        await client.label_logprobs([b"[300,301,302,303]"] * 2, [5, 7])
        after = await client.metrics()
    assert after.computed_tokens - before.computed_tokens == client.traffic.prompt_tokens == 8


@pytest.mark.vllm
async def test_a_run_logs_the_checks_of_its_server_and_counts_nothing_of_them(
    tiny_server: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings, run_dir = prepare_run(tmp_path, "model=tiny", "task.limit=12", "search.steps=3")
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        summary = await run.label(settings, run_dir, client, lambda _: None)
    told = [record.getMessage() for record in caplog.records if record.name == "icm_hpc.driver.checking"]
    assert [line[:2] for line in told if line[0] in "✓✗–"] == ["✓ "] * CHECKS
    since = summary["since_start"]
    assert since["server_prompt_tokens"] == since["prompt_tokens"]
