"""A task: examples, the words that labels are, and the conflicts between examples. It holds no gold label."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..config.fingerprint import sha256_of
from ..core.published import blocks
from ..core.types import Conflict, Problem, Rule
from ..errors import TaskError
from . import packing
from .rows import Id, shown

# Repairs are in the order in which the published code tries them: of equals, the first is taken.
ONE_OF_TWO = ((0, 1), (1, 0))
EXACTLY_ONE = Rule("exactly one", {(0, 0): ONE_OF_TWO, (1, 1): ONE_OF_TWO})
AT_MOST_ONE = Rule("at most one", {(1, 1): ONE_OF_TWO})

SEPARATOR = "\n\n"
MAX_PAIRS = 20_000_000  # of examples of one group: a conflict takes about 100 bytes


def same(n_labels: int) -> Rule:
    """Return the rule that two examples have one label; repaired by the label of either."""
    pairs = [(a, b) for a in range(n_labels) for b in range(n_labels) if a != b]
    return Rule("same", {(a, b): ((a, a), (b, b)) if a < b else ((b, b), (a, a)) for a, b in pairs})


SAME = same(2)


def different(n_labels: int) -> Rule:
    """Return the rule that two examples cannot have one label; repaired by changing either of them."""
    repairs = {}
    for a in range(n_labels):
        others = [b for b in range(n_labels) if b != a]
        repairs[a, a] = [*((a, b) for b in others), *((b, a) for b in others)]
    return Rule("different", repairs)


@dataclass(frozen=True, slots=True)
class Example:
    """What is labelled: `text` is the prompt up to where the label word stands."""

    id: Id  # a text or a number, as the row has it
    group: str
    text: str
    key: str = ""  # what the task's conflict rule compares
    place: int = field(default=0, compare=False)  # of its row in the data: results are written in this order


ConflictRule = Callable[[Example, Example], Rule | None]  # of two examples of one group


@dataclass(frozen=True, slots=True)
class Task:
    """Examples with everything that the search may know of them."""

    name: str
    examples: tuple[Example, ...]
    label_words: tuple[str, ...]  # by label; with the space that stands before it in running text
    conflict_rule: ConflictRule | None = None
    separator: str = SEPARATOR  # after a demonstration
    preamble: str = ""  # before all demonstrations
    notes: tuple[str, ...] = ()  # on the data, for the user

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for example in self.examples:
            id_ = example.id
            name = (
                str(int(id_)) if isinstance(id_, float) and id_.is_integer() else str(id_)
            )  # 1, 1.0 and "1" are one id
            if name in seen:
                raise TaskError(
                    f"task {self.name}: the id {shown(id_)} occurs twice; name a column of different ids, or drop that one"
                )
            seen.add(name)

    def problem(self) -> Problem:
        """Return what the search is given."""
        numbers: dict[str, int] = {}
        groups = np.array([numbers.setdefault(e.group, len(numbers)) for e in self.examples], dtype=np.int64)
        groups.flags.writeable = False
        return Problem(groups, len(self.label_words), tuple(self._conflicts()))

    def sha256(self) -> str:
        """Return a digest of all that the search and its prompts depend on."""
        rules = [f"{c.first} {c.second} {c.rule.name}" for c in self.problem().conflicts]
        fields = [field for e in self.examples for field in (str(e.id), e.group, e.text)]
        preamble = ["preamble", self.preamble] if self.preamble else []
        return sha256_of([*preamble, self.separator, *self.label_words, "examples", *fields, "conflicts", *rules])

    def has_conflicts(self) -> bool:
        """Return whether the task's rule applies to any two of its examples."""
        return next(self._conflicts(), None) is not None

    def _conflicts(self) -> Iterator[Conflict]:
        if self.conflict_rule is None:
            return
        members: dict[str, list[int]] = {}
        for index, example in enumerate(self.examples):
            members.setdefault(example.group, []).append(index)
        self._require_few_pairs(members)
        for a, b in ((a, b) for group in members.values() for i, a in enumerate(group) for b in group[i + 1 :]):
            rule = self.conflict_rule(self.examples[a], self.examples[b])
            if rule is not None:
                yield Conflict(a, b, rule)

    def _require_few_pairs(self, members: Mapping[str, Sequence[int]]) -> None:
        """Raise TaskError for groups so large that their pairs take hours and fill the memory."""
        pairs = sum(len(group) * (len(group) - 1) // 2 for group in members.values())
        if pairs > MAX_PAIRS:
            largest = max(members, key=lambda name: len(members[name]))
            raise TaskError(
                f"task {self.name}: its groups have {pairs:,} pairs of examples, which a rule may be about; at most"
                f" {MAX_PAIRS:,} fit into memory. The largest group, {shown(largest)}, has {len(members[largest])} examples:"
                " name another column as the group, or set task.limit"
            )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A task's examples, and those that are held out, which no search sees."""

    task: Task
    test: tuple[Example, ...] = ()


def limited(task: Task, limit: int | None, seed: int, *, test_share: float = 0.0, least: int = 2) -> Drawn:
    """Return `task` with its groups in the random order that `seed` gives, cut to at most `limit` examples.

    Groups stay whole. The order decides which examples are seeds of the search. Held out are the last ones of the order: of
    the others, a limit takes the same with and without a test.
    """
    groups = _grouped(task.examples)
    ordered, test = _held_out(
        [groups[place] for place in np.random.default_rng(seed).permutation(len(groups))], test_share
    )
    kept, _ = _held(ordered, limit)
    return Drawn(_cut(task, kept, limit, test_share, least), test)


def drawn_in_blocks(
    task: Task, limit: int | None, seed: int, size: int, *, test_share: float = 0.0, least: int = 2
) -> Drawn:
    """Return `task` as the published code chooses its batch: blocks of `size` rows, drawn without replacement.

    Held out are blocks, too, the last ones that are drawn.
    """
    whole = blocks([example.group for example in task.examples], size)
    order = np.random.default_rng(seed).permutation(len(whole))
    ordered, test = _held_out([[task.examples[row] for row in whole[place]] for place in order], test_share)
    kept = ordered if limit is None else ordered[: limit // size]
    left_out = len(task.examples) - size * len(whole)
    if left_out:
        count = f"{left_out} of {len(task.examples)} rows {'is' if left_out == 1 else 'are'} left out"
        task = replace(task, notes=(*task.notes, f"{count}: task.draw=blocks takes whole blocks of {size}"))
    return Drawn(_cut(task, [example for block in kept for example in block], limit, test_share, least), test)


def within(examples: Sequence[Example], limit: int | None) -> tuple[Example, ...]:
    """Return examples cut to at most `limit`, whole groups."""
    kept, _ = _held(_grouped(examples), limit)
    return tuple(kept)


def _held_out(parts: list[list[Example]], share: float) -> tuple[list[list[Example]], tuple[Example, ...]]:
    """Return parts without the last ones, and the examples of those: at least that share of all."""
    wanted, first, count = share * sum(map(len, parts)), len(parts), 0
    while count < wanted:
        first -= 1
        count += len(parts[first])
    return parts[:first], tuple(example for part in parts[first:] for example in part)


@dataclass(frozen=True, slots=True)
class Division:
    """A task in parts: whole groups, each in the task's own order."""

    shards: tuple[Task, ...]  # that are searched
    beyond: Task | None = None  # what is labelled afterwards, given the one shard


def divided(task: Task, pool_size: int | None, beyond: str) -> Division:
    """Return a task in the parts in which it is labelled.

    Of more than `pool_size` examples, beyond=shards makes shards; beyond=apply one, of the first groups that it holds.
    """
    if beyond == "shards" or pool_size is None or len(task.examples) <= pool_size:
        return Division(tuple(shards(task, pool_size)))
    pool, left = _held(_grouped(task.examples), pool_size)
    if len(pool) < 2:
        raise TaskError(f"search.pool_size={pool_size} holds no group of the data, and groups stay whole")
    return Division((replace(task, examples=tuple(pool)),), replace(task, examples=tuple(left)))


def _held(groups: Iterable[list[Example]], room: int | None) -> tuple[list[Example], list[Example]]:
    """Return the examples of the groups that the room holds, each if it still does, and of those that it does not."""
    kept: list[Example] = []
    left: list[Example] = []
    for group in groups:
        (kept if room is None or len(kept) + len(group) <= room else left).extend(group)
    return kept, left


def pieces(task: Task, size: int) -> Iterator[Task]:
    """Yield a task in parts of at least `size` examples, the last one of fewer; groups stay whole."""
    piece: list[Example] = []
    for group in _grouped(task.examples):
        piece += group
        if len(piece) >= size:
            yield replace(task, examples=tuple(piece))
            piece = []
    if piece:
        yield replace(task, examples=tuple(piece))


def shards(task: Task, pool_size: int | None) -> list[Task]:
    """Return `task` in few parts of at most `pool_size` examples, nearly equal in size; groups stay whole.

    Conflicts are between examples of one group, so none crosses parts. Within a part the task's own order holds.
    """
    n = len(task.examples)
    if pool_size is None or n <= pool_size:
        return [task]
    groups = _grouped(task.examples)
    largest = max(groups, key=len)
    if len(largest) > pool_size:
        raise TaskError(
            f"search.pool_size={pool_size}: the group {largest[0].group!r} has {len(largest)} examples, and groups stay whole"
        )
    part_of = {
        groups[group][0].group: number
        for number, part in enumerate(packing.pack([len(group) for group in groups], pool_size))
        for group in part
    }
    parts: dict[int, list[Example]] = {}
    for example in task.examples:
        parts.setdefault(part_of[example.group], []).append(example)
    return [replace(task, examples=tuple(parts[number])) for number in sorted(parts)]


def _grouped(examples: Iterable[Example]) -> list[list[Example]]:
    members: dict[str, list[Example]] = {}
    for example in examples:
        members.setdefault(example.group, []).append(example)
    return list(members.values())


def _cut(task: Task, kept: Sequence[Example], limit: int | None, test_share: float, least: int) -> Task:
    if len(kept) < least:
        count = "1 example" if len(kept) == 1 else f"{len(kept)} examples"
        whole = f"task.test_share={test_share:g} leaves {count}" if test_share else f"the data have {count}"
        have = whole if limit is None else f"task.limit={limit} leaves {count}, since groups stay whole"
        raise TaskError(f"task {task.name}: {have}; at least {least} are required")
    return replace(task, examples=tuple(kept))
