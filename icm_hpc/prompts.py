"""How leave-one-out prompts are written for the server, and how answers are read: as tokens, or as the published text.

A written prompt is the JSON of its token ids or of its text, made once and sent as it is: no list of numbers, no encoder.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .client import Client
from .core import forecast
from .core.forecast import Cost, Lengths
from .core.layout import LAYOUTS, Block, Query, of_replica
from .core.published import label_scores
from .core.types import Indices, Labels
from .errors import FitError, TaskError
from .memo import Rows
from .tasks import Task


class Tokenizes(Protocol):
    """A served model's tokenizer, or one that stands in for it."""

    model: str
    exact: bool  # what it says is the model's own

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text; `special` adds what starts a sequence."""


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
    """Token ids, and exact log-probabilities of the label tokens."""

    start: bytes  # what a sequence starts with, such as a BOS token; as all below, ids with a comma after each
    demonstrations: tuple[tuple[bytes, ...], ...]  # by label, by example
    texts: tuple[bytes, ...]  # by example: where its label is asked
    label_ids: tuple[int, ...]  # by label
    lengths: Lengths

    @property
    def demonstration_tokens(self) -> Indices:
        """Length of each example as a demonstration: i64[N], tokens."""
        n = len(self.texts)
        return np.fromiter(map(self.lengths.demonstration, range(n)), dtype=np.int64, count=n)

    def write(self, queries: Iterable[Query], labels: Labels) -> Iterator[bytes]:
        """Yield the JSON of each prompt, in order; blocks that prompts share are joined once."""
        # An unlabelled example is no demonstration: its place is never looked at.
        fragments = [self.demonstrations[label][i] for i, label in enumerate(labels.tolist())]
        joined: dict[int, bytes] = {}  # by the block's identity: a hash of its content would cost what joining costs

        def bytes_of(block: Block) -> bytes:
            if id(block) not in joined:
                joined[id(block)] = b"".join([fragments[i] for i in block])
            return joined[id(block)]

        for query in queries:
            shared = len(query.blocks) > 1  # a layout of one block a prompt shares none
            parts = [bytes_of(block) if shared else b"".join([fragments[i] for i in block]) for block in query.blocks]
            yield b"".join([b"[", self.start, *parts, self.texts[query.index][:-1], b"]"])

    @property
    def longest(self) -> int:
        """Tokens of a prompt with all other examples as demonstrations, and the one that is generated, at most."""
        return int(self.lengths.start + self.demonstration_tokens.sum() - self.lengths.suffix + 1)

    def cost(
        self, layout: str, groups: Indices, block_size: int, *, replicas: int = 1, pool: int | None = None
    ) -> Cost:
        """Forecast one scoring of all examples, or of the first `pool`, shared out among replicas."""
        members = np.arange(len(self.texts) if pool is None else pool)
        queries = LAYOUTS[layout](members, members, groups, self.demonstration_tokens, "eval")
        shares = [list(of_replica(queries, number, replicas)) for number in range(replicas)]
        return forecast.total([forecast.cost(share, self.lengths, block_size) for share in shares])

    async def score(self, client: Client, prompts: Iterable[bytes]) -> Rows:
        """Return log P(label | prompt)."""
        return await client.label_logprobs(prompts, self.label_ids)


@dataclass(frozen=True, slots=True)
class TextPrompts:
    """The published way: text that ends with a space, and the label names that the likeliest 20 tokens contain."""

    texts: tuple[str, ...]  # by example
    names: tuple[str, ...]  # of labels, without space
    separator: str
    demonstration_tokens: Indices

    def text(self, query: Query, labels: Labels) -> str:
        """Return one prompt."""
        shown = [f"{self.texts[i]} {self.names[labels[i]]}{self.separator}" for i in query.demonstrations]
        return f"{''.join(shown)}{self.texts[query.index]} "

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
    return TextPrompts(tuple(e.text for e in task.examples), names, task.separator, demonstration_tokens)


async def of_tokens(client: Tokenizes, task: Task) -> TokenPrompts:
    """Return the task's prompts as tokens of the server's own tokenizer, or of its stand-in.

    Raises TaskError for a label word that is not one token; of an estimate, none is raised.
    """
    texts = [example.text for example in task.examples]
    *tokens, separator = await client.tokenize([*texts, task.separator])
    (start,) = await client.tokenize([""], special=True)
    words = await client.tokenize(task.label_words)
    for word, ids in zip(task.label_words, words, strict=True):
        if len(ids) != 1 and client.exact:
            raise TaskError(
                f"the label word {word!r} is {len(ids)} tokens of model {client.model} ({ids}); labels must be one token:"
                " choose other words with task.label_words=[...] (mind the space before a word)"
            )
    label_ids = tuple(ids[0] for ids in words)
    if len(set(label_ids)) < len(label_ids) and client.exact:
        raise TaskError(f"the label words {list(task.label_words)} are the same token of model {client.model}")
    asked = tuple(map(_listed, tokens))
    return TokenPrompts(
        start=_listed(start),
        demonstrations=tuple(tuple(text + _listed([label, *separator]) for text in asked) for label in label_ids),
        texts=asked,
        label_ids=label_ids,
        lengths=Lengths([np.array(ids, dtype=np.int64) for ids in tokens], len(start), 1 + len(separator)),
    )


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
