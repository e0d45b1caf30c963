"""The tasks that can be labelled: one file a family, one line a task in TASKS."""

from dataclasses import replace
from pathlib import Path

from ..config.schema import TaskConfig
from ..errors import TaskError
from . import claims, comparison, gsm8k, kept, reviews, topics, truthfulqa
from .family import Family, read
from .task import Division, Example, Task, divided, drawn_in_blocks, limited, pieces
from .words import require_distinct

__all__ = ["TASKS", "Division", "Example", "Family", "Task", "divided", "family_of", "load", "packed", "pieces"]

TASKS: dict[str, Family] = {
    "claims": claims.FAMILY,
    "comparison": comparison.HELPFUL,
    "gsm8k": gsm8k.FAMILY,
    "reviews": reviews.FAMILY,
    "topics": topics.FAMILY,
    "truthfulqa": truthfulqa.FAMILY,
    "truthfulqa-preference": comparison.TRUTHFUL,
}


def family_of(config: TaskConfig) -> Family:
    """Return the family of the task that `config` names; raises TaskError for an unknown one."""
    if config.name not in TASKS:
        raise TaskError(f"task.name={config.name}: no such task; there are {', '.join(sorted(TASKS))}")
    return TASKS[config.name]


def load(config: TaskConfig, *, seed: int, copy: Path | None = None) -> Task:
    """Return the task that `config` names, in the order that `seed` gives, cut to `task.limit` examples.

    The examples are those of a run's `copy`, where there is one. Raises TaskError for an unknown name, unusable data, or
    label words that do not fit the task.
    """
    family = family_of(config)
    if copy is not None and copy.exists():
        task = Task(config.name, kept.unpacked(copy), family.label_words, family.conflict_rule)
    else:
        task = _drawn(family, config, seed)
    words = task.label_words if config.label_words is None else tuple(config.label_words)
    if len(words) != len(task.label_words):
        raise TaskError(f"task.label_words: {len(task.label_words)} words are expected, as in {list(task.label_words)}")
    require_distinct(words)
    return replace(task, label_words=words)


def packed(task: Task) -> bytes:
    """Return a task's examples as a run's folder keeps them, for `load` to read as its `copy`."""
    return kept.packed(task.examples)


def _drawn(family: Family, config: TaskConfig, seed: int) -> Task:
    data = read(family, config)
    examples = tuple(family.example(row.without_gold(), place) for place, row in enumerate(data.rows))
    if family.check:
        family.check(examples)
    task = Task(config.name, examples, family.label_words, family.conflict_rule, notes=data.notes)
    if config.draw == "blocks":
        task = drawn_in_blocks(task, config.limit, seed, family.block_size)
    else:
        task = limited(task, config.limit, seed)
    if task.conflict_rule and not task.has_conflicts():
        note = f"no two rows {family.conflicting}, as task={config.name} expects: the search may collapse to one label"
        task = replace(task, notes=(*task.notes, note))
    return task
