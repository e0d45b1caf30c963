"""`python -m benchmarks.label_words n=8`: what label words of one and several tokens cost on real vLLM, and how exact they are.

One scoring of `n` reviews, with label words of four tasks: requests, prompts and computed tokens by the server's counters, and
the greatest difference (nats) of log P(word | prompt) from the same sum over the word's tokens by transformers, in float32.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import Connect, arguments, with_server
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import TokenPrompts, of_tokens
from icm_hpc.scoring.scorer import Scorer
from icm_hpc.serving import weights
from icm_hpc.tasks import Task

PRESETS = ("reviews", "topics", "sst5", "banking77")  # 2, 4, 5 and 77 labels
CHECKED = 2  # prompts whose scores are compared
COLUMNS = (
    "labels",
    "tokens a word",
    "requests",
    "prompts",
    "tokens sent",
    "tokens computed",
    "greatest difference, nats",
)


def words_of(preset: str) -> tuple[str, ...]:
    """Return the label words of a preset."""
    config = loading.load([f"task={preset}", "model=stub"])
    return tasks.family_of(config.task).label_words


async def measured(client: Client, task: Task, model: Any) -> str:
    """Score all examples once; return a row of the table."""
    n_labels = len(task.label_words)
    labels = frozen_labels(np.arange(len(task.examples)) % n_labels)
    tokens = await of_tokens(client, task)
    scorer = Scorer(client, tokens, task.problem(), "trie")
    before, traffic = await client.metrics(), dataclasses.replace(client.traffic)
    (scores,) = await scorer.answer([ScorePool(labels, "eval")])
    after = await client.metrics()
    asked = scorer.arranged(ScorePool(labels, "eval"))[:: max(1, len(task.examples) // CHECKED)]
    found = [
        (scores[query.index], direct(model, json.loads(next(tokens.write([query], labels))), tokens)) for query in asked
    ]
    difference = max(float(np.abs(row - own).max()) for row, own in found)
    lengths = [word.count(b",") for word in tokens.words]
    figures = (
        n_labels,
        f"{min(lengths)} to {max(lengths)}",
        client.traffic.requests - traffic.requests,
        client.traffic.prompts - traffic.prompts,
        f"{client.traffic.prompt_tokens - traffic.prompt_tokens:,}",
        f"{after.computed_tokens - before.computed_tokens:,}",
        f"{difference:.1e}",
    )
    return f"| {' | '.join(map(str, figures))} |"


def direct(model: Any, prompt: Sequence[int], tokens: TokenPrompts) -> Any:
    """Return log P(word | prompt) of each word by transformers: f64[L]."""
    import torch

    sums = []
    for word in (json.loads(b"[" + word[:-1] + b"]") for word in tokens.words):
        with torch.no_grad():
            rows = torch.log_softmax(model(torch.tensor([[*prompt, *word]])).logits[0].double(), dim=-1)
        sums.append(sum(float(rows[len(prompt) - 1 + place, token]) for place, token in enumerate(word)))
    return np.array(sums)


def main() -> None:
    """Run the benchmark."""
    import torch
    from transformers import AutoModelForCausalLM

    mine, rest = arguments({"n": "8", "model": "smol"})
    config = loading.load(["task=reviews", f"task.limit={mine['n']}", f"model={mine['model']}", *rest])
    task = tasks.load(config.task, seed=0)
    model = AutoModelForCausalLM.from_pretrained(weights.locate(config.model), dtype=torch.float32).eval()

    async def measure(_: Path, connected: Connect) -> None:
        async with connected() as client:
            for preset in PRESETS:
                worded = dataclasses.replace(task, label_words=words_of(preset))
                print(await measured(client.salted(preset), worded, model), flush=True)

    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    with_server(config, measure)


if __name__ == "__main__":
    main()
