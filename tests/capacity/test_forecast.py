"""The forecast of a scoring's tokens against a cache of whole blocks that is simulated token by token."""

import json
from typing import cast

import numpy as np
import pytest

from benchmarks.forecast import shape_of_preset
from benchmarks.serving import ideal_tokens
from icm_hpc import tasks
from icm_hpc.capacity import forecast
from icm_hpc.capacity.forecast import GPUS
from icm_hpc.config import loading
from icm_hpc.config.schema import TaskConfig
from icm_hpc.core.cost import Cost, scoring_cost
from icm_hpc.core.layout import LAYOUTS, Query
from icm_hpc.core.types import Labels, frozen_labels
from icm_hpc.scoring import prompts
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import TokenPrompts
from tests.conftest import SHARED_DATA, unavailable
from tests.offline import OfflineClient


async def scoring(layout: str, n: int) -> tuple[TokenPrompts, list[Query], Labels]:
    """Return the prompts of one scoring of real claims, in the stub's tokens."""
    data = SHARED_DATA / "truthfulqa_train.json"
    if not data.exists():
        unavailable(f"{data} is not there")
    task = tasks.load(TaskConfig(name="truthfulqa", data=str(data), limit=n), seed=0)
    tokens = await prompts.of_tokens(cast(Client, OfflineClient()), task)
    members = np.arange(n)
    queries = LAYOUTS[layout].arrange(members, members, task.problem().groups, tokens.demonstration_tokens, "eval")
    return tokens, queries, frozen_labels(members % 2)


@pytest.mark.parametrize("layout", ["trie", "grouped"])
@pytest.mark.parametrize("n", [8, 24, 64])
@pytest.mark.parametrize("block_size", [1, 16, 128])
async def test_tokens_are_forecast_within_five_percent(layout: str, n: int, block_size: int) -> None:
    tokens, queries, labels = await scoring(layout, n)
    expected = scoring_cost(queries, tokens.lengths, block_size)
    written = [json.loads(prompt) for prompt in tokens.write(queries, labels)]
    assert expected.prompt_tokens == sum(map(len, written))
    assert expected.longest_prompt == max(map(len, written))
    assert expected.computed_tokens == pytest.approx(ideal_tokens(tokens, queries, labels, block_size), rel=0.05)


async def test_a_changed_label_leaves_what_stands_before_it_in_the_cache() -> None:
    tokens, queries, _ = await scoring("trie", 32)
    first = scoring_cost(queries, tokens.lengths, 16)
    again = [scoring_cost(queries, tokens.lengths, 16, changed=j).computed_tokens for j in range(32)]
    assert 0.3 * first.computed_tokens < np.mean(again) < first.computed_tokens
    alone = scoring_cost(queries, tokens.lengths, 16, changed=queries[0].index)
    own = [query for query in queries if query.index == queries[0].index]
    assert scoring_cost(own, tokens.lengths, 16, changed=queries[0].index).computed_tokens <= 16
    assert alone.prompt_tokens == first.prompt_tokens


async def test_the_trie_of_256_claims_computes_a_tenth_of_what_the_published_order_does() -> None:
    costs = {}
    for layout in ("trie", "grouped"):
        tokens, queries, _ = await scoring(layout, 256)
        costs[layout] = scoring_cost(queries, tokens.lengths, 16)
    assert costs["trie"].prompt_tokens == costs["grouped"].prompt_tokens
    assert costs["grouped"].computed_tokens > 10 * costs["trie"].computed_tokens
    assert costs["trie"].hit_rate > 0.95


def test_keys_and_values_of_405b_take_516_kb_a_token_in_bf16() -> None:
    assert shape_of_preset("405B").kv_bytes(2) == 516_096


def test_seconds_grow_with_tokens_and_fall_with_gpus() -> None:
    small, large = (Cost(1, n, n, n * n // 2, n, n) for n in (10_000, 100_000))

    def of(cost: Cost, gpus: int, dtype: str = "bf16") -> float:
        return forecast.seconds(cost, shape_of_preset("70B"), GPUS["H100"], gpus, dtype, batch_tokens=16384)

    assert of(small, 4) < of(large, 4)
    assert of(large, 8) < of(large, 4)
    assert of(large, 4, "fp8") < of(large, 4)


@pytest.mark.parametrize(("preset", "parameters"), [("8B", 8.03e9), ("70B", 70.6e9), ("405B", 405.9e9)])
def test_parameters_are_those_that_the_models_authors_state(preset: str, parameters: float) -> None:
    assert shape_of_preset(preset).parameters == pytest.approx(parameters, rel=1e-3)


def test_a_mixture_of_experts_has_no_shape_here() -> None:
    assert forecast.shape_of({"hidden_size": 8, "num_local_experts": 8}) is None


@pytest.mark.parametrize(
    "changes",
    [{"num_attention_heads": 0}, {"hidden_size": float("inf")}, {"vocab_size": "many"}, {"num_hidden_layers": []}],
)
def test_a_shape_that_cannot_be_is_none(changes: dict[str, object]) -> None:
    whole = loading.load(["model=8B"]).model.shape
    assert forecast.shape_of(whole) is not None
    assert forecast.shape_of({**whole, **changes}) is None
