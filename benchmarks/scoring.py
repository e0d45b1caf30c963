"""`python -m benchmarks.scoring n=64 data=../shared/data/truthfulqa_train.json model=smol seed=0`: one scoring, by layout.

Tokens by the server's own counters: the published order against the trie, from an empty cache and again with one label
changed; beside them the ideal (every whole block computed once) and the forecast. Further arguments are settings.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import Connect, arguments, counted, empty_cache, ideal_tokens, printed, with_server
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.core.cost import scoring_cost
from icm_hpc.core.types import ScorePool, frozen_labels, with_labels
from icm_hpc.scoring import prompts
from icm_hpc.scoring.scorer import Scorer


async def of_layout(config: Config, connected: Connect, layout: str) -> dict[str, Any]:
    """Return what a scoring costs in one layout."""
    task = tasks.load(config.task, seed=config.search.seed)
    problem = task.problem()
    random = np.random.default_rng(config.search.seed).permutation(np.arange(problem.n) % problem.n_labels)
    labels = frozen_labels(random)
    changed = problem.n // 3
    other = with_labels(labels, {changed: (int(labels[changed]) + 1) % problem.n_labels})
    async with empty_cache(connected) as client:
        tokens = await prompts.of_tokens(client, task)
        prompts.require_fit(tokens, await client.max_model_len())
        scorer = Scorer(client, tokens, problem, layout)
        block_size = (await client.metrics()).block_size or 1
        queries = scorer.arranged(ScorePool(labels, "eval"))
        _, cold = await counted(client, scorer.answer([ScorePool(labels, "eval")]))
        _, warm = await counted(client, scorer.answer([ScorePool(other, "eval")]))
    expected = scoring_cost(queries, tokens.lengths, block_size)
    again = scoring_cost(queries, tokens.lengths, block_size, changed=changed)
    return {
        **asdict(cold),
        "hit_rate": cold.hit_rate,
        "ideal_tokens": ideal_tokens(tokens, queries, labels, block_size),
        "forecast_tokens": expected.computed_tokens,
        "held_tokens": expected.held_tokens,
        "one_label_changed": {**asdict(warm), "forecast_tokens": again.computed_tokens},
        "block_size": block_size,
    }


def main() -> None:
    """Run the benchmark."""
    mine, settings_arguments = arguments({"n": "64", "data": "../shared/data/truthfulqa_train.json", "seed": "0"})
    chosen = ["task=truthfulqa", f"task.data={Path(mine['data']).resolve()}", f"task.limit={mine['n']}"]
    config = loading.load([*chosen, f"search.seed={mine['seed']}", *settings_arguments])

    async def measure(_folder: Path, connected: Connect) -> dict[str, Any]:
        # Something to compile and to warm up on, in a cache of its own.
        small = loading.load([*chosen, "task.limit=8", *settings_arguments])
        await of_layout(small, connected, "trie")
        return {layout: await of_layout(config, connected, layout) for layout in ("reference", "trie")}

    layouts = with_server(config, measure)
    reference, trie = layouts["reference"], layouts["trie"]
    printed(
        {
            "n": int(mine["n"]),
            "model": config.model.name,
            "block_size": trie["block_size"],
            "layouts": layouts,
            "ratio_computed": reference["computed_tokens"] / trie["computed_tokens"],
            "ratio_wall": reference["wall_s"] / trie["wall_s"],
            "trie_over_ideal": trie["computed_tokens"] / trie["ideal_tokens"],
        }
    )


if __name__ == "__main__":
    main()
