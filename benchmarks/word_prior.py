"""`python -m benchmarks.word_prior model=smol`: zero-shot labels with and without search.word_prior, and calibrated.

The built-in topics, each asked alone, with label words of one to three tokens and of one token: log P of each word after the
premise, examples of each label, and agreement with gold labels.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.objectives import UNEQUAL
from benchmarks.serving import Connect, arguments, with_server
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.core.energy import Values, worth
from icm_hpc.core.layout import Query
from icm_hpc.core.types import Annealing, LabelNumber
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring import word_prior
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import of_tokens
from icm_hpc.tasks import gold, topics

COLUMNS = ("label words", "log P after the premise", "scores", "examples of each label", "agreement")


async def measured(client: Client, words: Sequence[str], folder: Path, rest: Sequence[str]) -> list[str]:
    """Ask for every example alone; return the rows of the table."""
    config = loading.load(["task=topics", f"task.label_words={json.dumps(list(words))}", *rest])
    task, known = tasks.load(config.task, seed=0), gold.load(config.task)
    true, n = np.array([known[str(example.id)] for example in task.examples]), len(task.examples)
    prior, tokens = await word_prior.of_run(RunDir(folder), client, task), await of_tokens(client, task)
    alone = tokens.write([Query(index, ()) for index in range(n)], np.zeros(n, dtype=LabelNumber))
    scores: Values = await tokens.score(client, alone)
    calibrated = Annealing(objective="calibrated")
    ways = {
        "as they are": scores,
        "less the prior": scores - prior,
        "calibrated": worth(calibrated, scores),
        "calibrated, less the prior": worth(calibrated, scores - prior),
    }
    shown = f"| {', '.join(word.strip() for word in words)} | {', '.join(f'{value:.1f}' for value in prior)}"
    found = {name: values.argmax(axis=1) for name, values in ways.items()}
    return [
        f"{shown} | {name} | {', '.join(map(str, np.bincount(labels, minlength=len(words))))} | {(labels == true).mean():.2f} |"
        for name, labels in found.items()
    ]


def main() -> None:
    """Run the benchmark."""
    _, rest = arguments({})

    async def measure(folder: Path, connected: Connect) -> Any:
        print(f"| {' | '.join(COLUMNS)} |")
        print("|---" * len(COLUMNS) + "|")
        async with connected() as client:
            for number, words in enumerate((UNEQUAL, topics.WORDS)):
                print(*await measured(client, words, folder / f"words-{number}", rest), sep="\n", flush=True)

    with_server(loading.load(["task=topics", *rest]), measure)


if __name__ == "__main__":
    main()
