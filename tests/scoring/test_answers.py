"""The trie of label words: what is asked behind each prompt, and exact sums of what is answered."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from icm_hpc.scoring.answers import Answers
from icm_hpc.scoring.client import Client

PROMPTS = [b"[1,2]", b"[1,3]", b"[4]"]


class Model:
    """A model whose next token depends on all tokens before it; counts what it is asked."""

    def __init__(self, max_ids: int = 128) -> None:
        self.max_ids = max_ids
        self.requests: list[tuple[int, int]] = []  # prompts and ids of each

    def logprob(self, before: Sequence[int], token: int) -> float:
        """Return log P(token | those before it)."""
        logits = np.random.default_rng([len(before), *before]).normal(size=600)
        return float(logits[token] - np.log(np.exp(logits).sum()))

    async def label_logprobs(self, asked: Iterable[bytes], ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return f64[prompts, ids]."""
        assert len(set(ids)) == len(ids) <= self.max_ids
        prompts = [json.loads(prompt) for prompt in asked]
        self.requests.append((len(prompts), len(ids)))
        return np.array([[self.logprob(prompt, token) for token in ids] for prompt in prompts])


def words(count: int) -> list[list[int]]:
    """Return words of one to four tokens, many of which begin alike; none begins another."""
    rng = np.random.default_rng(count)
    return [[*rng.integers(0, 9, size=rng.integers(0, 4)).tolist(), 100 + number] for number in range(count)]


@pytest.mark.parametrize("count", [2, 4, 5, 77, 200])
async def test_a_word_scores_the_sum_over_its_tokens(count: int) -> None:
    model, asked = Model(), words(count)
    scores = await Answers.of(asked).score(cast(Client, model), iter(PROMPTS))
    for row, prompt in zip(scores, map(json.loads, PROMPTS), strict=True):
        for value, word in zip(row, asked, strict=True):
            assert value == pytest.approx(sum(model.logprob(prompt + word[:i], token) for i, token in enumerate(word)))


@pytest.mark.parametrize(
    ("asked", "nodes", "requests"),
    [
        ([[1], [2]], 1, [(3, 2)]),
        ([[1], [2], [3], [4]], 1, [(3, 4)]),
        ([[1, 5], [1, 6], [2, 5], [2, 6], [3]], 3, [(9, 5)]),  # the prompt itself, and behind 1 and behind 2
        ([[number] for number in range(300)], 1, [(3, 128), (3, 128), (3, 44)]),
        ([[number, 500] for number in range(100)], 101, [(303, 101)]),
        ([[number, 200 + number] for number in range(100)], 101, None),
    ],
    ids=["two", "four", "five", "300 of one token", "100 with one end", "100 of two tokens"],
)
async def test_each_beginning_is_sent_once_and_no_request_has_more_ids_than_the_server_takes(
    asked: list[list[int]], nodes: int, requests: Any
) -> None:
    model, answers = Model(), Answers.of(asked)
    await answers.score(cast(Client, model), iter(PROMPTS))
    assert len(answers.nodes) == nodes
    if requests is not None:
        assert model.requests == requests
    assert sum(prompts for prompts, _ in model.requests) == len(PROMPTS) * max(nodes, len(model.requests))


async def test_words_of_one_token_are_asked_as_if_there_were_no_trie() -> None:
    model, answers = Model(), Answers.of([[7], [5], [6]])
    (request,) = answers.requests(128)
    assert (list(request.asking(PROMPTS)), request.ids) == (PROMPTS, (7, 5, 6))
    assert answers.first_ids == (7, 5, 6)
    assert (answers.longest, model.requests) == (0, [])
