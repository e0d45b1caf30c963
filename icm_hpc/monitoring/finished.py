"""Whether a run has all that its settings ask for: apart from state.py, which `status` uses without loading arrays."""

from typing import Any

from ..config.schema import Config
from ..config.searching import budget_of
from ..heldout import conditions
from ..rundir import checkpoint
from ..rundir.files import read_json
from ..rundir.folder import RunDir
from ..rundir.polling import COMMAND_S, block_until_done


def is_finished(run_dir: RunDir, config: Config) -> bool:
    """Return whether the labels are there, of as many steps, scorings, restarts and conditions as the settings ask for."""
    summary = block_until_done(lambda: read_json(run_dir.summary), COMMAND_S)
    if summary is None or not run_dir.labels.exists():
        return False
    for number, figures in enumerate(summary["shards"]):
        budget = budget_of(config.search, figures["examples"])
        searches = figures.get("searches") or _saved_searches(run_dir, number)
        if len(searches) < config.search.restarts:
            return False
        if not all(one["settled"] or budget.is_spent(one["steps"], one["scorings"]) for one in searches):
            return False
    return conditions.is_finished(run_dir, config)


def _saved_searches(run_dir: RunDir, number: int) -> list[dict[str, Any]]:
    """Return how far the searches of a shard came, as their saved states have it: of a summary that does not say so."""
    found = (checkpoint.load_newest(folder) for folder in sorted(run_dir.path.glob(f"{run_dir.shard(number).name}*")))
    return [{"settled": False, "steps": one.state.step, "scorings": one.scorings} for one in found if one]
