"""Every layout shows each query all other members exactly once; the trie shares what it can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc.core.layout import LAYOUTS, Query, trie
from icm_hpc.core.types import Indices


@st.composite
def pools(draw: st.DrawFn) -> tuple[Indices, Indices, Indices]:
    """Draw members, groups and token counts."""
    n = draw(st.integers(1, 24))
    groups = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)), dtype=np.int64)
    tokens = np.array(draw(st.lists(st.integers(1, 200), min_size=n, max_size=n)), dtype=np.int64)
    members = np.array(sorted(draw(st.sets(st.integers(0, n - 1), min_size=1))), dtype=np.int64)
    return members, groups, tokens


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("purpose", ["eval", "repair", "predict"])
@given(pool=pools())
def test_every_prompt_holds_every_other_member_exactly_once(layout, purpose, pool) -> None:  # type: ignore[no-untyped-def]
    members, groups, tokens = pool
    queries = layout.arrange(members, members, groups, tokens, purpose)
    assert sorted(query.index for query in queries) == members.tolist()
    for query in queries:
        assert sorted((*query.demonstrations, query.index)) == members.tolist()


@given(pool=pools())
def test_a_single_query_of_the_trie_is_the_one_of_the_whole_scoring(pool: tuple[Indices, Indices, Indices]) -> None:
    members, groups, tokens = pool
    whole = {query.index: query for query in trie(members, members, groups, tokens, "eval")}
    for member in members:
        assert trie(members, np.array([member]), groups, tokens, "predict") == [whole[int(member)]]


def test_the_trie_computes_n_log_n_demonstrations_where_a_fixed_order_computes_half_of_n_squared() -> None:
    n = 64
    members, groups, tokens = np.arange(n), np.arange(n) // 2, np.full(n, 10)
    computed = {
        name: len(
            {
                q.demonstrations[: i + 1]
                for q in layout.arrange(members, members, groups, tokens, "eval")
                for i in range(n - 1)
            }
        )
        for name, layout in LAYOUTS.items()
    }
    assert computed["trie"] == n * 6
    assert computed["grouped"] >= n * n / 2 - n


def test_groups_are_split_last_and_stand_nearest_to_the_query() -> None:
    members, groups, tokens = np.arange(12), np.array([0, 1, 2] * 4), np.full(12, 10)
    for query in trie(members, members, groups, tokens, "eval"):
        own = [groups[d] == groups[query.index] for d in query.demonstrations]
        assert own[-3:] == [True] * 3


def test_queries_come_depth_first() -> None:
    queries = trie(np.arange(4), np.arange(4), np.arange(4), np.full(4, 10), "eval")
    assert queries == [
        Query(0, ((2, 3), (1,)), 0.0),
        Query(1, ((2, 3), (0,)), 0.25),
        Query(2, ((0, 1), (3,)), 0.5),
        Query(3, ((0, 1), (2,)), 0.75),
    ]
    assert queries[0].blocks[0] is queries[1].blocks[0], "what is shared is one object"
