"""Gold labels, for evaluation only: import-linter keeps this module out of the search's reach."""

from collections.abc import Callable

from ..config import TaskConfig
from ..errors import TaskError
from . import claims, reviews, rows

UNKNOWN = -1


def load(config: TaskConfig) -> dict[str, int]:
    """Return the gold label of each example that has one, by id; raises TaskError for one that is not a label's number."""
    return GOLD[config.name](config)


def _of_reviews(_config: TaskConfig) -> dict[str, int]:
    return {row.text("id"): _label(row, 2) for row in rows.read_file(reviews.DATA)}


def _of_claims(config: TaskConfig) -> dict[str, int]:
    found = {claims.id_of(row, place): _label(row, 2) for place, row in enumerate(rows.read(config))}
    return {id_: label for id_, label in found.items() if label != UNKNOWN}


def _label(row: rows.Row, n_labels: int) -> int:
    value = row.values.get("label")
    if value is None:
        return UNKNOWN
    if not isinstance(value, (bool, int)) or not 0 <= int(value) < n_labels:
        raise TaskError(f"{row.where}: label is {value!r}; wanted: 0 to {n_labels - 1}, true, false, or none at all")
    return int(value)


GOLD: dict[str, Callable[[TaskConfig], dict[str, int]]] = {"reviews": _of_reviews, "claims": _of_claims}
