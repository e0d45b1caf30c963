"""Labels -> prompts in a layout -> requests -> scores, with a memo of what was already asked."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .client import Client, Traffic
from .core.layout import LAYOUTS, Layout, Query
from .core.types import Ask, Indices, Labels, Problem, ScoreOne, Scores, pool_of
from .errors import FitError, TaskError
from .tasks import Task

MEMO_PROMPTS = 1_000_000  # about 150 bytes each


@dataclass(frozen=True, slots=True)
class PromptParts:
    """The task as tokens of the served model: i32 arrays, joined without a further look at the text."""

    start: npt.NDArray[np.int32]  # what a sequence starts with, such as a BOS token
    texts: tuple[npt.NDArray[np.int32], ...]  # by example
    label_ids: tuple[int, ...]  # by label
    separator: npt.NDArray[np.int32]

    def demonstration_tokens(self) -> Indices:
        """Return the length of each example as a demonstration: i64[N], tokens."""
        return np.array([len(text) + 1 + len(self.separator) for text in self.texts], dtype=np.int64)

    def longest_prompt(self) -> int:
        """Return the tokens of the longest leave-one-out prompt over all examples, with the token that is generated."""
        return int(len(self.start) + self.demonstration_tokens().sum() - 1 - len(self.separator) + 1)

    def prompt(self, query: Query, labels: Labels) -> npt.NDArray[np.int32]:
        """Return the tokens of one prompt."""
        parts = [self.start]
        for index in query.demonstrations:
            label = np.array([self.label_ids[labels[index]]], dtype=np.int32)
            parts += [self.texts[index], label, self.separator]
        return np.concatenate([*parts, self.texts[query.index]])


async def prompt_parts(client: Client, task: Task) -> PromptParts:
    """Return the task's tokens, from the server's own tokenizer.

    Raises TaskError for a label word that is not one token, FitError if the whole pool does not fit the context.
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
    return PromptParts(np.array(start, dtype=np.int32), tuple(arrays[:-1]), label_ids, arrays[-1])


def require_fit(parts: PromptParts, max_model_len: int) -> None:
    """Raise FitError if the pool, fully labelled, is longer than the model's context."""
    longest = parts.longest_prompt()
    if longest > max_model_len:
        n = len(parts.texts)
        fitting = n * max_model_len // longest
        raise FitError(
            f"a prompt with all {n} examples is {longest} tokens, but the server's context is {max_model_len}:"
            f" set task.limit to about {fitting}, or serve the model with model.max_model_len={longest}"
        )


@dataclass(slots=True)
class Work:
    """What the scorer has done; its requests are in the client's traffic."""

    scorings: int = 0
    scoring_s: float = 0.0  # spent waiting for answers
    prompts_wanted: int = 0
    prompts_from_memo: int = 0


class Scorer:
    """Answers what a search asks, by one client."""

    def __init__(self, client: Client, parts: PromptParts, problem: Problem, layout: str) -> None:
        self._client, self._parts, self._problem = client, parts, problem
        self._layout: Layout = LAYOUTS[layout]
        self._tokens = parts.demonstration_tokens()
        self._memo: OrderedDict[bytes, npt.NDArray[np.float64]] = OrderedDict()
        self.work = Work()

    @property
    def traffic(self) -> Traffic:
        """What was sent for it."""
        return self._client.traffic

    def arranged(self, ask: Ask) -> list[Query]:
        """Return the prompts that `ask` needs, in the layout's order."""
        pool, groups = pool_of(ask.labels), self._problem.groups
        if isinstance(ask, ScoreOne):
            members = np.union1d(pool, [ask.index])
            return self._layout(members, np.array([ask.index]), groups, self._tokens, "predict")
        return self._layout(pool, pool, groups, self._tokens, ask.purpose)

    async def answer(self, ask: Ask) -> npt.NDArray[np.float64]:
        """Return what `ask` is to be sent: Scores for a pool, f64[L] for one example."""
        queries = self.arranged(ask)
        rows = await self.score(queries, ask.labels)
        if isinstance(ask, ScoreOne):
            one: npt.NDArray[np.float64] = rows[0]
            return one
        scores: Scores = np.full((self._problem.n, self._problem.n_labels), np.nan)
        scores[[query.index for query in queries]] = rows
        scores.flags.writeable = False
        return scores

    async def score(self, queries: Sequence[Query], labels: Labels) -> npt.NDArray[np.float64]:
        """Return f64[len(queries), L]; prompts that were asked before are answered from the memo."""
        prompts = [self._parts.prompt(query, labels) for query in queries]
        keys = [hashlib.blake2b(prompt.tobytes(), digest_size=16).digest() for prompt in prompts]
        missing = [place for place, key in enumerate(keys) if key not in self._memo]
        self.work.prompts_wanted += len(keys)
        self.work.prompts_from_memo += len(keys) - len(missing)
        if missing:
            began = time.monotonic()
            asked = [prompts[place].tolist() for place in missing]
            values = await self._client.label_logprobs(asked, self._parts.label_ids)
            self.work.scorings += 1
            self.work.scoring_s += time.monotonic() - began
            for place, row in zip(missing, values, strict=True):
                self._memo[keys[place]] = row
        rows = [self._memo[key] for key in keys]
        while len(self._memo) > MEMO_PROMPTS:
            self._memo.popitem(last=False)
        await asyncio.sleep(0)  # a search answered from the memo alone must still let signals through
        return np.array(rows).reshape(len(keys), len(self._parts.label_ids))
