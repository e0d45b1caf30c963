"""The tasks that can be labelled: one file a family, one line a task in TASKS."""

from dataclasses import replace

from ..errors import TaskError
from ..settings import TaskConfig
from . import claims, comparison, gsm8k, reviews, topics, truthfulqa
from .family import Family, read
from .task import Example, Task, drawn_in_blocks, limited, shards
from .words import require_distinct

__all__ = ["TASKS", "Example", "Family", "Task", "family_of", "load", "shards"]

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


def load(config: TaskConfig, *, seed: int) -> Task:
    """Return the task that `config` names, in the order that `seed` gives, cut to `task.limit` examples.

    Raises TaskError for an unknown name, unusable data, or label words that do not fit the task.
    """
    family = family_of(config)
    rows = [row.without_gold() for row in read(family, config)]
    examples = tuple(family.example(row, place) for place, row in enumerate(rows))
    if family.check:
        family.check(examples)
    task = Task(config.name, examples, family.label_words, family.conflict_rule)
    if config.draw == "blocks":
        task = drawn_in_blocks(task, config.limit, seed, family.block_size)
    else:
        task = limited(task, config.limit, seed)
    words = task.label_words if config.label_words is None else tuple(config.label_words)
    if len(words) != len(task.label_words):
        raise TaskError(f"task.label_words: {len(task.label_words)} words are expected, as in {list(task.label_words)}")
    require_distinct(words)
    return replace(task, label_words=words)
