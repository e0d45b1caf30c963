"""The tasks that can be labelled: one file a family, one line each in TASKS."""

from collections.abc import Callable
from dataclasses import replace

from ..config import TaskConfig
from ..errors import TaskError
from . import claims, reviews
from .task import Example, Task, limited

__all__ = ["TASKS", "Example", "Task", "load"]

TASKS: dict[str, Callable[[TaskConfig], Task]] = {"claims": claims.load, "reviews": reviews.load}


def load(config: TaskConfig, *, seed: int) -> Task:
    """Return the task that `config` names, in the order that `seed` gives, cut to `task.limit` examples.

    Raises TaskError for an unknown name, unusable data, or label words that do not fit the task.
    """
    if config.name not in TASKS:
        raise TaskError(f"task.name={config.name}: no such task; there are {', '.join(sorted(TASKS))}")
    task = limited(TASKS[config.name](config), config.limit, seed)
    if config.label_words is None:
        return task
    if len(config.label_words) != len(task.label_words):
        raise TaskError(f"task.label_words: {len(task.label_words)} words are wanted, as in {list(task.label_words)}")
    return replace(task, label_words=tuple(config.label_words))
