"""`python -m benchmarks.applied rows=5000 pool=48 model=tiny`: what new rows cost behind the pool of a finished run.

Runs the commands of a user: a run on the built-in reviews, then `icm_hpc.apply` on generated sentences. Prints tokens sent,
computed (the server's own counters), and the sum of the rows' own tokens. Rows begin alike, so their own tokens are more than
what has to be computed.
"""

import asyncio
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.serving import arguments, printed
from icm_hpc import tasks
from icm_hpc.config.loading import load_file
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring import prompts
from icm_hpc.scoring.tokenizer import LocalTokenizer
from icm_hpc.serving import weights

THINGS = ("lamp", "kettle", "chair", "radio", "tent", "bag", "mug", "clock", "shoe", "desk")
WORDS = ("great", "awful", "solid", "flimsy", "warm", "noisy", "handy", "slow", "bright", "dull")


def sentences(count: int) -> list[str]:
    """Return as many lines of JSON, each with its number in its text."""
    draw = random.Random(0)  # noqa: S311 - no secret
    texts = (
        f"The {draw.choice(THINGS)} number {i} is {draw.choice(WORDS)} and {draw.choice(WORDS)}." for i in range(count)
    )
    return [json.dumps({"id": f"new-{i}", "text": text}) for i, text in enumerate(texts)]


def own_tokens(run_dir: RunDir) -> tuple[int, int]:
    """Return the tokens of all rows by themselves, and those of the pool that is shown before each."""
    config = load_file(run_dir.config)
    tokenizer = LocalTokenizer(config.model.name, weights.on_disk(config.model))
    seed = config.search.seed
    rows, pool = (tasks.load(config.task, seed=seed, copy=copy) for copy in (run_dir.data, run_dir.pool_data))
    written = asyncio.run(prompts.of_tokens(tokenizer, rows))
    shown = asyncio.run(prompts.of_tokens(tokenizer, pool))
    return sum(map(len, written.lengths.texts)), shown.longest_after(0)


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"rows": "5000", "pool": "48", "model": "tiny"})
    with tempfile.TemporaryDirectory(prefix="icm-applied-") as folder:
        root, data = Path(folder), Path(folder) / "rows.jsonl"
        data.write_text("\n".join(sentences(int(mine["rows"]))))
        here = f"run.root={root}"
        first = [f"model={mine['model']}", f"task.limit={mine['pool']}", "search.steps=3", "run.name=pool", here, *rest]
        for command, words in (("submit", first), ("apply", ["run=pool", f"task.data={data}", here])):
            subprocess.run([sys.executable, "-m", f"icm_hpc.{command}", *words], check=True, stdout=sys.stderr)
        run_dir = RunDir(root / "pool-apply")
        since = json.loads(run_dir.summary.read_text())["since_start"]
        own, shown = own_tokens(run_dir)
    printed(
        {
            "rows": since["prompts"],
            "tokens_sent": since["prompt_tokens"],
            "tokens_computed": since["server_computed_tokens"],
            "tokens_of_rows": own,
            "tokens_of_pool": shown,
        }
    )


if __name__ == "__main__":
    main()
