"""`python -m benchmarks.frontend n=256 tokens=9 repeats=3`: what a scoring costs before the model computes anything.

One scoring of n examples of so many words with model=tiny on real vLLM, all of it in the prefix cache already: CPU seconds
of our driver and of the server's front end (its API process), by the way of asking: /v1/completions with our large
requests, with one prompt a request, and /inference/v1/generate without detokenization (one prompt a request is all it
takes).
"""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.driver import task_of
from benchmarks.serving import Connect, arguments, printed, with_server
from icm_hpc.config import loading
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.scoring import prompts
from icm_hpc.scoring.client import Client, all_of
from icm_hpc.scoring.scorer import Scorer

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def front_end(client: Client) -> int:
    """Return the process that answers HTTP."""
    port = client.url.rpartition(":")[2].encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"vllm.entrypoints.openai.api_server\0" in argv and b"\0--port\0" + port + b"\0" in argv:
            return int(folder.name)
    raise RuntimeError("no API server process is to be found")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


async def generate(client: Client, written: Sequence[bytes], label_ids: Sequence[int]) -> None:
    """Ask for the same log-probabilities by /inference/v1/generate; a repeated id keeps the last one from being cut off."""
    ids = [*label_ids, label_ids[0]]
    sampling = {"max_tokens": 1, "temperature": 0, "detokenize": False, "logprobs": len(ids), "logprob_token_ids": ids}
    fields = json.dumps({"model": client.model, "sampling_params": sampling}).encode()[:-1]
    slots = asyncio.Semaphore(64)

    async def one(prompt: bytes) -> None:
        async with slots:
            body = fields + b', "token_ids": ' + prompt + b"}"
            answer: Any = await client._ask("POST", "/inference/v1/generate", body, read=lambda told: told)
        listed = {top["token_id"] for top in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        if not listed.issuperset(label_ids):
            raise ValueError(f"asked for {label_ids}, received {listed}")

    await all_of(one(prompt) for prompt in written)


async def of_routes(connected: Connect, n: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Return the cost of each way of asking."""
    task = task_of(n, tokens)
    async with connected() as client:
        parts = await prompts.of_tokens(client, task)
        scorer = Scorer(client, parts, task.problem(), "trie", memo_bytes=0)
        labels = frozen_labels(np.arange(n) % 2)
        queries = scorer.arranged(ScorePool(labels, "eval"))
        await scorer.score([(queries, labels)])
        pid, measured = front_end(client), {}

        async def completions(request_bytes: float) -> None:
            client._request_bytes = request_bytes
            await scorer.score([(queries, labels)])

        async def generated() -> None:
            await generate(client, list(parts.write(queries, labels)), parts.label_ids)

        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "completions, requests of 4 MB": lambda: completions(4e6),
            "completions, one request": lambda: completions(1e12),
            "completions, one prompt a request": lambda: completions(1),
            "generate": generated,
        }
        for name, ask in ways.items():
            rows = []
            for _ in range(repeats):
                began, mine, theirs = time.monotonic(), time.process_time(), cpu_s(pid)
                await ask()
                rows.append((time.monotonic() - began, time.process_time() - mine, cpu_s(pid) - theirs))
            wall, driver, server = (statistics.median(column) for column in zip(*rows, strict=True))
            measured[name] = {"wall_s": wall, "driver_cpu_s": driver, "front_end_cpu_s": server}
    mean = int(parts.demonstration_tokens.sum() * (n - 1) / n)
    return {"n": n, "prompt_tokens": mean, "ways": measured}


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"n": "256", "tokens": "9", "repeats": "3"})
    space = [
        "model.max_model_len=32768",
        'model.env.VLLM_CPU_KVCACHE_SPACE="4"',
        "model.vllm_args.enable-scale-out=true",
    ]
    config = loading.load(["model=tiny", *space, *rest])

    async def measure(_folder: Path, connected: Connect) -> dict[str, Any]:
        return await of_routes(connected, int(mine["n"]), int(mine["tokens"]), int(mine["repeats"]))

    printed(with_server(config, measure))


if __name__ == "__main__":
    main()
