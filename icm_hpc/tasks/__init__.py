"""The tasks that can be labelled: one file a family, one line a task in TASKS."""

from dataclasses import replace
from pathlib import Path

from ..config.schema import TaskConfig
from ..errors import TaskError
from . import claims, comparison, declared, gsm8k, kept, plugins, reviews, topics, truthfulqa
from .family import Family, read
from .premise import LABEL_PRIOR, WORD_PRIOR, premise_of
from .task import Division, Drawn, Example, Task, divided, drawn_in_blocks, limited, pieces, within
from .words import require_distinct

__all__ = [
    "LABEL_PRIOR",
    "TASKS",
    "WORD_PRIOR",
    "Division",
    "Example",
    "Family",
    "Task",
    "divided",
    "family_of",
    "label_words",
    "load",
    "load_test",
    "packed",
    "pieces",
    "premise_of",
]

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
    """Return the family of the task that `config` describes or names; raises TaskError for an unknown one."""
    if config.prompt:
        return declared.family(config)
    found = TASKS.get(config.name) or plugins.family(config.name)
    if found is None:
        raise TaskError(f"task.name={config.name}: no such task; there are {', '.join(sorted(TASKS))}")
    unused = [key for key in ("labels", "columns", "rule", "preamble") if getattr(config, key)]
    if unused:
        raise TaskError(
            f'task.{unused[0]}: describes a task of your own, which also has a task.prompt, as "Review: {{text}}\\nSentiment:";'
            f" without it, this is the built-in task {config.name}"
        )
    return found


def load(config: TaskConfig, *, seed: int, copy: Path | None = None, least: int = 2) -> Task:
    """Return the task that `config` names, in the order that `seed` gives, cut to `task.limit` examples.

    The examples are those of a run's `copy`, where there is one. Raises TaskError for an unknown name, unusable data, fewer
    than `least` examples, or label words that do not fit the task.
    """
    family = family_of(config)
    kept_there = copy is not None and copy.exists()
    task = (
        _task(family, config, kept.unpacked(copy)) if copy and kept_there else _drawn(family, config, seed, least).task
    )
    return replace(task, label_words=label_words(family, config))


def load_test(config: TaskConfig, pool: Task, *, seed: int, copy: Path | None = None) -> Task | None:
    """Return the held-out examples of a task, None without any: those of a run's `copy`, where there is one.

    Examples that the pool has, by their text, are left out, with a note. No rule is between them: each is labelled by itself.
    """
    if copy and copy.exists():
        return replace(pool, examples=kept.unpacked(copy), conflict_rule=None, notes=())
    family = family_of(config)
    if config.test is not None:
        named = replace(config, data=config.test, limit=None, test=None)
        try:
            drawn = _drawn(family, named, seed, least=1)
        except TaskError as error:
            raise TaskError(str(error).replace("task.data=", "task.test=")) from error
        examples, notes = drawn.task.examples, drawn.task.notes
    elif config.test_share:
        examples, notes = _drawn(family, config, seed).test, ()
    else:
        return None
    texts = {example.text for example in pool.examples}
    unseen = [example for example in examples if example.text not in texts]
    if len(unseen) < len(examples):
        notes = (*notes, f"{len(examples) - len(unseen)} of {len(examples)} test rows are in the pool, too: left out")
    test = within(unseen, config.test_limit)
    if not test:
        raise TaskError(
            f"no test row is left: {'; '.join(notes) or f'task.test_limit={config.test_limit} holds no group'}"
        )
    return replace(pool, examples=test, conflict_rule=None, notes=tuple(f"test: {note}" for note in notes))


def label_words(family: Family, config: TaskConfig) -> tuple[str, ...]:
    """Return the word of each label, as it stands behind a text; raises TaskError for words that do not fit the task."""
    words = family.label_words if config.label_words is None else tuple(config.label_words)
    if len(words) != len(family.label_words):
        raise TaskError(
            f"task.label_words: {len(family.label_words)} words are expected, as in {list(family.label_words)}"
        )
    require_distinct(words)
    return words


def packed(task: Task) -> bytes:
    """Return a task's examples as a run's folder keeps them, for `load` to read as its `copy`."""
    return kept.packed(task.examples)


def _task(family: Family, config: TaskConfig, examples: tuple[Example, ...]) -> Task:
    words = family.label_words
    return Task(
        config.name, examples, words, family.conflict_rule, separator=family.separator, preamble=family.preamble
    )


def _drawn(family: Family, config: TaskConfig, seed: int, least: int = 2) -> Drawn:
    data = read(family, config)
    examples = tuple(
        replace(family.example(row.without_gold(), place), place=place) for place, row in enumerate(data.rows)
    )
    if family.check:
        family.check(examples)
    task = replace(_task(family, config, examples), notes=(*family.notes, *data.notes))
    if config.draw == "blocks":
        drawn = drawn_in_blocks(task, config.limit, seed, family.block_size, test_share=config.test_share, least=least)
    else:
        drawn = limited(task, config.limit, seed, test_share=config.test_share, least=least)
    task = drawn.task
    if task.conflict_rule and not task.has_conflicts():
        note = f"no two rows {family.conflicting}, as task={config.name} expects: the search may collapse to one label"
        task = replace(task, notes=(*task.notes, note))
    return replace(drawn, task=task)
