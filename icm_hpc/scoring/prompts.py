"""How leave-one-out prompts are written for the server, and how answers are read: as tokens, or as the published text.

A written prompt is the JSON of its token ids or of its text, made once and sent as it is: no list of numbers, no encoder.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..core.cost import Cost, Lengths, repeated, scoring_cost, total
from ..core.layout import LAYOUTS, Block, Query, of_replica
from ..core.memo import Rows
from ..core.published import label_scores
from ..core.scorings import SCORINGS
from ..core.types import Indices, Labels
from ..errors import FitError
from ..tasks import Task
from ..tasks.words import require_readable_in_top_tokens
from . import running_text
from .answers import Answers
from .client import Client
from .running_text import Fragments, Proof, Tokenizes


class Prompts(Protocol):
    """A task's prompts in one way of writing."""

    @property
    def demonstration_tokens(self) -> Indices:
        """Length of each example as a demonstration: i64[N], tokens."""

    def write(self, queries: Iterable[Query], labels: Labels) -> Iterator[bytes]:
        """Yield the JSON of each prompt, in order."""

    async def score(self, client: Client, prompts: Iterable[bytes]) -> Rows:
        """Return the scores of each label after each prompt."""


@dataclass(frozen=True, slots=True)
class TokenPrompts:
    """Token ids, and exact log-probabilities of the label words."""

    start: bytes  # what a sequence starts with, such as a BOS token; as all below, ids with a comma after each
    texts: tuple[bytes, ...] = field(repr=False)  # by example: the separator and its text, where its label is asked
    firsts: tuple[bytes, ...] = field(repr=False)  # by example: its text at the beginning of a prompt
    words: tuple[bytes, ...]  # by label
    answers: Answers
    lengths: Lengths
    proof: Proof
    specials: tuple[str, ...]  # special tokens that examples spell, which are sent as text

    @property
    def demonstration_tokens(self) -> Indices:
        """Length of each example as a demonstration: i64[N], tokens."""
        n = len(self.texts)
        return np.fromiter(map(self.lengths.demonstration, range(n)), dtype=np.int64, count=n)

    @property
    def label_ids(self) -> tuple[int, ...]:
        """The first token of each label word."""
        return self.answers.first_ids

    def write(self, queries: Iterable[Query], labels: Labels) -> Iterator[bytes]:
        """Yield the JSON of each prompt, in order; blocks that prompts share are joined once."""
        # An unlabelled example is no demonstration: its place is never looked at.
        fragments = [text + self.words[label] for text, label in zip(self.texts, labels.tolist(), strict=True)]
        joined: dict[int, bytes] = {}  # by the block's identity: a hash of its content would cost what joining costs

        def opening(block: Block) -> bytes:
            head = block[0]
            return b"".join([self.firsts[head], self.words[labels[head]], *[fragments[i] for i in block[1:]]])

        def bytes_of(block: Block, *, first: bool, shared: bool) -> bytes:
            """Join a block; one that begins a prompt begins every prompt that has it."""
            if id(block) in joined:
                return joined[id(block)]
            whole = opening(block) if first else b"".join([fragments[i] for i in block])
            if shared:
                joined[id(block)] = whole
            return whole

        for query in queries:
            blocks = [block for block in query.blocks if block]
            shared = len(query.blocks) > 1  # a layout of one block a prompt shares none
            parts = [bytes_of(block, first=place == 0, shared=shared) for place, block in enumerate(blocks)]
            asked = (self.texts if blocks else self.firsts)[query.index]
            yield b"".join([b"[", self.start, *parts, asked[:-1], b"]"])

    @property
    def longest(self) -> int:
        """Tokens of a prompt with all other examples as demonstrations, and the one that is generated, at most."""
        return self.longest_after(-self.lengths.suffix)

    def longest_after(self, tokens: int) -> int:
        """Return the same of a prompt in which a text of so many tokens follows all examples as demonstrations."""
        lead = max(map(self.lengths.lead, range(len(self.texts))))
        most = self.lengths.start + lead + self.demonstration_tokens.sum() + tokens
        return int(most + self.answers.longest + 1)

    def cost(
        self, layout: str, groups: Indices, block_size: int, *, replicas: int = 1, pool: int | None = None
    ) -> Cost:
        """Forecast one scoring of all examples, or of the first `pool`, shared out among replicas."""
        members = np.arange(len(self.texts) if pool is None else pool)
        queries = LAYOUTS[layout].arrange(members, members, groups, self.demonstration_tokens, "eval")
        shares = [list(of_replica(queries, number, replicas)) for number in range(replicas)]
        once = total([scoring_cost(share, self.lengths, block_size) for share in shares])
        return repeated(once, len(self.answers.nodes), block_size)

    async def score(self, client: Client, prompts: Iterable[bytes]) -> Rows:
        """Return log P(label | prompt)."""
        return await self.answers.score(client, prompts)


