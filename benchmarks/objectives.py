"""`python -m benchmarks.objectives model=smol seeds=5`: the margin and the calibrated objective side by side, on real data.

Of the same examples: the published margin; calibrated with no prior, with the true shares of labels as the prior, with the
shares that zero-shot labels have, and with search.label_prior=estimated; and zero-shot labels. `alone` are the reviews
without their pairs, so without a rule; `unbalanced` are such reviews of which 80 % are positive; `headlines` are the topics
without their pairs, with label words of one to three tokens. Agreement is with gold labels; a run has collapsed if one label
has 95 % of the examples.
`by=margin;calibrated` compares these only, and `by="margin;margin, word prior"` with search.word_prior. `data=FOLDER` has the
files of tasks without built-in rows; `out=FILE` gets each seed's figures as JSON.
"""

import dataclasses
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import FILES, Run, measured, seeds_from
from benchmarks.serving import Connect, arguments, with_server
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.scoring.client import Client
from icm_hpc.tasks import gold

COLUMNS = (
    "task",
    "examples",
    "labels by",
    "agreement: mean ± s.e.; worst",
    "labels of the largest",
    "collapsed",
    "warned",
)
COLLAPSED = 0.95  # share of one label
SHARE = 0.8  # of positive reviews among the unbalanced
OBJECTIVES: dict[str, dict[str, Any]] = {
    "margin": {"objective": "margin"},
    "calibrated": {},
    "calibrated, true prior": {},
    "calibrated, zero-shot prior": {},
    "calibrated, estimated prior": {"label_prior": "estimated"},
    "zero-shot": {"method": "zero_shot"},
}
WORD_PRIOR: dict[str, dict[str, Any]] = {  # compared if they are named
    "margin, word prior": {"objective": "margin", "word_prior": True},
    "calibrated, word prior": {"word_prior": True},
    "zero-shot, word prior": {"method": "zero_shot", "word_prior": True},
}
UNEQUAL = [" sports", " food and drink", " music", " personal finance"]
WITHOUT_PAIRS = {"alone": "reviews", "unbalanced": "reviews", "headlines": "topics"}  # whose built-in rows they are


def written(folder: Path, name: str) -> Path:
    """Write rows without their pairs; of the unbalanced, as many as can be."""
    data = tasks.TASKS[WITHOUT_PAIRS[name]].data
    assert data is not None
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    alone = [{key: value for key, value in row.items() if key != "pair"} for row in rows]
    if name == "unbalanced":
        of = {label: [row for row in alone if row["label"] == label] for label in (0, 1)}
        order = {label: np.random.default_rng(0).permutation(len(of[label])) for label in of}
        fewer = order[0][: round(len(of[1]) * (1 - SHARE) / SHARE)]
        alone = [*(of[1][place] for place in order[1]), *(of[0][place] for place in fewer)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in alone))
    return path


def settings_of(task: str, limit: str, data: Path, folder: Path, rest: Sequence[str]) -> Config:
    """Return the settings of a task's runs."""
    words = [f"task={task}", *rest]
    if task in WITHOUT_PAIRS:
        named = [f"task.label_words={json.dumps(UNEQUAL)}"] if task == "headlines" else []
        words = [f"task={WITHOUT_PAIRS[task]}", *named, f"task.data={written(folder, task)}", *rest]
    elif task in FILES:
        words.append(f"task.data={data / FILES[task]}")
    return loading.load([*words, f"task.limit={limit}"])


def prior(config: Config, labels: Sequence[int], n_labels: int) -> Config:
    """Return the settings with the shares of these labels as the prior, none of them 0."""
    counts = [labels.count(label) + 0.5 for label in range(n_labels)]
    return dataclasses.replace(config, search=dataclasses.replace(config.search, label_prior=counts))


async def of_seed(config: Config, ways: Sequence[str], folder: Path, client: Client) -> dict[str, Run]:
    """Label the examples of one seed in each of these ways, zero-shot first."""
    task = tasks.load(config.task, seed=config.search.seed)
    known, words = gold.load(config.task), [word.strip() for word in task.label_words]
    true = [known[str(example.id)] for example in task.examples]
    found: dict[str, Run] = {}
    for name in sorted(ways, key=lambda name: name != "zero-shot"):
        own = config
        if name.endswith("true prior"):
            own = prior(config, true, len(words))
        elif name.endswith("zero-shot prior"):
            counts = Counter(found["zero-shot"].label_counts)
            own = prior(config, [place for place, word in enumerate(words) for _ in range(counts[word])], len(words))
        search = dataclasses.replace(own.search, **{**OBJECTIVES, **WORD_PRIOR}[name])
        found[name] = await measured(dataclasses.replace(own, search=search), folder / name.replace(" ", "-"), client)
    return found


def row(task: str, limit: str, name: str, runs: Sequence[Run]) -> str:
    """Return a row of the table."""
    shares = [one.agreement for one in runs]
    error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    largest = [max(one.label_counts.values()) / sum(one.label_counts.values()) for one in runs]
    return (
        f"| {task} | {limit} | {name} | {statistics.mean(shares):.2f} ± {error:.2f}; {min(shares):.2f}"
        f" | {statistics.mean(largest):.2f} | {sum(one >= COLLAPSED for one in largest)} of {len(runs)}"
        f" | {sum(one.warned for one in runs)} of {len(runs)} |"
    )


def main() -> None:
    """Run the benchmark."""
    wanted = "alone:48,unbalanced:48,reviews:48,topics:48,truthfulqa:24,gsm8k:24"
    mine, rest = arguments(
        {"seeds": "5", "data": "../shared/data", "tasks": wanted, "by": ";".join(OBJECTIVES), "out": ""}
    )
    ways = mine["by"].split(";")

    async def measure(folder: Path, connected: Connect) -> Any:
        found: dict[str, list[dict[str, Any]]] = {}
        print(f"| {' | '.join(COLUMNS)} |")
        print("|---" * len(COLUMNS) + "|")
        async with connected() as client:
            for word in mine["tasks"].split(","):
                task, _, limit = word.partition(":")
                config = settings_of(task, limit, Path(mine["data"]), folder, rest)
                seeds = []
                for seed in seeds_from(config, mine["seeds"]):
                    seeded = dataclasses.replace(config, search=dataclasses.replace(config.search, seed=seed))
                    place = folder / f"{task}-{seed}"
                    place.mkdir()
                    seeds.append(await of_seed(seeded, ways, place, client))
                    print(f"{task}, seed {seed}: {seeds[-1]}", file=sys.stderr, flush=True)
                for name in ways:
                    runs = [one[name] for one in seeds]
                    found[f"{word} {name}"] = [asdict(one) for one in runs]
                    print(row(task, limit, name, runs), flush=True)
        return found

    found = with_server(loading.load(["task=reviews", *rest]), measure)
    if mine["out"]:
        Path(mine["out"]).write_text(json.dumps({"arguments": sys.argv[1:], "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
