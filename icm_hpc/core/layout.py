"""The order of the demonstrations in leave-one-out prompts.

A layout takes the examples whose labels may be shown (`members`) and those to be asked (`queries`, a part of the members)
and gives each query all other members exactly once. Queries come in the order in which they are best sent.
"""

from collections.abc import Callable, Sequence
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

    @property
    def demonstrations(self) -> Block:
        """All demonstrations, in order."""
        return tuple(index for block in self.blocks for index in block)


Layout = Callable[[Indices, Indices, Indices, Indices, Purpose], list[Query]]
"""(members i64[M] ascending, queries i64[Q], groups i64[N], tokens i64[N] of each demonstration, purpose) -> Q queries."""


def reference(members: Indices, queries: Indices, groups: Indices, tokens: Indices, purpose: Purpose) -> list[Query]:
    """Order demonstrations as the published code does: ascending, but grouped where a whole labelling is evaluated."""
    if purpose == "eval":
        return grouped(members, queries, groups, tokens, purpose)
    return [Query(q, (tuple(m for m in members.tolist() if m != q),)) for q in queries.tolist()]


def grouped(members: Indices, queries: Indices, groups: Indices, _tokens: Indices, _purpose: Purpose) -> list[Query]:
    """Drop the query, then order demonstrations by group: groups by their first member that is left, ascending inside."""
    arranged = []
    for query in queries.tolist():
        rest = [m for m in members.tolist() if m != query]
        arranged.append(Query(query, (tuple(m for group in _by_group(rest, groups) for m in group),)))
    return arranged


def trie(members: Indices, queries: Indices, groups: Indices, tokens: Indices, _purpose: Purpose) -> list[Query]:
    """Split the members in halves A and B; A's queries see B first, B's see A first, and so on inside each half.

    Demonstration j is then in as many distinct prefixes as its leaf is deep: N log2 N demonstrations a scoring, where a
    fixed order has N^2 / 2. Halves are of equal tokens as far as whole groups allow, and queries come depth first.
    """
    wanted = set(queries.tolist())
    arranged: list[Query] = []
    stack: list[tuple[list[list[int]], tuple[Block, ...]]] = [(_by_group(members.tolist(), groups), ())]
    while stack:
        part, prefix = stack.pop()
        ids = [index for group in part for index in group]
        if wanted.isdisjoint(ids):
            continue
        if len(ids) == 1:
            arranged.append(Query(ids[0], prefix))
            continue
        units = part if len(part) > 1 else [[index] for index in ids]
        cut = _middle([int(tokens[unit].sum()) for unit in units])
        left, right = units[:cut], units[cut:]
        stack.append((right, (*prefix, tuple(i for unit in left for i in unit))))
        stack.append((left, (*prefix, tuple(i for unit in right for i in unit))))
    return arranged


LAYOUTS: dict[str, Layout] = {"trie": trie, "grouped": grouped, "reference": reference}


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
