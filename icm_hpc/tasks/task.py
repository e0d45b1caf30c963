"""A task: examples, the words that labels are, and the conflicts between examples. It holds no gold label."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..config import sha256_of
from ..core.types import Conflict, Problem, Rule
from ..errors import TaskError

EXACTLY_ONE = Rule("exactly one", forbidden=frozenset({(0, 0), (1, 1)}), repairs=((0, 1), (1, 0)))


@dataclass(frozen=True, slots=True)
class Example:
    """What is labelled: `text` is the prompt up to where the label word stands."""

    id: str
    group: str
    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """Examples with everything that the search may know of them."""

    name: str
    examples: tuple[Example, ...]
    label_words: tuple[str, ...]  # by label; with the space that stands before it in running text
    conflict_rule: Callable[[Example, Example], Rule | None] | None = None  # of two examples of one group
    separator: str = "\n\n"  # after a demonstration

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for example in self.examples:
            if example.id in seen:
                raise TaskError(f"task {self.name}: the id {example.id!r} occurs twice; ids must differ")
            seen.add(example.id)

    def problem(self) -> Problem:
        """Return what the search is given."""
        numbers: dict[str, int] = {}
        groups = np.array([numbers.setdefault(e.group, len(numbers)) for e in self.examples], dtype=np.int64)
        groups.flags.writeable = False
        return Problem(groups, len(self.label_words), tuple(self._conflicts()))

    def sha256(self) -> str:
        """Return a digest of all that the search and its prompts depend on."""
        rules = [f"{c.first} {c.second} {c.rule}" for c in self.problem().conflicts]
        fields = [field for e in self.examples for field in (e.id, e.group, e.text)]
        return sha256_of([self.separator, *self.label_words, "examples", *fields, "conflicts", *rules])

    def _conflicts(self) -> list[Conflict]:
        if self.conflict_rule is None:
            return []
        members: dict[str, list[int]] = {}
        for index, example in enumerate(self.examples):
            members.setdefault(example.group, []).append(index)
        pairs = [(a, b) for group in members.values() for i, a in enumerate(group) for b in group[i + 1 :]]
        ruled = [(a, b, self.conflict_rule(self.examples[a], self.examples[b])) for a, b in pairs]
        return [Conflict(a, b, rule) for a, b, rule in ruled if rule is not None]


def limited(task: Task, limit: int | None, seed: int) -> Task:
    """Return `task` with its groups in the random order that `seed` gives, cut to at most `limit` examples.

    Groups stay whole. The order decides which examples are seeds of the search.
    """
    members: dict[str, list[Example]] = {}
    for example in task.examples:
        members.setdefault(example.group, []).append(example)
    groups = list(members.values())
    order = np.random.default_rng(seed).permutation(len(groups))
    kept: list[Example] = []
    for place in order:
        if limit is None or len(kept) + len(groups[place]) <= limit:
            kept.extend(groups[place])
    if len(kept) < 2:
        raise TaskError(
            f"task {task.name}: {len(kept)} examples are left under task.limit={limit}; at least 2 are needed"
        )
    return replace(task, examples=tuple(kept))
