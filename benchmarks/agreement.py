"""`python -m benchmarks.agreement model=smol task=reviews task.limit=24 seeds=5`: what the search adds to the model.

Agreement with gold of the search, and of what the same model says of the same examples without it: zero-shot (no
demonstration) and with all other examples as demonstrations that carry random balanced labels. One server, several seeds
(each draws its own examples); prints JSON with the mean and standard error over seeds.
"""

import asyncio
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from icm_hpc import cluster, config, connect, driver, evaluate, tasks
from icm_hpc.client import Client
from icm_hpc.config import Config
from icm_hpc.core.layout import Query
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.prompts import of_tokens
from icm_hpc.rundir import RunDir, new_attempt, write_atomically
from icm_hpc.scorer import Scorer, Work


async def of_seed(settings: Config, folder: Path, client: Client) -> dict[str, float]:
    """Return the agreement of the three labellings of one seed's examples."""
    run_dir = RunDir(folder)
    run_dir.create()
    await driver.label(settings, run_dir, client, lambda _: None)
    searched = evaluate.of_run(settings, run_dir)
    task = tasks.load(settings.task, seed=settings.search.seed)
    problem = task.problem()
    scorer = Scorer(client, await of_tokens(client, task), problem, settings.search.layout, Work())
    random = np.random.default_rng(settings.search.seed).permutation(np.arange(problem.n) % problem.n_labels)
    few_shot = await scorer.answer(ScorePool(frozen_labels(random), "eval"))
    zero_shot = await scorer.score([Query(i, ()) for i in range(problem.n)], frozen_labels(random))
    found = {"search": searched}
    for name, scores in (("random_demonstrations", few_shot), ("zero_shot", zero_shot)):
        chosen = {e.id: int(np.argmax(row)) for e, row in zip(task.examples, scores, strict=True)}
        found[name] = evaluate.agreement(settings.task, chosen)
    shares = {name: agreement.share for name, agreement in found.items() if agreement}
    return {**shares, "majority": searched.majority if searched else float("nan")}


async def measure(settings: Config, run_dir: RunDir, attempt: str, seeds: int) -> dict[str, Any]:
    """Return the agreements of all seeds, by labelling."""
    by_seed = []
    async with connect.connected(settings, run_dir, attempt) as client:
        for seed in range(seeds):
            mine = dataclasses.replace(settings, search=dataclasses.replace(settings.search, seed=seed))
            by_seed.append(await of_seed(mine, run_dir.path / f"seed-{seed}", client))
            print(f"seed {seed}: {by_seed[-1]}", file=sys.stderr)
    columns = {name: [row[name] for row in by_seed] for name in by_seed[0]}
    return {
        name: {
            "mean": statistics.mean(values),
            "standard_error": statistics.stdev(values) / seeds**0.5,
            "seeds": values,
        }
        for name, values in columns.items()
    }


def main() -> None:
    """Run the benchmark."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    seeds = int(given.pop("seeds", "5"))
    settings = config.load([f"{key}={value}" for key, value in given.items()])
    with tempfile.TemporaryDirectory() as folder:
        run_dir, attempt = RunDir(Path(folder)), new_attempt()
        run_dir.create()
        write_atomically(run_dir.config, config.to_yaml(settings).encode())
        with cluster.local_server(run_dir, attempt):
            result = asyncio.run(measure(settings, run_dir, attempt, seeds))
    described = {"task": settings.task.name, "examples": settings.task.limit, "model": settings.model.name}
    print(json.dumps({**described, "seeds": seeds, "agreement": result}, indent=2))


if __name__ == "__main__":
    main()
