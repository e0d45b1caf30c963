"""The order of the demonstrations in leave-one-out prompts.

A layout takes the examples whose labels may be shown (`members`) and those to be asked (`queries`, a part of the members)
and gives each query all other members exactly once. Queries come in the order in which they are best sent.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .types import Indices, Purpose

Block: TypeAlias = tuple[int, ...]  # examples that follow one another in several prompts


@dataclass(frozen=True, slots=True)
class Query:
    """A prompt to be: the example asked, after the demonstrations of these blocks. Prompts share blocks as objects."""

    index: int
    blocks: tuple[Block, ...]
    place: float = 0.0  # in the layout's order, 0 to 1: of replicas each has an interval, in which prefixes are shared

    @property
    def demonstrations(self) -> Block:
        """All demonstrations, in order."""
        return tuple(index for block in self.blocks for index in block)


Arrange: TypeAlias = Callable[[Indices, Indices, Indices, Indices, Purpose], list[Query]]
"""(members i64[M] ascending, queries i64[Q], groups i64[N], tokens i64[N] of each demonstration, purpose) -> Q queries."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout, with what the search may rely on."""

    arrange: Arrange
    depends_on_purpose: bool = False  # the same labels are shown in another order where a scoring is for something else
    is_published: bool = False  # an order of the published code


def reference(members: Indices, queries: Indices, groups: Indices, tokens: Indices, purpose: Purpose) -> list[Query]:
    """Order demonstrations as the published code does: ascending, but grouped where a whole labelling is evaluated."""
    if purpose == "eval":
        return grouped(members, queries, groups, tokens, purpose)
    places = {m: place / len(members) for place, m in enumerate(members.tolist())}
    return [Query(q, (tuple(m for m in members.tolist() if m != q),), places[q]) for q in queries.tolist()]


def grouped(members: Indices, queries: Indices, groups: Indices, _tokens: Indices, _purpose: Purpose) -> list[Query]:
    """Drop the query, then order demonstrations by group: groups by their first member that is left, ascending inside."""
    order = [m for group in _by_group(members.tolist(), groups) for m in group]
    places = {m: place / len(order) for place, m in enumerate(order)}
    arranged = []
    for query in queries.tolist():
        rest = [m for m in members.tolist() if m != query]
        block = tuple(m for group in _by_group(rest, groups) for m in group)
        arranged.append(Query(query, (block,), places[query]))
    return arranged


def trie(members: Indices, queries: Indices, groups: Indices, tokens: Indices, _purpose: Purpose) -> list[Query]:
    """Split the members in halves A and B; A's queries see B first, B's see A first, and so on inside each half.

    Demonstration j is then in as many distinct prefixes as its leaf is deep: N log2 N demonstrations a scoring, where a
    fixed order has N^2 / 2. Halves are of equal tokens as far as whole groups allow, and queries come depth first. A query's
    place is its path: a binary fraction, which stays nearly the same while a pool grows.
    """
    wanted = set(queries.tolist())
    arranged: list[Query] = []
    stack: list[tuple[list[list[int]], tuple[Block, ...], float]] = [(_by_group(members.tolist(), groups), (), 0.0)]
    while stack:
        part, prefix, place = stack.pop()
        ids = [index for group in part for index in group]
        if wanted.isdisjoint(ids):
            continue
        if len(ids) == 1:
            arranged.append(Query(ids[0], prefix, place))
            continue
        units = part if len(part) > 1 else [[index] for index in ids]
        cut = _middle([int(tokens[unit].sum()) for unit in units])
        left, right = units[:cut], units[cut:]
        half = 0.5 ** (len(prefix) + 1)
        stack.append((right, (*prefix, tuple(i for unit in left for i in unit)), place + half))
        stack.append((left, (*prefix, tuple(i for unit in right for i in unit)), place))
    return arranged


def replica_of(query: Query, replicas: int) -> int:
    """Return which of the replicas answers a query: the one in whose interval its place is."""
    return int(query.place * replicas)


def of_replica(queries: Iterable[Query], number: int, replicas: int) -> Iterator[Query]:
    """Yield the queries that one of the replicas answers, in order."""
    return (query for query in queries if replica_of(query, replicas) == number)


LAYOUTS = {
    "trie": Layout(trie),
    "grouped": Layout(grouped, is_published=True),
    "reference": Layout(reference, depends_on_purpose=True, is_published=True),
}


def _by_group(members: Sequence[int], groups: Indices) -> list[list[int]]:
    """Return the members by group: groups by their first member, ascending inside."""
    parts: dict[int, list[int]] = {}
    for index in members:
        parts.setdefault(int(groups[index]), []).append(index)
    return list(parts.values())


def _middle(sizes: Sequence[int]) -> int:
    """Return the cut of 1..len-1 that leaves the two sides nearest to equal."""
    before = np.cumsum(sizes)[:-1]
    return int(np.argmin(np.abs(2 * before - sum(sizes)))) + 1
