"""Prompts cut from running text: the fragments of a prompt, put together, are the tokens of its whole text.

What a tokenizer makes of a piece of text depends on what stands beside it. A fragment is therefore cut out of running text:
from behind a label word, over the separator, up to the next label word. There the tokenizers of today's models cut too,
whatever an example begins with. Whether the fragments fit together is proven on all examples.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from ..errors import TaskError
from ..tasks import Example, Task

Ids: TypeAlias = list[int]

ENDING = 6  # characters at the end of a text after which all label words are tried; whole texts have the first word
CHAIN = 8  # examples of one prompt of the proof
BEFORE = "\n"  # after it every tokenizer begins a token, and none adds the space that some put before a text
# What the special tokens of today's models look like: <|endoftext|>, </s>, [INST], >>TITLE<<.
_FORMS = (r"<\|[^<>|\n]{1,64}\|>", r"<[^<>\s]{1,64}>", r"\[[^\[\]\s]{1,64}\]", r">>[^<>\s]{1,64}<<")
_SPECIAL_FORMS = [re.compile(f"(?=({form}))") for form in _FORMS]  # also inside of each other


class Tokenizes(Protocol):
    """A served model's tokenizer, or one that stands in for it."""

    model: str

    @property
    def exact(self) -> bool:
        """Whether the tokens are the model's own."""

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text; `special` adds what starts and ends a sequence."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How many prompts of real examples were compared with the tokens of their whole text."""

    checked: int
    differing: int
    first: str = ""  # how the first of them differs

    def __str__(self) -> str:
        return (
            f"in {self.differing} of {self.checked} prompts compared, the tokens sent are not those of the whole text"
            f" ({self.first}): this tokenizer may join a label word with what stands beside it"
        )


@dataclass(frozen=True, slots=True)
class Fragments:
    """A task's texts as tokens of running text."""

    start: Ids  # of every prompt: such as a BOS token, and the preamble
    firsts: list[Ids]  # by example: its text at the beginning of a prompt
    texts: list[Ids]  # by example: the separator and its text, after a label word
    words: list[Ids]  # by label: its word after a text, from where the words differ
    proof: Proof = Proof(0, 0)
    specials: tuple[str, ...] = ()  # special tokens that examples spell, which are tokenized as text


async def estimated(tokenizer: Tokenizes, task: Task) -> Fragments:
    """Return fragments of about the right length, from a tokenizer that only estimates; a label word is one token."""
    texts = [*(example.text for example in task.examples), task.separator, task.preamble]
    *firsts, separator, preamble = await tokenizer.tokenize(texts)
    words = [ids[:1] for ids in await tokenizer.tokenize(task.label_words)]
    return Fragments(preamble, firsts, [[*separator, *ids] for ids in firsts], words)


async def cut(tokenizer: Tokenizes, task: Task) -> Fragments:
    """Return fragments in the tokens of `tokenizer`, and the proof of them; about 2.5 texts an example are tokenized.

    Raises TaskError where the label words have no tokens that tell them apart, or not the same ones after each example.
    """
    texts = [example.text for example in task.examples]
    plain = await Plain.of(tokenizer, [*texts, *task.label_words, task.separator, task.preamble])
    words = await _words(plain, task)
    word = task.label_words[0]
    before = min(texts, key=len) + word
    prefix, preamble = await plain.tokenize([before, task.preamble])
    firsts = await plain.tokenize([task.preamble + text + word for text in texts])
    preamble = preamble[: min(_shared(preamble, ids) for ids in firsts)]
    running = await plain.tokenize([before + task.separator + text + word for text in texts])
    start = await _start(plain, min(texts, key=len))
    found = Fragments(
        start=start + preamble,
        firsts=[_without(words[0], ids[len(preamble) :], place, task) for place, ids in enumerate(firsts)],
        texts=[_without(words[0], _after(prefix, ids), place, task) for place, ids in enumerate(running)],
        words=words,
        specials=tuple(plain.specials),
    )
    _require_no_special(found, start, plain, task)
    return replace(found, proof=await _proof(plain, task, found, preamble))


class Plain:
    """Tokenizes what examples say as text, also where they spell a special token of the model, such as <|endoftext|>.

    A server's tokenizer makes the special token of that. A text is therefore cut in two inside of it, behind its first
    signs, where tokenizers cut signs from letters.
    """

    def __init__(self, tokenizer: Tokenizes, specials: Mapping[str, int], before: Ids) -> None:
        self.tokenizer, self.specials, self._before = tokenizer, specials, before
        alternatives = sorted(map(re.escape, specials), key=len, reverse=True)
        self._special = re.compile("|".join(alternatives)) if alternatives else None

    @classmethod
    async def of(cls, tokenizer: Tokenizes, texts: Iterable[str]) -> "Plain":
        """Find the special tokens that these texts spell: in brackets, and yet one token."""
        spelt = sorted({one for text in texts for form in _SPECIAL_FORMS for one in form.findall(text)})
        if not spelt:
            return cls(tokenizer, {}, [])
        before, *alone = await tokenizer.tokenize([BEFORE, *(BEFORE + one for one in spelt)])
        ids = {one: _after(before, tokens) for one, tokens in zip(spelt, alone, strict=True)}
        return cls(tokenizer, {one: tokens[0] for one, tokens in ids.items() if len(tokens) == 1}, before)

    async def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """Return the tokens of each text."""
        cuts = [list(self._pieces(text)) for text in texts]
        pieces = iter(await self.tokenizer.tokenize([piece for cut in cuts for piece in cut]))
        tokens = []
        for cut in cuts:
            first, *others = (next(pieces) for _ in cut)
            tokens.append(first + [token for ids in others for token in _after(self._before, ids)])
        return tokens

    def _pieces(self, text: str) -> Iterator[str]:
        begins = 0
        for found in self._special.finditer(text) if self._special else ():
            signs = len(found.group()) - len(re.sub(r"^\W+", "", found.group()))
            ends = found.start() + min(signs, len(found.group()) - 1)
            yield (BEFORE if begins else "") + text[begins:ends]
            begins = ends
        yield (BEFORE if begins else "") + text[begins:]


