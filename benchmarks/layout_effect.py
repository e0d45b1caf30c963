"""`python -m benchmarks.layout_effect data=../shared/data model=smol pools=4`: does the trie change what the model says?

Margins (log P(label 1) - log P(label 0), nats) of the same examples with the same demonstrations in other
orders: the published order against the trie, and beside it the published order against two random orders, and these
against each other. Correlation and mean absolute difference, by task, over several pools.
"""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.serving import Connect, arguments, empty_cache, printed, with_server
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.core.layout import LAYOUTS, Query
from icm_hpc.core.types import frozen_labels
from icm_hpc.scoring import prompts
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.scorer import Scorer

SUITE = {"reviews": (None, 24), "truthfulqa": ("truthfulqa_train.json", 24), "gsm8k": ("gsm8k_verification.json", 12)}


async def margins_by_order(config: Config, client: Client) -> dict[str, npt.NDArray[np.float64]]:
    """Return the margins of one pool in each order, by example."""
    task = tasks.load(config.task, seed=config.search.seed)
    problem, rng = task.problem(), np.random.default_rng(config.search.seed)
    labels = frozen_labels(rng.permutation(np.arange(problem.n) % problem.n_labels))
    tokens = await prompts.of_tokens(client, task)
    scorer = Scorer(client, tokens, problem, "trie")
    members = np.arange(problem.n)

    def arranged(layout: str) -> list[Query]:
        return LAYOUTS[layout].arrange(members, members, problem.groups, tokens.demonstration_tokens, "eval")

    def shuffled() -> list[Query]:
        order = rng.permutation(problem.n).tolist()
        return [Query(i, (tuple(j for j in order if j != i),)) for i in members.tolist()]

    orders = {
        "reference": arranged("reference"),
        "trie": arranged("trie"),
        "random_1": shuffled(),
        "random_2": shuffled(),
    }
    margins = {}
    for name, queries in orders.items():
        rows = await scorer.score([(queries, labels)])
        by_example = np.empty(problem.n)
        by_example[[query.index for query in queries]] = rows[:, 1] - rows[:, 0]
        margins[name] = by_example
    return margins


def compared(pools: Sequence[dict[str, npt.NDArray[np.float64]]]) -> dict[str, Any]:
    """Return how near each two orders are, means over pools."""
    figures = {}
    for a, b in itertools.combinations(("reference", "trie", "random_1", "random_2"), 2):
        figures[f"{a} - {b}"] = {
            "correlation": statistics.mean(float(np.corrcoef(pool[a], pool[b])[0, 1]) for pool in pools),
            "mean_absolute_difference": statistics.mean(float(np.abs(pool[a] - pool[b]).mean()) for pool in pools),
        }
    return figures


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"data": "../shared/data", "pools": "4", "tasks": ",".join(SUITE)})
    variants: dict[str, list[Config]] = {}
    for name in mine["tasks"].split(","):
        file, limit = SUITE[name]
        chosen = [f"task={name}", f"task.limit={limit}"] + ([f"task.data={Path(mine['data']) / file}"] if file else [])
        seeds = range(int(mine["pools"]))
        variants[name] = [loading.load([*chosen, f"search.seed={seed}", *rest]) for seed in seeds]

    async def measure(_folder: Path, connected: Connect) -> dict[str, Any]:
        async with empty_cache(connected) as client:
            return {
                name: compared([await margins_by_order(one, client) for one in pools])
                for name, pools in variants.items()
            }

    printed({"pools": int(mine["pools"]), "tasks": with_server(next(iter(variants.values()))[0], measure)})


if __name__ == "__main__":
    main()
