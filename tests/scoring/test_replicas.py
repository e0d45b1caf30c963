"""Replicas: which of them scores a prompt, and that all work is shared out."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.core.layout import LAYOUTS, of_replica, replica_of
from icm_hpc.core.types import ScoreOne, ScorePool, frozen_labels
from icm_hpc.engines import ENGINES, stub
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import of_tokens
from icm_hpc.scoring.scorer import Scorer
from icm_hpc.scoring.session import open_session
from tests.offline import OfflineClient


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("replicas", [1, 2, 3, 8])
def test_every_prompt_has_one_replica_and_none_has_much_more_than_its_share(layout: str, replicas: int) -> None:
    n = 48
    members, groups, tokens = np.arange(n), np.arange(n) // 2, np.full(n, 30)
    queries = LAYOUTS[layout].arrange(members, members, groups, tokens, "eval")
    shares = [list(of_replica(queries, number, replicas)) for number in range(replicas)]
    assert [query for share in shares for query in share] == queries, "neighbours stay together, in order"
    assert max(map(len, shares)) <= n / replicas + 2


def test_an_example_asked_alone_goes_to_the_replica_that_has_its_prefix() -> None:
    members, groups, tokens = np.arange(48), np.arange(48) // 2, np.full(48, 30)
    together = {
        query.index: replica_of(query, 4) for query in LAYOUTS["trie"].arrange(members, members, groups, tokens, "eval")
    }
    for index in members.tolist():
        (alone,) = LAYOUTS["trie"].arrange(members, np.array([index]), groups, tokens, "predict")
        assert replica_of(alone, 4) == together[index]


async def scores(replicas: int, asked: Counter[str]) -> tuple[Any, Any, Client]:
    """Score a pool and one example with a server of so many replicas, which notes who was asked."""
    app = stub.application(model="stub", max_model_len=10**6, key="k")

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/v1/completions":
            prompts = json.loads(await request.read())["prompt"]
            asked[request.headers.get("X-data-parallel-rank", "any")] += len(prompts)
        response: web.StreamResponse = await handler(request)
        return response

    app.middlewares.append(note)
    task = tasks.load(TaskConfig(name="reviews", limit=24), seed=0)
    async with TestServer(app) as server, open_session("k", 60) as session:
        client = Client(
            session,
            ENGINES["stub"],
            url=str(server.make_url("")),
            model="stub",
            request_mb=4,
            requests_in_flight=2,
            replicas=replicas,
        )
        scorer = Scorer(client, await of_tokens(client, task), task.problem(), "trie")
        labels = frozen_labels(np.arange(24) % 2)
        pool, one = await scorer.answer([ScorePool(labels, "eval"), ScoreOne(3, labels)])
        return pool, one, client


async def test_replicas_share_a_scoring_and_their_answers_come_back_in_order() -> None:
    asked_one: Counter[str] = Counter()
    asked_four: Counter[str] = Counter()
    one, four = await scores(1, asked_one), await scores(4, asked_four)
    assert np.array_equal(one[0], four[0])
    assert np.array_equal(one[1], four[1])
    assert asked_one == {"any": 25}
    assert set(asked_four) == set("0123")
    assert sum(asked_four.values()) == 25 == four[2].traffic.prompts


async def test_the_forecast_counts_what_replicas_compute_twice() -> None:
    task = tasks.load(TaskConfig(name="reviews", limit=24), seed=0)
    tokens = await of_tokens(OfflineClient(), task)
    one, two = (tokens.cost("trie", task.problem().groups, 1, replicas=n) for n in (1, 2))
    assert two.prompt_tokens == one.prompt_tokens
    assert one.computed_tokens <= two.computed_tokens < 1.1 * one.computed_tokens
