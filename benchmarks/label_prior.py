"""`python -m benchmarks.label_prior n=64 seeds=24`: search.label_prior=estimated, and other estimators, on synthetic data.

Two labels of unequal shares, no rule. The learner prefers one label by 1.5 nats whatever the text; the premise tells that
preference, with an error (nats, standard deviation of a margin). For each prior, over seeds: the mean share that it gives to
the commoner label, and the accuracy of the search. No server and no model.

`python -m benchmarks.label_prior model=smol tasks=reviews,topics`: what the estimators give for the rows of tasks, by a real
model, with `shares` of the last label for tasks of two labels: as many rows as there are. `data=FOLDER` has the files of
tasks without built-in rows.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.learner import Learner
from benchmarks.methods import FILES
from benchmarks.search_quality import annealing_of, problem, searched
from benchmarks.serving import Connect, arguments, with_server
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.core import shares
from icm_hpc.core.energy import Values, counts
from icm_hpc.core.growth import zero_shot_labels
from icm_hpc.core.types import UNLABELLED, Indices, Labels, frozen_labels
from icm_hpc.scoring import label_prior
from icm_hpc.scoring.scorer import Work
from icm_hpc.tasks import gold

PREFERENCE = 1.5  # nats
ROUNDS = 1000  # of EM


def counted(scores: Values) -> tuple[float, ...]:
    """Return the shares of the most probable labels."""
    found = np.array(counts(zero_shot_labels(scores), scores.shape[1])) + shares.PSEUDO_COUNT
    return tuple(found / found.sum())


def maximised(scores: Values) -> tuple[float, ...]:
    """Return the shares under which the scores are most probable, by EM (Saerens et al. 2002)."""
    given = np.exp(scores - np.logaddexp.reduce(scores, axis=1)[:, None])
    found = np.full(scores.shape[1], 1 / scores.shape[1])
    for _ in range(ROUNDS):
        each = given * found
        found = (each / each.sum(axis=1, keepdims=True)).sum(axis=0) + shares.PSEUDO_COUNT
        found /= found.sum()
    return tuple(found)


ESTIMATORS: dict[str, Callable[[Values], tuple[float, ...]]] = {
    "equal": lambda scores: (1 / scores.shape[1],) * scores.shape[1],
    "estimated (mean probability)": shares.estimated,
    "counts": counted,
    "EM": maximised,
}
TRUE = "true"
COLUMNS = ("N", "share", "error of the premise", *ESTIMATORS, TRUE)


def measured(n: int, share: float, error: float, seed: int) -> dict[str, tuple[float, float]]:
    """Return, by prior, the share that it gives to the commoner label, and the accuracy of the search."""
    given = problem("no rule", n)
    learner = Learner(given, seed, shares=(share, 1 - share), preference=PREFERENCE)
    wrong = np.random.default_rng([seed, n]).normal(size=2) * error / np.sqrt(2)
    scores = learner.scores(frozen_labels(np.full(n, UNLABELLED))) - (learner.preferred + wrong)
    found = {}
    for name, prior in {**{name: of(scores) for name, of in ESTIMATORS.items()}, TRUE: (share, 1 - share)}.items():
        annealing = dataclasses.replace(annealing_of("blocks"), label_prior=prior)
        labels, _ = searched("blocks", given, learner, annealing, seed * 100)
        found[name] = (prior[0], float(np.mean(labels == learner.truth)))
    return found


def drawn(true: Labels, share: float, seed: int) -> Indices:
    """Return rows of which a share has label 1: as many as can be, the others have label 0."""
    of = [np.random.default_rng(seed).permutation(np.flatnonzero(true == label)) for label in (0, 1)]
    n = min(len(of[0]) / (1 - share), len(of[1]) / share)
    return np.concatenate([of[0][: round(n * (1 - share))], of[1][: round(n * share)]])


def rows_of_task(name: str, scores: Values, true: Labels, wanted: Sequence[float]) -> Iterator[str]:
    """Yield rows of the table of a real model: for each share, what each estimator gives to each label."""
    everything = np.arange(len(true))
    two = scores.shape[1] == 2
    for rows in [drawn(true, share, 0) for share in wanted] if two else [everything]:
        gold_shares = np.bincount(true[rows], minlength=scores.shape[1]) / len(rows)
        cells = [_listed(gold_shares), *(_listed(of(scores[rows])) for of in ESTIMATORS.values())]
        yield f"| {name} | {len(rows)} | {' | '.join(cells)} |"


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def of_model(names: Sequence[str], wanted: Sequence[float], data: Path, rest: Sequence[str]) -> None:
    """Print what the estimators give by a real model."""

    async def measure(_folder: Path, connected: Connect) -> None:
        print(f"| task | examples | true | {' | '.join(ESTIMATORS)} |")
        print("|---" * (3 + len(ESTIMATORS)) + "|")
        async with connected() as client:
            for name in names:
                rows = [f"task.data={data / FILES[name]}"] if name in FILES else []
                config = loading.load([f"task={name}", f"task.limit={label_prior.SAMPLE}", *rows, *rest])
                task, known = tasks.load(config.task, seed=config.search.seed), gold.load(config.task)
                scores, _ = await label_prior.zero_shot_scores(config, client, task, Work())
                true = frozen_labels([known[str(example.id)] for example in task.examples])
                print(*rows_of_task(name, scores, true, wanted), sep="\n", flush=True)

    with_server(loading.load([f"task={names[0]}", *rest]), measure)


def main() -> None:
    """Run the benchmark."""
    own = {
        "n": "64",
        "seeds": "24",
        "shares": "0.5,0.65,0.8",
        "errors": "0,0.5,1",
        "tasks": "",
        "data": "../shared/data",
    }
    mine, rest = arguments(own)
    if mine["tasks"]:
        of_model(mine["tasks"].split(","), [*map(float, mine["shares"].split(","))], Path(mine["data"]), rest)
        return
    if rest:
        sys.exit(f"not known: {' '.join(rest)}")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    seeds = int(mine["seeds"])
    for n in map(int, mine["n"].split(",")):
        for error in map(float, mine["errors"].split(",")):
            for share in map(float, mine["shares"].split(",")):
                runs = [measured(n, share, error, seed) for seed in range(seeds)]
                cells = []
                for name in runs[0]:
                    given, right = np.array([one[name] for one in runs]).T
                    cells.append(f"{given.mean():.2f}; {right.mean():.2f} ± {right.std(ddof=1) / seeds**0.5:.2f}")
                print(f"| {n} | {share} | {error:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
