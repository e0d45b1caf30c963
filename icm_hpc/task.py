"""`python -m icm_hpc.task FILE.yaml`: shows what a task is: its rows, groups, conflicts, gold labels and first prompt.

Also takes task=NAME and all settings of `submit`: model=NAME shows the prompt in that model's tokens, label words marked.
Exits with code 1 and the reason if the data or the description cannot be used. Nothing is started or written.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.table import Table

from . import tasks
from .config import describe, loading
from .config.schema import Config
from .errors import printable
from .scoring import running_text
from .scoring.tokenizer import LocalTokenizer
from .serving import weights
from .tasks import Task, gold
from .terminal import console, reporting_errors

ARGUMENTS = {"FILE": "a task of your own, as task=FILE; default: task=reviews"}
SHOWN = 3  # examples in the prompt: two demonstrations and a query
CHECKED = 256  # examples whose tokens are compared with those of the whole text
LISTED = 12  # labels whose counts are shown, at most
MARKS = "«{}»"  # around a label word


@reporting_errors()
def main() -> None:
    """Run the command."""
    words = sys.argv[1:]
    topic = describe.asked_for_help(words)
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic)
        return
    config = loading.load([word if "=" in word or word.startswith("-") else f"task={word}" for word in words])
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in described(config):
        table.add_row(name, printable(text, kept="\n"))
    console.print(table)


def described(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of a task: a name and a text each; raises TaskError for one that cannot be used."""
    task = tasks.load(config.task, seed=config.search.seed)
    groups = Counter(Counter(example.group for example in task.examples).values())
    conflicts = Counter(conflict.rule.name for conflict in task.problem().conflicts)
    yield "task", config.task.name
    yield "examples", f"{len(task.examples)}" + (f" (task.limit={config.task.limit})" if config.task.limit else "")
    yield "labels", _listed([repr(word) for word in task.label_words])
    yield "groups", f"{sum(groups.values())}: " + _listed([f"{n} of {size}" for size, n in sorted(groups.items())])
    yield "conflicts", ", ".join(f"{n} pairs: {name}" for name, n in conflicts.items()) or "none: no rule applies"
    yield from _gold(config, task)
    for note in task.notes:
        yield "note", note
    yield from _prompt(config, replace(task, examples=task.examples[:CHECKED]))


def _gold(config: Config, task: Task) -> Iterator[tuple[str, str]]:
    found = gold.found(config.task)
    known = Counter(found.labels.get(str(example.id)) for example in task.examples)
    missing = known.pop(None, 0)
    names = {label: word.strip() for label, word in enumerate(task.label_words)}
    counts = _listed([f"{names[label]} {n}" for label, n in sorted(known.items()) if label is not None])
    yield "gold labels", f"{counts or 'none'}" + (f"; {missing} without" if known and missing else "")
    for note in found.notes:
        yield "note", note


def _prompt(config: Config, task: Task) -> Iterator[tuple[str, str]]:
    """Yield the first prompt, as text and in the model's tokens."""
    shown = task.examples[:SHOWN]
    labels = [number % len(task.label_words) for number in range(len(shown) - 1)]
    words = [task.label_words[label] for label in labels]
    text = task.preamble + "".join(
        f"{example.text}{MARKS.format(word)}{task.separator}" for example, word in zip(shown, words, strict=False)
    )
    yield "first prompt", f"{text}{shown[-1].text}{MARKS.format('?')}"
    tokenizer = LocalTokenizer(config.model.name, weights.on_disk(config.model))
    if not tokenizer.exact:
        later = "; the first run puts it there" if config.model.embedded else ""
        yield "tokens", f"not known: the tokenizer of model={config.model.name} is not on this disk{later}"
        return
    found = asyncio.run(running_text.cut(tokenizer, task))
    parts = [_pieces(tokenizer, found.start)]
    for place, label in enumerate(labels):
        ids = found.firsts[0] if place == 0 else found.texts[place]
        parts += [_pieces(tokenizer, ids), MARKS.format(_pieces(tokenizer, found.words[label]))]
    last = found.texts[len(labels)] if labels else found.firsts[0]
    yield "tokens", "|".join(filter(None, [*parts, _pieces(tokenizer, last)]))
    lengths = sorted(len(ids) for ids in found.texts)
    yield "lengths", f"{lengths[0]} to {lengths[-1]} tokens an example, {lengths[len(lengths) // 2]} on the median"
    several = [word for word, ids in zip(task.label_words, found.words, strict=True) if len(ids) > 1]
    if several:
        yield (
            "label words",
            f"{len(several)} of {len(task.label_words)} are several tokens: {_listed([word.strip() for word in several])}",
        )
    if found.proof.differing:
        yield "note", str(found.proof)


def _pieces(tokenizer: LocalTokenizer, ids: Sequence[int]) -> str:
    return "|".join(piece.replace("\n", "\\n") for piece in tokenizer.pieces(ids))


def _listed(items: Sequence[str]) -> str:
    more = f", and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


if __name__ == "__main__":
    main()
