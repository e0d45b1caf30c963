"""What a server does, measured with prompts of its own: how exact its answers are, how fast it is, how much prompts share.

All of it is asked of one replica. A probe takes about PROBE_S once the server is warm, or what its smallest size takes.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Sequence

import numpy as np

from ..core.cost import Lengths, scoring_cost
from ..core.layout import LAYOUTS
from ..core.memo import Rows
from ..engines.engine import Metrics
from ..rundir.measured import Noise, Sharing, Speed
from . import random_prompts
from .client import Client

PROBE_S = 3.0
LAG_S = 1.0  # by which a server's counters may be behind its answers
LABELS = tuple(range(100, 112))  # of every vocabulary
NOISE_PROMPTS, NOISE_TOKENS = 8, 128  # a prompt, at least; each is computed twice
SPEED_PROMPTS, SPEED_TOKENS = 256, 512  # at most
DEMONSTRATIONS = (8, 16, 32, 64)


async def noise(
    client: Client, ids: Sequence[int], label_ids: Sequence[int], length: int, rate: float
) -> tuple[Noise, float]:
    """Return by how much answers differ, and the tokens a second that the prompts took which were computed together.

    The prompts are drawn from token `ids`, and have `length` tokens at most; `rate`, tokens a second, is a guess. Raises what
    the client raises.
    """
    labels = list(dict.fromkeys([*label_ids, *LABELS]))
    tokens = min(length, max(NOISE_TOKENS, int(PROBE_S * rate / NOISE_PROMPTS / 2)))
    prompts = [random_prompts.prompt(ids, tokens) for _ in range(NOISE_PROMPTS)]

    async def together(asking: Client) -> Rows:
        return await asking.label_logprobs(prompts, labels)

    async def alone(asking: Client) -> Rows:
        return np.concatenate([await asking.label_logprobs([one], labels) for one in prompts])

    began = time.monotonic()
    computed = await together(client)
    rate = NOISE_PROMPTS * tokens / (time.monotonic() - began)
    cached, first, second = await together(client), await alone(client), await alone(client)
    # Under a salt of their own the prompts are computed once more: so neither side of the comparison is cached.
    salted = client.engine.completions.salt_field is not None
    pair = (computed, await alone(client.salted(_salt()))) if salted else (cached, first)
    return Noise(_differ(first, second), _differ(computed, cached), _differ(*pair)), rate


def _salt() -> str:
    return f"icm-hpc-{time.time_ns()}"


def _differ(a: Rows, b: Rows) -> float:
    return float(np.abs(a - b).max())


async def speed(client: Client, ids: Sequence[int], length: int, rate: float) -> Speed:
    """Measure how long prompts of token ids take, of `length` tokens at most; `rate`, tokens a second, is a first guess."""
    tokens = min(SPEED_TOKENS, length)
    count = min(SPEED_PROMPTS, max(1, round(PROBE_S * rate / tokens)))
    prompts = [random_prompts.prompt(ids, tokens) for _ in range(count)]
    began = time.monotonic()
    await client.label_logprobs(prompts, LABELS)
    return Speed(count, count * tokens, count * tokens**2 // 2, time.monotonic() - began)


async def sharing(client: Client, ids: Sequence[int], length: int, rate: float, block: int) -> Sharing | None:
    """Measure a scoring of demonstrations of whole blocks, in the layout of a search; None if too few of them fit."""
    fitting = [n for n in DEMONSTRATIONS if n * block <= length]
    if not fitting:
        return None
    room = PROBE_S * rate  # tokens to compute: n log2 n demonstrations, and one for each prompt
    count = max([n for n in fitting if n * n.bit_length() * block <= room], default=fitting[0])
    size = block * max(1, min(length // (count * block), int(room / (count * count.bit_length() * block))))
    texts = [np.array([secrets.choice(ids) for _ in range(size)], dtype=np.int64) for _ in range(count)]
    members = np.arange(count)
    queries = LAYOUTS["trie"].arrange(members, members, members, np.full(count, size), "eval")
    cost = scoring_cost(queries, Lengths(texts, texts, start=0, suffix=0), block)
    prompts = [np.concatenate([texts[i] for i in (*query.demonstrations, query.index)]) for query in queries]
    before = await client.metrics()
    began = time.monotonic()
    await client.label_logprobs([json.dumps(one.tolist()).encode() for one in prompts], LABELS)
    took_s = time.monotonic() - began
    after = await counted(client, before, cost.prompt_tokens)
    return Sharing(
        prompts=count,
        prompt_tokens=cost.prompt_tokens,
        computed_tokens=after.computed_tokens - before.computed_tokens,
        least_tokens=cost.computed_tokens,
        context_tokens=cost.context_tokens,
        seconds=took_s,
    )


async def counted(client: Client, before: Metrics, tokens: int) -> Metrics:
    """Return the server's counters once they have so many prompt tokens more than before, or after LAG_S."""
    after = await client.metrics()
    if after.prompt_tokens - before.prompt_tokens < tokens:
        await asyncio.sleep(LAG_S)
        after = await client.metrics()
    return after
