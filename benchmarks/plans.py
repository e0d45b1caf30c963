"""`python -m benchmarks.plans data=../shared/data/truthfulqa_train.json`: the table of docs/planning.md, what fits where.

256 claims of TruthfulQA, the default search; each preset as it is, on each kind of hardware. Nothing is measured: arithmetic.
Other arguments are settings of every plan, such as `search.method=single`.
"""

from pathlib import Path

from benchmarks.serving import arguments
from icm_hpc import tasks
from icm_hpc.capacity.found import Plan
from icm_hpc.capacity.plan import plan
from icm_hpc.config import loading

HARDWARE = {
    "8 x A100-80": ("cluster.gpu=A100-80", "cluster.max_nodes=1"),
    "8 x H100": ("cluster.gpu=H100", "cluster.max_nodes=1"),
    "2 nodes x 8 H100": ("cluster.gpu=H100", "cluster.max_nodes=2"),
    "8 x H200": ("cluster.gpu=H200", "cluster.max_nodes=1"),
}
PRESETS = {
    **{name: (f"model={name}",) for name in ("8B", "70B", "405B", "405B-FP8", "smol", "tiny")},
    "405B as published, TP 8": ("model=405B", "model.pipeline_parallel_size=1"),
    "8B with the published context": ("model=8B", "model.max_model_len=8192"),
}


def main() -> None:
    """Print the table."""
    mine, rest = arguments({"data": "../shared/data/truthfulqa_train.json"})
    data = f"task.data={Path(mine['data']).resolve()}"
    print(
        "| preset | hardware | fits | GPUs | of each: weights + activations, left for cache (GB) | minutes, GPU-hours |"
    )
    print("|---|---|---|---|---|---|")
    for preset, chosen in PRESETS.items():
        verdicts: dict[str, list[str]] = {}
        for name, hardware in HARDWARE.items():
            words = [*chosen, "task=truthfulqa", data, "cluster.executor=slurm", "cluster.node_gpus=8"]
            config = loading.load([*words, *hardware, *rest])
            found = plan(config, tasks.load(config.task, seed=0))
            verdicts.setdefault(_verdict(found), []).append(name)
        for verdict, names in verdicts.items():
            print(f"| {preset} | {', '.join(names) if len(names) < len(HARDWARE) else 'all four'} | {verdict} |")


def _verdict(found: Plan) -> str:
    figures = found.figures
    memory, hours = figures.get("gpu_memory_gb"), figures.get("forecast_hours")
    split = (
        f"{memory['weights']:.0f} + {memory['activations']:.0f}, {memory['cache']:.0f}"
        if memory and found.fits
        else "-"
    )
    took = f"{60 * hours:.0f}, {figures['forecast_gpu_hours']:.1f}" if hours and found.fits else "-"
    fits = "yes" if found.fits else f"no: {'; '.join(found.misfits)}. Fits: {'; or '.join(found.remedies)}"
    return f"{fits} | {figures['gpus']} | {split} | {took}"


if __name__ == "__main__":
    main()
