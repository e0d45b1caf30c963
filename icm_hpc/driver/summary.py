"""The figures of a run, as summary.json holds them."""

from collections.abc import Sequence
from typing import Any

from ..config.schema import Config
from ..rundir.folder import ServedModel


def summary_of(
    config: Config, shards: Sequence[dict[str, Any]], since_start: dict[str, Any], served: ServedModel | None
) -> dict[str, Any]:
    """Return the figures of a run; `since_start` counts what this start of it did, all measured."""

    def total(key: str) -> Any:
        return sum(figures[key] for figures in shards)

    examples = total("examples")
    words = shards[0]["label_counts"]
    return {
        "task": config.task.name,
        "model": config.model.name,
        # Whose scores these are, as its server names it, and what that server loaded, if it says.
        "served_model": served and {"name": served.name, "root": served.root},
        "protocol": config.search.protocol,
        "seed": config.search.seed,
        "examples": examples,
        "labelled_by_search": total("labelled_by_search"),
        "labelled_by_completion": examples - total("labelled_by_search"),
        "label_counts": {word: sum(figures["label_counts"][word] for figures in shards) for word in words},
        "energy": total("energy") / len(shards),  # mean over shards
        "conflicts": total("conflicts"),
        "steps": total("steps"),
        "flips": total("flips"),
        "shards": shards,
        "since_start": since_start,
    }
