"""`python -m benchmarks.run_cost n=32 steps=200 data=../shared/data/truthfulqa_train.json model=tiny`: a whole search.

The published loop (its prompt order, every step asked again, one step at a time) against ours, all with exact scores, each
from an empty cache. Where the layout is equal, decisions must be; `equal_decisions` says whether they were.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.serving import Connect, arguments, counted, empty_cache, printed, with_server
from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.driver import run
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.trace import read_trace

ASKED_AGAIN = ("search.memo_mb=0", "search.ahead=1")
VARIANTS: dict[str, tuple[str, ...]] = {
    "published_loop": ("search.layout=reference", "search.stalled_repair=repeat", *ASKED_AGAIN),
    "published_order": ("search.layout=reference",),
    "trie_asked_again": ("search.layout=trie", *ASKED_AGAIN),
    "trie": ("search.layout=trie",),
}


async def of_variant(config: Config, folder: Path, connected: Connect) -> tuple[dict[str, Any], list[Any]]:
    """Return what a whole run costs, and its decisions."""
    run_dir = RunDir(folder)
    run_dir.create()
    async with empty_cache(connected) as client:
        summary, cost = await counted(client, run.label(config, run_dir, client, lambda _: None))
    energies = ("energy", "proposed_energy")
    steps = [{k: v for k, v in line.items() if k not in energies} for line in read_trace(run_dir.shard(0))]
    scorings = {key: summary["since_start"][key] for key in ("scorings", "scorings_from_memo", "waits")}
    return {**asdict(cost), "hit_rate": cost.hit_rate, **scorings, "flips": summary["flips"]}, steps


def main() -> None:
    """Run the benchmark."""
    defaults = {"n": "32", "steps": "200", "data": "../shared/data/truthfulqa_train.json", "seed": "0", "model": "tiny"}
    mine, rest = arguments(defaults)
    task = ["task=truthfulqa", f"task.data={Path(mine['data']).resolve()}", f"task.limit={mine['n']}"]
    search = ["search.method=single", f"search.steps={mine['steps']}", f"search.seed={mine['seed']}"]
    common = [f"model={mine['model']}", *task, *search, *rest]
    variants = {name: loading.load([*common, *changes]) for name, changes in VARIANTS.items()}

    async def measure(folder: Path, connected: Connect) -> dict[str, Any]:
        return {name: await of_variant(one, folder / name, connected) for name, one in variants.items()}

    measured = with_server(variants["trie"], measure)
    costs = {name: cost for name, (cost, _) in measured.items()}
    decisions = {name: steps for name, (_, steps) in measured.items()}
    keys = ("requests", "prompts", "prompt_tokens", "computed_tokens", "wall_s")
    printed(
        {
            "n": int(mine["n"]),
            "steps": int(mine["steps"]),
            "runs": costs,
            "equal_decisions": {
                "published_order": decisions["published_order"] == decisions["published_loop"],
                "trie": decisions["trie"] == decisions["trie_asked_again"],
            },
            "published_loop_over_trie": {key: costs["published_loop"][key] / costs["trie"][key] for key in keys},
        }
    )


if __name__ == "__main__":
    main()
