"""`python -m benchmarks.driver`: CPU seconds of the driver for one scoring, N = 16 to 4096, against the stub server.

Examples of `tokens` tokens each, the trie layout, all prompts sent and their answers read. Growth is beside N log2 N (what
the driver joins) and beside the bytes sent (which grow with N^2: that is copying). `profile=N` prints where the time goes.
"""

import cProfile
import pstats
import sys
import time
from math import log2
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import Connect, arguments, printed, with_server
from icm_hpc.config import loading
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.scoring import prompts
from icm_hpc.scoring.scorer import Scorer
from icm_hpc.tasks import Example, Task


def task_of(n: int, tokens: int) -> Task:
    """Return examples of so many tokens of the stub."""
    words = [" ".join(f"word{i}" for _ in range(tokens - 2)) for i in range(n)]
    examples = tuple(Example(str(i), str(i // 2), text) for i, text in enumerate(words))
    return Task("made", examples, (" False", " True"), separator="\n")


async def of_size(connected: Connect, n: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Return the driver's CPU seconds for one scoring of n examples, the median of some."""
    task = task_of(n, tokens)
    async with connected() as client:
        written = await prompts.of_tokens(client, task)
        scorer = Scorer(client, written, task.problem(), "trie", memo_bytes=0)
        rng, seconds, walls = np.random.default_rng(0), [], []
        for _ in range(repeats + 1):
            ask = ScorePool(frozen_labels(rng.integers(0, 2, n)), "eval")
            cpu, began = time.process_time(), time.monotonic()
            await scorer.answer([ask])
            seconds.append(time.process_time() - cpu)
            walls.append(time.monotonic() - began)
        sent = client.traffic
    cpu_s = float(np.median(seconds[1:]))  # the first arranges the trie, which later ones find ready
    return {
        "n": n,
        "prompt_tokens": int(sent.prompt_tokens / sent.prompts),
        "requests": sent.requests // (repeats + 1),
        "cpu_s": cpu_s,
        "first_cpu_s": seconds[0],
        "cpu_us_a_prompt": cpu_s / n * 1e6,
        "cpu_us_by_n_log2_n": cpu_s / (n * log2(n)) * 1e6,
        "wall_s": float(np.median(walls[1:])),
    }


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"sizes": "16,64,256,1024,4096", "tokens": "10", "repeats": "3", "profile": ""})
    config = loading.load(["model=stub", "model.max_model_len=100000000", *rest])

    async def measure(_folder: Path, connected: Connect) -> list[dict[str, Any]]:
        sizes = [int(size) for size in (mine["profile"] or mine["sizes"]).split(",")]
        return [await of_size(connected, n, int(mine["tokens"]), int(mine["repeats"])) for n in sizes]

    if not mine["profile"]:
        printed({"sizes": with_server(config, measure)})
        return
    with cProfile.Profile() as profile:
        with_server(config, measure)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
