"""`python -m benchmarks.methods model=smol tasks=reviews:24,topics:48 methods=blocks,single seeds=5`: methods side by side.

Each method labels the same examples with the same served model, from an empty prefix cache. For each task and method the table
has, over seeds: the energy of the labels of all examples, agreement with gold, tokens that the server computed (its own
counters), scorings of the pool, wall-clock, and the runs that were warned of. Seeds count from search.seed. `data=FOLDER` has
the files of tasks without built-in rows; other arguments are settings of every run. `out=FILE` gets the figures of each seed
as JSON.
"""

import dataclasses
import json
import secrets
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import Connect, arguments, counted, with_server
from icm_hpc import evaluate
from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.driver import run
from icm_hpc.driver.summary import from_json, warnings
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring.client import Client

FILES = {
    "truthfulqa": "truthfulqa_train.json",
    "truthfulqa-preference": "truthfulqa_preference.json",
    "gsm8k": "gsm8k_verification.json",
}
# What is compared, and its settings. "published" is the published loop: its order of prompts, and nothing remembered.
METHODS: dict[str, list[str]] = {
    "blocks": ["search.method=blocks"],
    "blocks x4": ["search.method=blocks", "search.restarts=4"],
    "blocks margin": ["search.method=blocks", "search.objective=margin"],
    "blocks calibrated": ["search.method=blocks", "search.objective=calibrated"],
    "single": ["search.method=single"],
    "published": ["search.method=single", "search.layout=reference", "search.memo_mb=0"],
    "bootstrap": ["search.method=bootstrap"],
    "zero_shot": ["search.method=zero_shot"],
    "random": ["search.method=random"],
}
COLUMNS = (
    *("task", "examples", "method", "energy: mean; worst", "agreement: mean ± s.e.; worst"),
    *("computed tokens", "scorings", "wall-clock, s", "warned"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a method."""

    energy: float  # of the labels of all examples
    agreement: float  # NaN without gold labels
    computed_tokens: int  # by the server's counters
    scorings: int  # of the pool, in the best search
    wall_s: float
    restarts_agree: float | None
    permuted_p: float | None  # the greatest of a shard
    label_counts: dict[str, int]
    warned: bool


def seeds_from(config: Config, count: str) -> range:
    """Return so many seeds, from search.seed on."""
    return range(config.search.seed, config.search.seed + int(count))


async def measured(config: Config, folder: Path, client: Client) -> Run:
    """Label the examples of one seed."""
    run_dir = RunDir(folder)
    run_dir.create()
    salted = client.salted(secrets.token_hex(8))
    summary, cost = await counted(salted, run.label(config, run_dir, salted, lambda _: None))
    found = evaluate.of_run(config, run_dir)
    return Run(
        energy=summary["energy"],
        agreement=found.share if found else float("nan"),
        computed_tokens=cost.computed_tokens,
        scorings=sum(one["searches"][one["restart"]]["scorings"] for one in summary["shards"]),
        wall_s=cost.wall_s,
        restarts_agree=summary["restarts_agree"],
        permuted_p=max((one["permuted_p"] for one in summary["shards"] if one["permuted_p"] is not None), default=None),
        label_counts=summary["label_counts"],
        warned=any(warnings(from_json(summary))),
    )


def row(task: str, examples: int, method: str, runs: list[Run]) -> str:
    """Return a row of the table."""
    energies, shares = [one.energy for one in runs], [one.agreement for one in runs]
    error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    means = [statistics.mean(getattr(one, name) for one in runs) for name in ("computed_tokens", "scorings", "wall_s")]
    return (
        f"| {task} | {examples} | {method} | {statistics.mean(energies):.1f}; {min(energies):.1f}"
        f" | {statistics.mean(shares):.2f} ± {error:.2f}; {min(shares):.2f} | {means[0]:,.0f} | {means[1]:.0f}"
        f" | {means[2]:.0f} | {sum(one.warned for one in runs)} of {len(runs)} |"
    )


def main() -> None:
    """Run the benchmark."""
    defaults = {"seeds": "5", "data": "../shared/data", "tasks": "reviews:24", "methods": "blocks,single", "out": ""}
    mine, rest = arguments(defaults)
    methods = mine["methods"].split(",")
    configs: dict[tuple[str, int, str], Config] = {}
    for word in mine["tasks"].split(","):
        task, _, limit = word.partition(":")
        data = [f"task.data={Path(mine['data']) / FILES[task]}"] if task in FILES else []
        for method in methods:
            words = [f"task={task}", f"task.limit={limit}", *data, *rest, *METHODS[method]]
            configs[task, int(limit), method] = loading.load(words)

    async def measure(folder: Path, connected: Connect) -> Any:
        found: dict[str, list[dict[str, Any]]] = {}
        print(f"| {' | '.join(COLUMNS)} |")
        print("|---" * len(COLUMNS) + "|")
        async with connected() as client:
            for (task, limit, method), settings in configs.items():
                runs = []
                for seed in seeds_from(settings, mine["seeds"]):
                    seeded = dataclasses.replace(settings, search=dataclasses.replace(settings.search, seed=seed))
                    runs.append(await measured(seeded, folder / f"{task}-{method}-{seed}".replace(" ", "-"), client))
                    print(f"{task}, {method}, seed {seed}: {runs[-1]}", file=sys.stderr)
                found[f"{task}:{limit} {method}"] = [asdict(one) for one in runs]
                print(row(task, limit, method, runs), flush=True)
        return found

    found = with_server(next(iter(configs.values())), measure)
    if mine["out"]:
        Path(mine["out"]).write_text(json.dumps({"arguments": sys.argv[1:], "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
