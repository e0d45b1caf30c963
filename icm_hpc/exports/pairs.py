"""Pairs of a better and a worse text, for preference training: from comparisons, or from rows of which exactly one holds."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..tasks import Family, Task
from ..tasks.preferences import dialogue_prompt, shared_start
from ..tasks.task import EXACTLY_ONE
from .lines import Filter, Line

CONFLICT = "conflict"  # why a pair is left out whose labels contradict each other, or whose texts are the same


@dataclass(frozen=True, slots=True)
class Pair:
    """Two continuations of a prompt."""

    prompt: str
    chosen: str
    rejected: str
    margin: float  # the smallest one of its rows, nats


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs that are exported, in the data's order, and how many are not, by reason."""

    kept: tuple[Pair, ...]
    left_out: Counter[str]


@dataclass(frozen=True, slots=True)
class _Vote:
    """What one row, or two rows of which exactly one holds, say about a pair."""

    prompt: str
    chosen: str
    rejected: str
    lines: tuple[Line, ...]
    is_conflict: bool = False


def pairs_of(family: Family, task: Task, lines: Sequence[Line], chosen: Filter) -> Pairs:
    """Return one pair for each two texts that are compared; raises ConfigError for a task that compares none.

    A pair whose labels contradict each other is left out; so is one with a row that does not pass the filter.
    """
    votes: dict[Hashable, list[_Vote]] = defaultdict(list)
    for key, vote in _votes(family, task, {line.id: line for line in lines}):
        votes[key].append(vote)
    kept: list[Pair] = []
    left_out: Counter[str] = Counter()
    for one, *more in votes.values():
        told = [line for vote in (one, *more) for line in vote.lines]
        refusals = (chosen.refusal(line) for line in told)
        is_conflict = one.is_conflict or any(vote.chosen != one.chosen for vote in more)
        reason = CONFLICT if is_conflict else next(filter(None, refusals), None)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(Pair(one.prompt, one.chosen, one.rejected, min(line.margin for line in told)))
    return Pairs(tuple(kept), left_out)


def _votes(family: Family, task: Task, lines: Mapping[str, Line]) -> Iterator[tuple[Hashable, _Vote]]:
    """Yield votes, each with the key of its pair."""
    unknown = next((example.id for example in task.examples if str(example.id) not in lines), None)
    if unknown is not None:
        raise ConfigError(
            f"the run has no copy of its data, and these have changed: {unknown!r} has no label in labels.jsonl"
        )
    if family.compared:
        for example in task.examples:
            question, *answers = family.compared(example)
            line = lines[str(example.id)]
            chosen, rejected = answers if line.label else answers[::-1]
            prompt = dialogue_prompt(question)
            yield (example.group, question, frozenset(answers)), _Vote(prompt, f" {chosen}", f" {rejected}", (line,))
        return
    rules = {conflict.rule.name for conflict in task.problem().conflicts}
    if EXACTLY_ONE.name not in rules:
        raise ConfigError(_refusal(task, rules))
    for conflict in task.problem().conflicts:
        if conflict.rule.name == EXACTLY_ONE.name:
            examples = task.examples[conflict.first], task.examples[conflict.second]
            first, second = (lines[str(example.id)] for example in examples)
            prompt, *texts = parted(*(example.text for example in examples))
            chosen, rejected = texts if first.label else texts[::-1]
            is_conflict = first.label == second.label or chosen == rejected
            vote = _Vote(prompt, chosen, rejected, (first, second), is_conflict=is_conflict)
            yield (conflict.first, conflict.second), vote


def _refusal(task: Task, rules: set[str]) -> str:
    have = (
        f"between rows of task {task.name} the rule is {', '.join(sorted(rules))}"
        if rules
        else f"{task.name} has no rule"
    )
    return (
        f"pairs of a better and a worse text are made of comparisons (task=comparison), or of two rows of which exactly one"
        f" has the second label (task.rule=exactly_one), and {have}: no row is better than another; use to=sft"
    )


def parted(one: str, other: str) -> tuple[str, str, str]:
    """Return the common beginning of two texts, up to the end of a sentence or word, and what follows it in each.

    Lines that both end with are left out, such as "Sentiment:". A space goes with what follows, as tokenizers have it.
    """
    start = shared_start(one, other)
    prompt = one[:start].rstrip()
    ends = one[len(prompt) :].split("\n"), other[len(prompt) :].split("\n")
    while min(map(len, ends)) > 1 and ends[0][-1] == ends[1][-1]:
        ends = ends[0][:-1], ends[1][:-1]
    first, second = ("\n".join(lines) for lines in ends)
    return prompt, first, second
