"""The scorer: what is sent, what is remembered."""

import tracemalloc
from typing import cast

import numpy as np

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.core.memo import ENTRY_BYTES, KEY_BYTES, Memo
from icm_hpc.core.types import Labels, ScoreOne, ScorePool, frozen_labels, with_labels
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import of_tokens
from icm_hpc.scoring.scorer import Scorer
from tests.offline import OfflineClient

TASK = tasks.load(TaskConfig(name="reviews", limit=12), seed=0)
LABELS = frozen_labels(np.arange(12) % 2)


async def scorer(client: OfflineClient, layout: str = "trie", memo_bytes: int = 10**6) -> Scorer:
    """Return a scorer of twelve reviews."""
    given = cast(Client, client)
    return Scorer(given, await of_tokens(given, TASK), TASK.problem(), layout, memo_bytes=memo_bytes)


async def test_asks_are_answered_alike_alone_and_together() -> None:
    asks = [ScorePool(with_labels(LABELS, {i: 0}), "eval") for i in range(1, 6, 2)]
    one = await scorer(OfflineClient())
    alone = [(await one.answer([ask]))[0] for ask in asks]
    together = await (await scorer(OfflineClient())).answer(asks)
    np.testing.assert_array_equal(alone, together)


async def test_what_was_asked_before_is_not_sent_again() -> None:
    client = OfflineClient()
    one = await scorer(client)
    first = await one.answer([ScorePool(LABELS, "eval"), ScorePool(LABELS, "repair"), ScoreOne(3, LABELS)])
    sent = len(client.prompts)
    assert sent == 13, "evaluation and repair are one scoring where the layout does not tell them apart"
    second = await one.answer([ScorePool(LABELS, "eval"), ScoreOne(3, LABELS)])
    assert len(client.prompts) == sent
    np.testing.assert_array_equal(first[0], second[0])
    assert (one.work.scorings, one.work.single_examples, one.work.scorings_from_memo) == (1, 1, 3)


async def test_examples_asked_behind_one_prefix_share_all_of_it() -> None:
    client = OfflineClient()
    one, part = await scorer(client), frozen_labels([1, 0, 1, 0, 1, 0, *[-1] * 6])
    await one.answer([ScorePool(part, "eval")])
    last = client.prompts[-1]
    await one.answer([ScoreOne(index, part, shared_prefix=True) for index in range(6, 12)])
    behind = client.prompts[6:]
    assert len(behind) == 6
    common = [len(set(column)) == 1 for column in zip(*behind, strict=False)].index(False)
    assert min(map(len, behind)) - common < 40, "they differ only in the example that is asked"
    assert all(prompt[: len(last)] == last for prompt in behind), "they go on where the pool's last prompt ended"


async def test_the_reference_layout_tells_purposes_apart() -> None:
    client = OfflineClient()
    await (await scorer(client, "reference")).answer([ScorePool(LABELS, "eval"), ScorePool(LABELS, "repair")])
    assert len(client.prompts) == 24


async def test_no_scores_but_those_of_the_labels_asked_come_back() -> None:
    part = frozen_labels([1, 0, *[-1] * 10])
    (scores,) = await (await scorer(OfflineClient())).answer([ScorePool(part, "eval")])
    assert np.isfinite(scores[:2]).all()
    assert np.isnan(scores[2:]).all()


def test_a_memo_forgets_the_longest_unused_and_keeps_within_its_bytes() -> None:
    memo = Memo(3 * (12 * 2 * 8 + ENTRY_BYTES), purposes_differ=False)

    def key(labels: Labels) -> bytes:
        return memo.key(ScorePool(labels, "eval"))

    keys = [key(with_labels(LABELS, {i: 1 - i % 2})) for i in range(4)]
    for number, one in enumerate(keys[:3]):
        memo[one] = np.full((12, 2), float(number))
    assert memo.get(keys[0]) is not None
    memo[keys[3]] = np.zeros((12, 2))
    assert [memo.get(one) is None for one in keys] == [False, True, False, False]
    again = Memo(10**6, purposes_differ=False, remembered=[memo.take(2)])
    assert [again.get(one) is None for one in keys] == [False, True, False, False]
    np.testing.assert_array_equal(again.get(keys[2]), np.full((12, 2), 2.0))


def test_a_memo_of_no_bytes_holds_nothing() -> None:
    memo = Memo(0, purposes_differ=False)
    memo[b"x" * 16] = np.zeros((1, 2))
    assert memo.get(b"x" * 16) is None
    taken = memo.take(2)
    assert taken.rows.shape == (0, 2)
    Memo(10**6, purposes_differ=False, remembered=[taken])


def test_a_memo_keeps_its_memory_under_its_limit_keys_and_objects_included() -> None:
    for rows in (1, 4, 64):
        tracemalloc.start()
        memo = Memo(1_000_000, purposes_differ=False)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(6000):
            memo[number.to_bytes(KEY_BYTES, "big")] = np.zeros((rows, 2))
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert 600_000 < used <= 1_000_000, "it is used, and not exceeded"


def test_a_memo_without_room_holds_nothing() -> None:
    memo = Memo(0, purposes_differ=False)
    memo[bytes(KEY_BYTES)] = np.zeros((1, 2))
    assert memo.get(bytes(KEY_BYTES)) is None
    assert not memo.has_learnt
    assert len(memo.take(2).keys) == 0
