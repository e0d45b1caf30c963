"""Gold labels, for evaluation only: import-linter keeps this module out of the search's reach."""

from ..errors import TaskError
from ..settings import TaskConfig
from . import family_of
from .family import read
from .rows import GOLD, Row


def load(config: TaskConfig) -> dict[str, int]:
    """Return the gold label of each example that has one, by id; raises TaskError for one that is not a label's number."""
    family = family_of(config)
    found = {
        family.example(row.without_gold(), place).id: _label(row, len(family.label_words))
        for place, row in enumerate(read(family, config))
    }
    return {id_: label for id_, label in found.items() if label is not None}


def _label(row: Row, n_labels: int) -> int | None:
    value = row.values.get(GOLD)
    if value is None:
        return None
    if not isinstance(value, (bool, int)) or not 0 <= int(value) < n_labels:
        raise TaskError(f"{row.where}: label is {value!r}; wanted: 0 to {n_labels - 1}, true, false, or none at all")
    return int(value)