async def _words(plain: Plain, task: Task) -> list[Ids]:
    """Return the tokens of the label words as they follow the texts."""
    endings: dict[str, Example] = {}
    for example in task.examples:
        endings.setdefault(example.text[-ENDING:], example)
    asked = [ending + word for ending in endings for word in task.label_words]
    tokens = await plain.tokenize(asked)
    n = len(task.label_words)
    found: dict[str, tuple[Ids, ...]] = {}
    for place, ending in enumerate(endings):
        after = tokens[place * n : (place + 1) * n]
        same = min(_shared(after[0], ids) for ids in after)
        found[ending] = tuple(ids[same:] for ids in after)
    first = next(iter(found))
    for ending, words in found.items():
        if words != found[first]:
            raise TaskError(
                f"the label words are other tokens of model {plain.tokenizer.model} after example"
                f" {endings[ending].id!r} ({list(words)}) than after {endings[first].id!r}"
                f" ({list(found[first])}): let the texts of all examples end alike, without a space"
            )
    _require_apart(found[first], task.label_words, plain.tokenizer.model)
    return list(found[first])


def _require_apart(tokens: Sequence[Ids], words: Sequence[str], model: str) -> None:
    """Raise TaskError where the tokens of one word are those with which another begins."""
    for a, one in enumerate(tokens):
        for b, other in enumerate(tokens):
            if a != b and other[: len(one)] == one:
                how = "are the same tokens" if one == other else f"begin alike, and {words[a]!r} ends there,"
                raise TaskError(
                    f"the label words {words[a]!r} and {words[b]!r} {how} of model {model} (from where the words differ:"
                    f" {one}, {other}), so they cannot be told apart: choose other words with task.label_words=[...]"
                )


async def _start(plain: Plain, text: str) -> Ids:
    """Return what a sequence starts with; what some tokenizers add at its end is no part of a prompt."""
    ((bare,), (whole,)) = (
        await plain.tokenizer.tokenize([text]),
        await plain.tokenizer.tokenize([text], special=True),
    )
    for place in range(len(whole) - len(bare) + 1):
        if whole[place : place + len(bare)] == bare:
            return whole[:place]
    raise TaskError(
        f"the tokenizer of model {plain.tokenizer.model} makes other tokens of a text where it adds what starts a sequence:"
        f" {whole[:8]}... and {bare[:8]}...; such a tokenizer is not supported"
    )


def _after(prefix: Ids, ids: Ids) -> Ids:
    """Return what follows a prefix; where the tokenizer does not keep it, what differs from it."""
    return ids[_shared(prefix, ids) :]


def _without(word: Ids, ids: Ids, place: int, task: Task) -> Ids:
    if ids[-len(word) :] != word:
        example = task.examples[place]
        raise TaskError(
            f"the label word {task.label_words[0]!r} is other tokens after the whole text of example {example.id!r} than after"
            f" its last {ENDING} characters: let its text end as the others do, or with a sign"
        )
    return ids[: -len(word)]


def _require_no_special(found: Fragments, start: Ids, plain: Plain, task: Task) -> None:
    # A token such as <0x0A> is a byte of ordinary text as well.
    special = {*start, *(token for one, token in plain.specials.items() if not one.startswith("<0x"))}
    for ids, example in zip(found.firsts, task.examples, strict=True):
        if not special.isdisjoint(ids):
            raise TaskError(
                f"the text of example {example.id!r} holds a special token of model {plain.tokenizer.model}"
                f" ({sorted(special.intersection(ids))}) that cannot be written as text: take it out of the row"
            )


async def _proof(plain: Plain, task: Task, found: Fragments, preamble: Ids) -> Proof:
    """Compare prompts in which every example is shown twice, between other neighbours and with other labels."""
    n, labels = len(task.examples), len(task.label_words)
    orders = (range(n), range(n - 1, -1, -1))
    chains = [
        [(place, (place + turn) % labels) for place in order[begins : begins + CHAIN]]
        for turn, order in enumerate(orders)
        for begins in range(0, n, CHAIN)
    ]
    wholes = await plain.tokenize([task.preamble + _text(task, chain) for chain in chains])
    differing, first = 0, ""
    for chain, whole in zip(chains, wholes, strict=True):
        sent = preamble + [
            token for number, one in enumerate(chain) for token in _tokens(found, one, first=number == 0)
        ]
        if sent != whole:
            at = _shared(sent, whole)
            ours, theirs = sent[at : at + 4], whole[at : at + 4]
            shown = ", ".join(str(task.examples[place].id) for place, _ in chain)
            first = first or f"of examples {shown}, at token {at}: {ours}... sent, {theirs}... in the whole text"
            differing += 1
    return Proof(len(chains), differing, first)


def _text(task: Task, chain: Sequence[tuple[int, int]]) -> str:
    return task.separator.join(task.examples[place].text + task.label_words[label] for place, label in chain)


def _tokens(found: Fragments, shown: tuple[int, int], *, first: bool) -> Ids:
    place, label = shown
    return (found.firsts if first else found.texts)[place] + found.words[label]


def _shared(a: Ids, b: Ids) -> int:
    """Return with how many tokens both begin."""
    pairs = zip(a, b, strict=False)
    return next((place for place, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
