"""Whether a run has all that its settings ask for: apart from state.py, which `status` uses without loading arrays."""

from dataclasses import dataclass
from typing import Any

from ..config.schema import Config
from ..config.searching import budget_of
from ..core.json_values import typed
from ..errors import DamagedFile
from ..exports.lines import lines_of
from ..heldout import conditions
from ..rundir import checkpoint
from ..rundir.files import read_json
from ..rundir.folder import RunDir
from ..rundir.polling import COMMAND_S, block_until_done


@dataclass(frozen=True, slots=True)
class Searched:
    """How far a search came."""

    settled: bool
    steps: int
    scorings: int
    energy: float | None = None


def is_finished(run_dir: RunDir, config: Config) -> bool:
    """Return whether whole labels are there, of as many steps, scorings, restarts and conditions as the settings ask for."""
    try:
        summary = block_until_done(lambda: _summary_of_labels(run_dir), COMMAND_S)
        shards = _shards(run_dir, summary) if summary else None
    except DamagedFile:  # which a start writes again from what was saved
        return False
    if shards is None:
        return False
    for number, (examples, searches) in enumerate(shards):
        budget = budget_of(config.search, examples)
        searches = searches or _saved_searches(run_dir, number)
        if len(searches) < config.search.restarts:
            return False
        if not all(one.settled or budget.is_spent(one.steps, one.scorings) for one in searches):
            return False
    return conditions.is_finished(run_dir, config)


def _summary_of_labels(run_dir: RunDir) -> dict[str, Any] | None:
    """Return the summary if labels.jsonl has a line for each of its examples, else None. Raises DamagedFile."""
    summary: dict[str, Any] | None = read_json(run_dir.summary, dict[str, Any])
    if summary is None or not run_dir.labels.exists():
        return None
    with run_dir.labels.open("rb") as file:
        lines = lines_of(file)
    return summary if len(lines) == summary.get("examples", len(lines)) else None


def _shards(run_dir: RunDir, summary: dict[str, Any]) -> list[tuple[int, list[Searched]]]:
    """Return the examples and the searches of each shard; raises DamagedFile for a summary that does not state them."""
    try:
        figures = typed(list[dict[str, Any]], summary.get("shards"))
        return [(typed(int, one.get("examples")), typed(list[Searched], one.get("searches") or [])) for one in figures]
    except ValueError as error:
        raise DamagedFile(f"{run_dir.summary} is damaged: {error}") from error


def _saved_searches(run_dir: RunDir, number: int) -> list[Searched]:
    """Return how far the searches of a shard came, as their saved states have it: of a summary that does not say so."""
    found = (checkpoint.load_newest(folder) for folder in sorted(run_dir.path.glob(f"{run_dir.shard(number).name}*")))
    return [Searched(settled=False, steps=one.state.step, scorings=one.scorings) for one in found if one]
