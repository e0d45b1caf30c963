"""The figures of a run, as summary.json holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config.schema import Config
from ..rundir.folder import ServedModel


@dataclass(frozen=True, slots=True)
class Summary:
    """summary.json: the figures of a run. docs/outputs.md describes those of its shards and of this start."""

    task: str
    model: str
    served_model: (
        dict[str, str | None] | None
    )  # its server's name for the model, and what that server loaded, if it says
    protocol: str
    method: str
    seed: int
    examples: int
    labelled_by_search: int
    labelled_by_completion: int  # by the last pass
    label_counts: dict[str, int]  # by label word
    energy: float  # of the labels of all examples; mean over shards
    conflicts: int  # pairs of the result that break a rule
    steps: int  # of the best search of each shard, summed
    flips: int  # accepted proposals of these
    restarts_agree: (
        float | None
    )  # pairwise share of examples in which restarts agree (aligned), mean; null with one search
    shards: Sequence[dict[str, Any]]  # figures of each shard
    since_start: dict[str, Any]  # counts of this start of the run, all measured


def summary_of(
    config: Config, shards: Sequence[dict[str, Any]], since_start: dict[str, Any], served: ServedModel | None
) -> Summary:
    """Return the figures of a run; `since_start` counts what this start of it did, all measured."""

    def total(key: str) -> Any:
        return sum(figures[key] for figures in shards)

    words = shards[0]["label_counts"]
    return Summary(
        task=config.task.name,
        model=config.model.name,
        served_model={"name": served.name, "root": served.root} if served else None,
        protocol=config.search.protocol,
        method=config.search.method,
        seed=config.search.seed,
        examples=total("examples"),
        labelled_by_search=total("labelled_by_search"),
        labelled_by_completion=total("examples") - total("labelled_by_search"),
        label_counts={word: sum(figures["label_counts"][word] for figures in shards) for word in words},
        energy=total("energy") / len(shards),
        conflicts=total("conflicts"),
        steps=total("steps"),
        flips=total("flips"),
        restarts_agree=_mean([figures["restarts_agree"] for figures in shards]),
        shards=shards,
        since_start=since_start,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
