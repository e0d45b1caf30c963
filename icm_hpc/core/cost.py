"""What a scoring costs in tokens, before it is sent: exact for a server that caches whole blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .layout import Block, Query

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lengths:
    """A task's texts as tokens; their lengths decide what a scoring costs, their beginnings what prompts share."""

    # By example: the separator and its text, where its label is asked; and its text at the beginning of a prompt. Too long
    # to be shown: asyncio.run makes a text of what it returns.
    texts: Sequence[Tokens] = field(repr=False)
    firsts: Sequence[Tokens] = field(repr=False)
    start: int  # tokens that every prompt begins with
    suffix: int  # tokens of a label word; of the longest

    def demonstration(self, index: int) -> int:
        """Return an example's length as a demonstration, tokens."""
        return len(self.texts[index]) + self.suffix

    def lead(self, index: int) -> int:
        """Return the tokens that an example has more at the beginning of a prompt; less than 0 for the missing separator."""
        return len(self.firsts[index]) - len(self.texts[index])

    def shared(self, a: int, b: int, *, first: bool = False) -> int:
        """Return the tokens with which two examples' texts begin alike, inside or at the beginning of a prompt."""
        texts = self.firsts if first else self.texts
        x, y = texts[a], texts[b]
        n = min(len(x), len(y))
        differs = np.flatnonzero(x[:n] != y[:n])
        return int(differs[0]) if len(differs) else n


@dataclass(frozen=True, slots=True)
class Cost:
    """One scoring: tokens, and the token positions from which attention's work is made."""

    prompts: int
    prompt_tokens: int
    computed_tokens: int
    context_tokens: int  # sum over computed tokens of the tokens before each
    held_tokens: int  # KV of all that prompts of this scoring share and do not
    longest_prompt: int

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that the prefix cache answers."""
        return 1 - self.computed_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def scoring_cost(queries: Sequence[Query], lengths: Lengths, block_size: int, *, changed: int | None = None) -> Cost:
    """Return what a scoring costs a server whose prefix cache holds it, from an empty cache.

    With `changed`, from a cache that has just done the same scoring with another label of that example. Blocks are cached
    whole, and the last token of a prompt is always computed.
    """
    computed = context = total = longest = held = 0
    before: Query | None = None
    known: dict[int, int] = {}  # tokens of a block, by its identity

    def tokens(block: Block) -> int:
        if id(block) not in known:
            known[id(block)] = sum(map(lengths.demonstration, block))
        return known[id(block)]

    for query in queries:
        lead = lengths.lead(next((block[0] for block in query.blocks if block), query.index))
        n = lengths.start + lead + sum(map(tokens, query.blocks)) + len(lengths.texts[query.index])
        shared = _shared(query, before, lengths, tokens) if before else 0
        held += n // block_size * block_size - min(shared, n) // block_size * block_size
        if changed is not None:
            shared = max(shared, _unchanged(query.demonstrations, lengths, changed, n))
        hit = min(shared, n - 1) // block_size * block_size
        computed += n - hit
        context += (n * n - hit * hit) // 2
        total, longest, before = total + n, max(longest, n), query
    return Cost(len(queries), total, computed, context, held, longest)


def applied_cost(prefix: int, lengths: Lengths, block_size: int, *, replicas: int = 1) -> Cost:
    """Return what it costs to ask all examples behind the same `prefix` tokens, which each replica computes once."""
    hit = prefix // block_size * block_size
    texts = np.array([len(text) for text in lengths.texts], dtype=np.int64)
    own = texts + prefix - hit
    return Cost(
        prompts=len(texts),
        prompt_tokens=int(len(texts) * prefix + texts.sum()),
        computed_tokens=int(own.sum() + replicas * hit),
        context_tokens=int((own * hit + own * own // 2).sum() + replicas * hit * hit // 2),
        held_tokens=replicas * hit,
        longest_prompt=int(prefix + texts.max(initial=0)),
    )


def total(costs: Sequence[Cost]) -> Cost:
    """Return what the parts of a scoring cost together, each with a prefix cache of its own."""
    sums = {
        key: sum(getattr(one, key) for one in costs) for key in Cost.__dataclass_fields__ if key != "longest_prompt"
    }
    return Cost(**sums, longest_prompt=max((one.longest_prompt for one in costs), default=0))


def repeated(one: Cost, times: int, block_size: int) -> Cost:
    """Return what a scoring costs whose prompts are sent so many times, each time with another short end; about.

    All but the tokens behind the last whole block come from the cache: half a block on the mean.
    """
    again = one.prompts * (times - 1) * (block_size // 2 + 1)
    return replace(
        one,
        prompts=one.prompts * times,
        prompt_tokens=one.prompt_tokens * times,
        computed_tokens=one.computed_tokens + again,
        context_tokens=one.context_tokens + again * one.prompt_tokens // max(1, one.prompts),
    )


def _shared(query: Query, before: Query, lengths: Lengths, tokens_of: Callable[[Block], int]) -> int:
    """Return the tokens that a prompt shares with the one sent before it: in depth-first order no other shares more."""
    tokens, first = lengths.start, True  # so far, and whether that is the beginning of the prompt
    for mine, theirs in zip(query.blocks, before.blocks, strict=False):
        if mine is theirs:
            tokens += tokens_of(mine) + (lengths.lead(mine[0]) if first and mine else 0)
            first = first and not mine
            continue
        for a, b in zip(mine, theirs, strict=False):
            if a != b:
                return tokens + lengths.shared(a, b, first=first)
            tokens += lengths.demonstration(a) + (lengths.lead(a) if first else 0)
            first = False
        if len(mine) != len(theirs):
            a = mine[len(theirs)] if len(mine) > len(theirs) else query.index
            b = theirs[len(mine)] if len(theirs) > len(mine) else before.index
            return tokens + lengths.shared(a, b, first=first)
    return tokens + lengths.shared(query.index, before.index, first=first)


def _unchanged(ids: Sequence[int], lengths: Lengths, changed: int, n: int) -> int:
    """Return the tokens of a prompt up to the label that was changed."""
    if changed not in ids:
        return n
    place = ids.index(changed)
    before = lengths.start + lengths.lead(ids[0]) + sum(map(lengths.demonstration, ids[:place]))
    return before + len(lengths.texts[changed])
