"""`python -m benchmarks.agreement data=../shared/data model=smol seeds=5`: what the search adds to the model, by task.

Agreement with gold of four labellings of the same examples by the same model: the search (ICM); zero-shot (each example
alone); random labels (each example after all others, which carry random balanced labels); and majority (the better of
one label for all). One server for all; each seed draws its own examples and seed labels. Prints a table, and JSON with
`out=FILE`; means and standard errors over seeds. Annealing after the first ones are those of every run, as
`search.steps=60`; `tasks=reviews,topics` picks tasks.
"""

import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import Connect, arguments, with_server
from icm_hpc import evaluate, tasks
from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.core.layout import Query
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.driver import run
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import of_tokens
from icm_hpc.scoring.scorer import Scorer

# Task -> file under `data`, and pools small enough for a model on two CPU cores.
SUITE: dict[str, tuple[str | None, int]] = {
    "reviews": (None, 16),
    "topics": (None, 12),
    "truthfulqa": ("truthfulqa_train.json", 12),
    "truthfulqa-preference": ("truthfulqa_preference.json", 12),
    "gsm8k": ("gsm8k_verification.json", 8),
}
LABELLINGS = ("icm", "zero_shot", "random_labels", "majority")


async def of_seed(config: Config, folder: Path, client: Client) -> dict[str, float]:
    """Return the agreement of each labelling of one seed's examples, and whether the search was degenerate."""
    run_dir = RunDir(folder)
    run_dir.create()
    summary = await run.label(config, run_dir, client, lambda _: None)
    task = tasks.load(config.task, seed=config.search.seed)
    problem = task.problem()
    scorer = Scorer(client, await of_tokens(client, task), problem, config.search.layout)
    random = np.random.default_rng(config.search.seed).permutation(np.arange(problem.n) % problem.n_labels)
    (few_shot,) = await scorer.answer([ScorePool(frozen_labels(random), "eval")])
    zero_shot = await scorer.score([([Query(i, ()) for i in range(problem.n)], frozen_labels(random))])
    searched = evaluate.of_run(config, run_dir)
    if searched is None:
        raise ValueError(f"task {config.task.name}: the data have no gold labels to compare with")
    shares = {"icm": searched.share, "majority": searched.majority}
    for name, scores in (("random_labels", few_shot), ("zero_shot", zero_shot)):
        chosen = {str(e.id): int(np.argmax(row)) for e, row in zip(task.examples, scores, strict=True)}
        found = evaluate.agreement(config.task, chosen)
        shares[name] = found.share if found else float("nan")
    return {**shares, "warned": float(not all(one["beats_one_label_for_all"] for one in summary["shards"]))}


def summarised(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean and standard error over seeds."""
    columns = {name: [row[name] for row in rows] for name in LABELLINGS}
    figures = {
        name: {
            "mean": statistics.mean(values),
            "standard_error": statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan"),
            "seeds": values,
        }
        for name, values in columns.items()
    }
    return {**figures, "degenerate_searches": int(sum(row["warned"] for row in rows))}


def row_of_table(name: str, examples: int, figures: dict[str, Any]) -> str:
    """Return a task's row of the table."""
    cells = [f"{figures[key]['mean']:.2f} ± {figures[key]['standard_error']:.2f}" for key in LABELLINGS]
    return f"| {name} | {examples} | {' | '.join(cells)} | {figures['degenerate_searches']} |"


async def measure(variants: dict[str, Config], folder: Path, connected: Connect, seeds: int) -> Any:
    """Return the figures of all tasks."""
    measured = {}
    async with connected() as client:
        print("| task | examples | ICM | zero-shot | random labels | majority | searches warned of |")
        print("|---|---|---|---|---|---|---|")
        for name, settings in variants.items():
            rows, began = [], time.monotonic()
            for seed in range(seeds):
                mine = dataclasses.replace(settings, search=dataclasses.replace(settings.search, seed=seed))
                rows.append(await of_seed(mine, folder / f"{name}-{seed}", client))
                print(f"{name}, seed {seed}, {time.monotonic() - began:.0f} s: {rows[-1]}", file=sys.stderr)
            measured[name] = {"examples": settings.task.limit, **summarised(rows)}
            print(row_of_table(name, settings.task.limit or 0, measured[name]), flush=True)
    return measured


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"seeds": "5", "data": "../shared/data", "tasks": ",".join(SUITE), "out": ""})
    variants = {}
    for name in mine["tasks"].split(","):
        file, limit = SUITE[name]
        chosen = [f"task={name}", f"task.limit={limit}", *([f"task.data={Path(mine['data']) / file}"] if file else [])]
        variants[name] = loading.load([*chosen, *rest])

    async def of_all(folder: Path, connected: Connect) -> Any:
        return await measure(variants, folder, connected, int(mine["seeds"]))

    measured = with_server(next(iter(variants.values())), of_all)
    if mine["out"]:
        Path(mine["out"]).write_text(json.dumps({"arguments": sys.argv[1:], "tasks": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
