"""`python -m benchmarks.running_text prompts=16`: how far the prompts that are sent are from running text, with SmolLM2.

Of each task, prompts of 1 to `prompts` demonstrations with gold labels. The log-probabilities of the labels (nats) after the
tokens of the whole text are compared with those after the tokens that we send, and with those after pieces that are tokenized
by themselves, as before.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from benchmarks.serving import arguments, printed
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.core.layout import Query
from icm_hpc.core.types import frozen_labels
from icm_hpc.scoring import prompts
from icm_hpc.scoring.tokenizer import LocalTokenizer
from icm_hpc.serving import weights
from icm_hpc.tasks import gold


def measured(name: str, n: int) -> dict[str, Any]:
    """Return the differences of one task's prompts from running text."""
    import torch
    from transformers import AutoModelForCausalLM

    config = loading.load(["model=smol", f"task={name}"])
    folder = Path(weights.locate(config.model))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    task, known = tasks.load(config.task, seed=0), gold.load(config.task)
    tokens = asyncio.run(prompts.of_tokens(LocalTokenizer("smol", folder), task))
    labels = frozen_labels([known[str(example.id)] for example in task.examples])

    def encoded(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    def logprobs(ids: Sequence[int]) -> npt.NDArray[np.float64]:
        with torch.no_grad():
            rows = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
        chosen: npt.NDArray[np.float64] = rows[list(tokens.label_ids)].numpy()
        return chosen

    differences: dict[str, list[float]] = {"pieces": [], "sent": []}
    differing = 0
    for asked in range(1, n + 1):
        query = Query(asked, (tuple(range(asked)),))
        shown = [(task.examples[i].text, task.label_words[labels[i]], task.separator) for i in query.demonstrations]
        pieces = [
            token for parts in (*shown, (task.examples[asked].text,)) for part in parts for token in encoded(part)
        ]
        whole = encoded("".join(map("".join, shown)) + task.examples[asked].text)
        sent = json.loads(next(tokens.write([query], labels)))
        differing += sent != whole
        text = logprobs(whole)
        for kind, ids in (("pieces", pieces), ("sent", sent)):
            differences[kind].append(float(np.abs(logprobs(ids) - text).max()))
    figures = {kind: {"mean": float(np.mean(one)), "largest": max(one)} for kind, one in differences.items()}
    return {"prompts": n, "prompts_whose_tokens_differ": differing, "nats": figures}


def main() -> None:
    """Run the benchmark."""
    mine, _ = arguments({"prompts": "16"})
    printed({name: measured(name, int(mine["prompts"])) for name in ("reviews", "topics")})


if __name__ == "__main__":
    main()
