"""`python -m benchmarks.forecast data=../shared/data/truthfulqa_train.json n=256 steps=1500`: the table of forecasts.

Tokens are those of SmolLM2's tokenizer (model=smol; Llama's makes about as many); seconds are capacity/forecast.py's roofline.
A run is one scoring a step, one label changed each: an upper bound for a task without conflict rules.
"""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import arguments
from icm_hpc import tasks
from icm_hpc.capacity.forecast import GPUS, ModelShape, seconds, shape_of
from icm_hpc.config import loading
from icm_hpc.core.cost import Cost, Lengths, scoring_cost
from icm_hpc.core.layout import LAYOUTS
from icm_hpc.scoring import prompts
from icm_hpc.scoring.tokenizer import LocalTokenizer
from icm_hpc.serving import weights

# Model, GPU, GPUs in all, dtype, bytes of a key or value, tokens a step.
ROWS = (
    ("405B", "H100", 8, "fp8", 2, 32768),
    ("405B", "H100", 16, "bf16", 2, 32768),
    ("70B", "H100", 4, "bf16", 2, 16384),
    ("8B", "H100", 1, "bf16", 2, 8192),
)


def lengths_of(data: str, n: int) -> tuple[tasks.Task, Lengths]:
    """Return claims of a file, and their tokens."""
    config = loading.load(["model=smol", "task=truthfulqa", f"task.data={data}", f"task.limit={n}"])
    task = tasks.load(config.task, seed=0)
    tokenizer = LocalTokenizer("smol", Path(weights.locate(config.model)))
    return task, asyncio.run(prompts.of_tokens(tokenizer, task)).lengths


def shape_of_preset(name: str) -> ModelShape:
    """Return the shape that a preset of configs/model states."""
    shape = shape_of(loading.load([f"model={name}"]).model.shape)
    assert shape is not None
    return shape


def main() -> None:
    """Print the table."""
    mine, _ = arguments({"data": "../shared/data/truthfulqa_train.json", "n": "256", "steps": "1500", "block": "16"})
    task, lengths = lengths_of(str(Path(mine["data"]).resolve()), int(mine["n"]))
    groups, everything = task.problem().groups, np.arange(len(task.examples))
    tokens = np.array([lengths.demonstration(i) for i in range(len(everything))], dtype=np.int64)
    cold: dict[str, Cost] = {}
    warm: dict[str, Any] = {}
    for name in ("reference", "trie"):
        queries = LAYOUTS[name].arrange(everything, everything, groups, tokens, "eval")
        cold[name] = scoring_cost(queries, lengths, int(mine["block"]))
        changes = range(0, len(everything), max(1, len(everything) // 16))
        warm[name] = [scoring_cost(queries, lengths, int(mine["block"]), changed=j) for j in changes]
    print(f"n={len(everything)}, block size {mine['block']}, prompts of up to {cold['trie'].longest_prompt} tokens\n")
    print(
        "| layout | tokens sent | computed, empty cache | hit rate | held in the cache | computed, one label changed |"
    )
    print("|---|---|---|---|---|---|")
    for name, one in cold.items():
        changed = np.mean([w.computed_tokens for w in warm[name]])
        shares = f"{one.hit_rate:.1%} | {one.held_tokens:,}"
        print(f"| {name} | {one.prompt_tokens:,} | {one.computed_tokens:,} | {shares} | {changed:,.0f} |")
    steps = int(mine["steps"])
    print(f"\nForecast, not measured: seconds a scoring, and hours a run of {steps} steps with a scoring each.\n")
    print(
        "| model | GPUs | dtype | layout | KV held (GB) | a scoring, empty cache (s) | one label changed (s) | a run (h) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for model, gpu, count, dtype, kv_bytes, batch in ROWS:
        for name, one in cold.items():
            shape = shape_of_preset(model)
            held = one.held_tokens * shape.kv_bytes(kv_bytes) / 1e9
            first = seconds(one, shape, GPUS[gpu], count, dtype, batch_tokens=batch)
            # What does not fit beside the weights is computed again each time.
            memory = GPUS[gpu].memory_gb * 0.9 * count - shape.parameters * {"bf16": 2, "fp8": 1}[dtype] / 1e9
            fits = held <= memory
            later = float(np.mean([seconds(w, shape, GPUS[gpu], count, dtype, batch_tokens=batch) for w in warm[name]]))
            each = later if fits else first
            note = "" if fits else " (does not fit)"
            row = f"{held:,.0f}{note} | {first:.1f} | {each:.1f} | {(first + (steps - 1) * each) / 3600:.1f}"
            print(f"| {model} | {count} x {gpu} | {dtype} | {name} | {row} |")


if __name__ == "__main__":
    main()
