"""`python -m benchmarks.replicas n=64 replicas=2 data=../shared/data/truthfulqa_train.json`: what affinity saves.

One scoring by a server with so many replicas of the model tiny: each branch of the trie sent to one of them, and the same
prompts balanced by vLLM itself. Counts are the server's own.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import Connect, arguments, empty_cache, with_server
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import of_tokens
from icm_hpc.scoring.scorer import Scorer

BLOCK = 32


def main() -> None:
    """Measure, and print."""
    mine, rest = arguments({"n": "64", "replicas": "2", "data": "../shared/data/truthfulqa_train.json"})
    data = f"task.data={Path(mine['data']).resolve()}"
    words = ["model=tiny", "task=truthfulqa", data, f"task.limit={mine['n']}", f"server.replicas={mine['replicas']}"]
    config = loading.load([*words, "model.vllm_args.api-server-count=1", *rest])
    task = tasks.load(config.task, seed=0)
    problem, labels = task.problem(), frozen_labels(np.arange(len(task.examples)) % 2)

    async def measure(_folder: Path, connected: Connect) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("by branch", "by vLLM"):
            async with empty_cache(connected) as client:
                tokens = await of_tokens(client, task)
                found["forecast, one cache"] = tokens.cost("trie", problem.groups, BLOCK).computed_tokens
                found["forecast, by branch"] = tokens.cost(
                    "trie", problem.groups, BLOCK, replicas=client.replicas
                ).computed_tokens
                before = await client.metrics()
                await Scorer(_of_one(client) if name == "by vLLM" else client, tokens, problem, "trie").answer(
                    [ScorePool(labels, "eval")]
                )
                after = await client.metrics()
                found[name] = after.computed_tokens - before.computed_tokens
                found["sent"] = after.prompt_tokens - before.prompt_tokens
        return found

    for name, count in with_server(config, measure).items():
        print(f"{name:<22} {count:>10,} tokens")


def _of_one(client: Client) -> Client:
    """Return a client that does not know of the replicas."""
    client._slots_of = client._slots_of[:1]
    return client


if __name__ == "__main__":
    main()