@dataclass(frozen=True, slots=True)
class TextPrompts:
    """The published way: text that ends with a space, and the label names that the top 20 tokens contain."""

    texts: tuple[str, ...]  # by example
    names: tuple[str, ...]  # of labels, without space
    separator: str
    demonstration_tokens: Indices
    preamble: str = ""

    def text(self, query: Query, labels: Labels) -> str:
        """Return one prompt."""
        shown = [f"{self.texts[i]} {self.names[labels[i]]}{self.separator}" for i in query.demonstrations]
        return f"{self.preamble}{''.join(shown)}{self.texts[query.index]} "

    def write(self, queries: Iterable[Query], labels: Labels) -> Iterator[bytes]:
        """Yield the JSON of each prompt, in order."""
        for query in queries:
            yield json.dumps(self.text(query, labels)).encode()

    async def score(self, client: Client, prompts: Iterable[bytes]) -> Rows:
        """Return log(1e-5 + P(tokens that contain the label's name)), the published reading of an answer."""
        names = [name.lower() for name in self.names]
        rows = [label_scores(answer, names) for answer in await client.top_logprobs(prompts)]
        return np.array(rows).reshape(len(rows), len(names))


def of_text(task: Task, demonstration_tokens: Indices) -> TextPrompts:
    """Return the task's prompts as the published code writes them."""
    names = tuple(word.strip() for word in task.label_words)
    texts = tuple(example.text for example in task.examples)
    return TextPrompts(texts, names, task.separator, demonstration_tokens, task.preamble)


async def written(client: Client, task: Task, scoring: str) -> tuple[TokenPrompts, Prompts]:
    """Return the task's prompts as tokens, and in the way in which they are sent."""
    tokens = await of_tokens(client, task)
    sends_text = SCORINGS[scoring].sends_text
    return tokens, of_text(task, tokens.demonstration_tokens) if sends_text else tokens


async def of_tokens(client: Tokenizes, task: Task) -> TokenPrompts:
    """Return the task's prompts as tokens of the server's own tokenizer, or of its stand-in.

    Raises TaskError for label words that their tokens do not tell apart; of an estimate, none is raised.
    """
    return _written(await (running_text.cut if client.exact else running_text.estimated)(client, task))


def _written(found: Fragments) -> TokenPrompts:
    texts, words = tuple(map(_listed, found.texts)), tuple(map(_listed, found.words))
    return TokenPrompts(
        start=_listed(found.start),
        texts=texts,
        firsts=tuple(map(_listed, found.firsts)),
        words=words,
        answers=Answers.of(found.words),
        lengths=Lengths(
            texts=[np.array(ids, dtype=np.int64) for ids in found.texts],
            firsts=[np.array(ids, dtype=np.int64) for ids in found.firsts],
            start=len(found.start),
            suffix=max(map(len, found.words)),
        ),
        proof=found.proof,
        specials=found.specials,
    )


def require_readable(task: Task, scoring: str) -> None:
    """Raise TaskError for label words that this way of scoring cannot tell apart, whatever the model."""
    if SCORINGS[scoring].reads_top_tokens:
        require_readable_in_top_tokens(task.label_words)


def cautions(tokens: TokenPrompts, scoring: str) -> list[str]:
    """Return what a user should know of how this model's tokenizer takes these prompts."""
    if SCORINGS[scoring].sends_text:
        spelt = ", ".join(tokens.specials)
        return [f"examples spell {spelt}: special tokens, for search.scoring={scoring} sends text"] if spelt else []
    found = [str(tokens.proof)] if tokens.proof.differing else []
    times = len(tokens.answers.nodes)
    if times > 1:
        found.append(
            f"label words are several tokens of this model: each prompt is sent {times} times, once for each beginning of a"
            " word, where words of one token are sent once"
        )
    return found


def require_fit(prompts: TokenPrompts, max_model_len: int) -> None:
    """Raise FitError if a pool with all examples labelled, and the token that is generated, exceed the model's context."""
    longest = prompts.longest
    if longest > max_model_len:
        n = len(prompts.texts)
        raise FitError(
            f"a prompt with all {n} examples is {longest} tokens, but the server's context is {max_model_len}: set"
            f" search.pool_size to about {n * max_model_len // longest}, or model.max_model_len={longest}"
        )


def _listed(ids: Sequence[int]) -> bytes:
    return "".join(f"{token}," for token in ids).encode()
