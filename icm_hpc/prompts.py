"""How a leave-one-out prompt is written for the server, and how its answer is read: as tokens, or as the published text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .client import Client, Prompt
from .core.layout import Query
from .core.published import label_scores
from .core.types import Indices, Labels
from .errors import FitError, TaskError
from .tasks import Task

Rows: TypeAlias = npt.NDArray[np.float64]  # [prompts, L], nats


class Prompts(Protocol):
    """A task's prompts in one way of writing."""

    @property
    def demonstration_tokens(self) -> Indices:
        """Length of each example as a demonstration: i64[N], tokens."""

    def write(self, query: Query, labels: Labels) -> Prompt:
        """Return one prompt."""

    async def score(self, client: Client, prompts: Sequence[Prompt]) -> Rows:
        """Return the scores of each label after each prompt."""


@dataclass(frozen=True, slots=True)
class TokenPrompts:
    """Token ids, joined without a further look at the text; exact log-probabilities of the label tokens."""

    start: npt.NDArray[np.int32]  # what a sequence starts with, such as a BOS token
    texts: tuple[npt.NDArray[np.int32], ...]  # by example
    label_ids: tuple[int, ...]  # by label
    separator: npt.NDArray[np.int32]

    @property
    def demonstration_tokens(self) -> Indices:
        """Length of each example as a demonstration: i64[N], tokens."""
        return np.array([len(text) + 1 + len(self.separator) for text in self.texts], dtype=np.int64)

    def write(self, query: Query, labels: Labels) -> Prompt:
        """Return the tokens of one prompt."""
        parts = [self.start]
        for index in query.demonstrations:
            label = np.array([self.label_ids[labels[index]]], dtype=np.int32)
            parts += [self.texts[index], label, self.separator]
        tokens: list[int] = np.concatenate([*parts, self.texts[query.index]]).tolist()
        return tokens

    async def score(self, client: Client, prompts: Sequence[Prompt]) -> Rows:
        """Return log P(label | prompt)."""
        return await client.label_logprobs(prompts, self.label_ids)


@dataclass(frozen=True, slots=True)
class TextPrompts:
    """The published way: text that ends with a space, and the label words that the likeliest 20 tokens contain."""

    texts: tuple[str, ...]  # by example
    names: tuple[str, ...]  # of labels, without space
    separator: str
    demonstration_tokens: Indices

    def write(self, query: Query, labels: Labels) -> Prompt:
        """Return the text of one prompt."""
        shown = [f"{self.texts[i]} {self.names[labels[i]]}{self.separator}" for i in query.demonstrations]
        return f"{''.join(shown)}{self.texts[query.index]} "

    async def score(self, client: Client, prompts: Sequence[Prompt]) -> Rows:
        """Return log(1e-5 + P(tokens that contain the label's name)), the published reading of an answer."""
        names = [name.lower() for name in self.names]
        answers = await client.top_logprobs(prompts)
        return np.array([label_scores(answer, names) for answer in answers]).reshape(len(prompts), len(names))


def of_text(task: Task, demonstration_tokens: Indices) -> TextPrompts:
    """Return the task's prompts as the published code writes them."""
    names = tuple(word.strip() for word in task.label_words)
    return TextPrompts(tuple(e.text for e in task.examples), names, task.separator, demonstration_tokens)


async def of_tokens(client: Client, task: Task) -> TokenPrompts:
    """Return the task's prompts as tokens of the server's own tokenizer.

    Raises TaskError for a label word that is not one token.
    """
    texts = [example.text for example in task.examples]
    tokens = await client.tokenize([*texts, task.separator, *task.label_words])
    (start,) = await client.tokenize([""], special=True)
    words = tokens[len(texts) + 1 :]
    for word, ids in zip(task.label_words, words, strict=True):
        if len(ids) != 1:
            raise TaskError(
                f"the label word {word!r} is {len(ids)} tokens of model {client.model} ({ids}); labels must be one token:"
                " choose other words with task.label_words=[...] (mind the space before a word)"
            )
    label_ids = tuple(ids[0] for ids in words)
    if len(set(label_ids)) < len(label_ids):
        raise TaskError(f"the label words {list(task.label_words)} are the same token of model {client.model}")
    arrays = [np.array(ids, dtype=np.int32) for ids in tokens[: len(texts) + 1]]
    return TokenPrompts(np.array(start, dtype=np.int32), tuple(arrays[:-1]), label_ids, arrays[-1])


def require_fit(prompts: TokenPrompts, max_model_len: int) -> None:
    """Raise FitError if a pool with all examples labelled, and the token that is generated, exceed the model's context."""
    lengths = prompts.demonstration_tokens
    longest = int(len(prompts.start) + lengths.sum() - len(prompts.separator))
    if longest > max_model_len:
        n = len(lengths)
        raise FitError(
            f"a prompt with all {n} examples is {longest} tokens, but the server's context is {max_model_len}: set"
            f" search.pool_size to about {n * max_model_len // longest}, or model.max_model_len={longest}"
        )
