"""Labels -> prompts in a layout -> requests -> scores, with a memo of what was already asked."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..core.layout import LAYOUTS, Block, Query, of_replica, replica_of
from ..core.memo import Memo, Remembered, Rows
from ..core.search import Answer
from ..core.types import Ask, LabelNumber, Labels, Problem, Purpose, ScoreOne, ScorePool, Scores, pool_of
from ..errors import BadAnswer, ScoringError
from .client import Client, all_of
from .prompts import Prompts

R = TypeVar("R")
Answers = TypeVar("Answers")

# Multiples of it, less whole numbers, are spread evenly over 0 to 1: so neighbours go to different replicas.
GOLDEN_RATIO = (5**0.5 - 1) / 2

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    """What scorers have done; their requests are in the client's traffic."""

    scorings: int = 0  # of whole pools, that were sent
    scorings_from_memo: int = 0  # of pools and of single examples
    single_examples: int = 0  # that were sent each by itself
    proposals_abandoned: int = 0  # since what they needed to know could not be scored
    waits: int = 0  # times that a search waited for answers
    waiting_s: float = 0.0  # summed over searches


class Scorer:
    """Answers what one search asks."""

    def __init__(
        self,
        client: Client,
        prompts: Prompts,
        problem: Problem,
        layout: str,
        *,
        memo_bytes: int = 16_000_000,
        remembered: Iterable[Remembered] = (),
        work: Work | None = None,
        word_prior: Rows | None = None,
    ) -> None:
        self._client, self._prompts, self._problem = client, prompts, problem
        self._word_prior = word_prior  # f64[L], nats: subtracted from what the server answers, before anything keeps it
        self._arrange = LAYOUTS[layout].arrange
        self._arranged: dict[Purpose, list[Query]] = {}  # of the last pool, by purpose: labels do not matter
        self._whole: tuple[list[Query], tuple[Block, ...]] = ([], ())  # the last pool as arranged, and in one order
        self._pool: bytes | None = None
        self.memo = Memo(memo_bytes, purposes_differ=LAYOUTS[layout].depends_on_purpose, remembered=remembered)
        self.work = work or Work()

    def arranged(self, ask: Ask) -> list[Query]:
        """Return the prompts that `ask` needs, in the layout's order."""
        pool, groups, tokens = pool_of(ask.labels), self._problem.groups, self._prompts.demonstration_tokens
        if isinstance(ask, ScoreOne) and not ask.shared_prefix:
            members = np.union1d(pool, [ask.index])
            return self._arrange(members, np.array([ask.index]), groups, tokens, "predict")
        if self._pool != pool.tobytes():
            self._pool, self._arranged = pool.tobytes(), {}
        purpose: Purpose = "eval" if isinstance(ask, ScoreOne) else ask.purpose
        if purpose not in self._arranged:
            self._arranged[purpose] = self._arrange(pool, pool, groups, tokens, purpose)
        if isinstance(ask, ScoreOne):
            return [Query(ask.index, self._whole_of(self._arranged[purpose]), place=ask.index * GOLDEN_RATIO % 1)]
        return self._arranged[purpose]

    def _whole_of(self, arranged: list[Query]) -> tuple[Block, ...]:
        """Return the pool in one order; the same blocks, as objects, as long as it is arranged the same."""
        if self._whole[0] is not arranged:
            self._whole = arranged, whole_pool(arranged)
        return self._whole[1]

    async def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Return what each ask is to be sent: Scores for a pool, f64[L] for one example.

        What the memo does not know is sent together, each distinct ask once. Raises what the client raises.
        """
        keys, known, missing = self._sorted(asks)
        self.work.scorings_from_memo += len(asks) - len(missing)
        known.update(await self._learn(missing))
        if not missing:
            await asyncio.sleep(0)  # a search answered from the memo alone must still let signals through
        return [self._shaped(ask, known[key]) for ask, key in zip(asks, keys, strict=True)]

    async def try_to_answer(self, asks: Sequence[Ask]) -> list[Answer | None]:
        """Do the same, with None for an ask to which no answer is a score."""
        try:
            return list(await self.answer(asks))
        except BadAnswer as error:
            log.warning("an answer is no score (%s); asking for each labelling by itself", error)
        keys, known, missing = self._sorted(asks)
        for key, ask in missing.items():
            try:
                known.update(await self._learn({key: ask}))
            except BadAnswer as error:
                await self._prove()
                log.warning("what a proposal needs cannot be scored: %s", error)
        return [self._shaped(ask, known[key]) if key in known else None for ask, key in zip(asks, keys, strict=True)]

    async def _prove(self) -> None:
        """Score a plain prompt; raises ScoringError if that gets no score either, for then no proposal is at fault."""
        plain = self._prompts.write([Query(0, ())], np.zeros(self._problem.n, dtype=LabelNumber))
        try:
            await self._prompts.score(self._client, plain)
        except BadAnswer as error:
            raise ScoringError(f"the server gives no score to a plain prompt: {error}") from error

    def _sorted(self, asks: Sequence[Ask]) -> tuple[list[bytes], dict[bytes, Rows], dict[bytes, Ask]]:
        """Return the key of each ask, what the memo knows of them, and the distinct asks that it does not know."""
        keys = [self.memo.key(ask) for ask in asks]
        known = {key: rows for key in keys if (rows := self.memo.get(key)) is not None}
        return keys, known, {key: ask for key, ask in zip(keys, asks, strict=True) if key not in known}

    async def _learn(self, missing: Mapping[bytes, Ask]) -> dict[bytes, Rows]:
        """Ask the server, all at once."""
        if not missing:
            return {}
        pools = sum(isinstance(ask, ScorePool) for ask in missing.values())
        self.work.scorings += pools
        self.work.single_examples += len(missing) - pools
        wanted = [(self.arranged(ask), ask.labels) for ask in missing.values()]
        ends = np.cumsum([len(queries) for queries, _ in wanted])[:-1]
        parts = np.split(await self.score(wanted), ends)
        learnt = {}
        for key, (queries, _), rows in zip(missing, wanted, parts, strict=True):
            learnt[key] = self.memo[key] = rows[np.argsort([query.index for query in queries])]
        return learnt

    async def score(self, wanted: Sequence[tuple[Sequence[Query], Labels]]) -> Rows:
        """Send the prompts of each labelling, each to the replica that has its place in the layout; return f64[prompts, L]."""
        replicas = self._client.replicas
        answering = np.array([replica_of(query, replicas) for queries, _ in wanted for query in queries])

        def written(number: int) -> Iterator[bytes]:
            for queries, labels in wanted:
                yield from self._prompts.write(of_replica(queries, number, replicas), labels)

        began = time.monotonic()
        used = [int(number) for number in np.unique(answering)]
        parts = await all_of(self._prompts.score(self._client.replica(number), written(number)) for number in used)
        self.work.waits += 1
        self.work.waiting_s += time.monotonic() - began
        rows = np.empty((len(answering), self._problem.n_labels))
        for number, part in zip(used, parts, strict=True):
            rows[answering == number] = part
        return rows if self._word_prior is None else rows - self._word_prior

    def _shaped(self, ask: Ask, rows: Rows) -> Answer:
        if isinstance(ask, ScoreOne):
            one: Answer = rows[0]
            return one
        scores: Scores = np.full((self._problem.n, self._problem.n_labels), np.nan)
        scores[pool_of(ask.labels)] = rows
        scores.flags.writeable = False
        return scores


def whole_pool(arranged: Sequence[Query]) -> tuple[Block, ...]:
    """Return the pool in the order that continues the last of its prompts, so that the cache has most of it."""
    return (*arranged[-1].blocks, (arranged[-1].index,)) if arranged else ()


async def answered(
    asking: Generator[Sequence[Ask], Answers, R], answer: Callable[[Sequence[Ask]], Awaitable[Answers]]
) -> R:
    """Answer all that a search asks, and return what it returns."""
    try:
        asks = next(asking)
        while True:
            asks = asking.send(await answer(asks))
    except StopIteration as end:
        result: R = end.value
        return result
