"""Rates, on a clock that only the test moves."""

import asyncio
from collections.abc import Sequence

import pytest

from icm_hpc.scoring.rate_limit import RateLimit


async def starts(sizes: Sequence[int], requests: float | None, tokens: float | None, pause_s: float = 0) -> list[float]:
    """Return when requests of so many tokens start, each asked for `pause_s` after the one before has started."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    limit = RateLimit(requests_per_min=requests, tokens_per_min=tokens, clock=lambda: now, sleep=sleep)
    started = []
    for size in sizes:
        await limit.wait(size)
        started.append(now)
        now += pause_s
    return started


@pytest.mark.parametrize("pause_s", [0, 0.1, 3.7])
async def test_no_minute_has_more_requests_than_allowed(pause_s: float) -> None:
    started = await starts([1] * 200, 60, None, pause_s)
    for begin in started:
        assert sum(begin <= at < begin + 60 - 1e-6 for at in started) <= 60


async def test_no_minute_has_more_tokens_than_allowed_but_for_the_last_request() -> None:
    sizes = [100, 900, 50, 3000, 10, 700] * 5
    started = await starts(sizes, None, 1000)
    for begin in started:
        within = [size for at, size in zip(started, sizes, strict=True) if begin <= at < begin + 60 - 1e-6]
        assert sum(within[:-1]) <= 1000


async def test_the_slower_of_two_rates_decides() -> None:
    assert await starts([10, 10, 10], 60, 60) == [0, 10, 20]
    assert await starts([10, 10, 10], 6, 6000) == [0, 10, 20]


async def test_without_rates_nothing_waits_and_a_pause_is_not_saved_up() -> None:
    assert await starts([10**6] * 3, None, None) == [0, 0, 0]
    assert await starts([1, 1, 1], 60, None, pause_s=0.5) == [0, 1, 2]
    assert await starts([1, 1, 1], 60, None, pause_s=5) == [0, 5, 10]


async def test_those_that_wait_together_are_spread_in_their_order() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    limit = RateLimit(requests_per_min=60, tokens_per_min=None, clock=lambda: 100.0, sleep=sleep)
    await asyncio.gather(*(limit.wait(1) for _ in range(4)))
    assert slept == [1, 2, 3]
