"""Rates that a provider allows: what is asked for is spread evenly over each minute, and never sent in a burst.

Not by aiolimiter, whose bucket starts full, so that the first minute holds twice the rate, and which refuses a request that
is larger than a minute's share.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(slots=True)
class Pace:
    """One rate, None for any; each amount taken puts off the next by what it is worth."""

    per_min: float | None
    free_s: float = float("-inf")  # on the clock, when the next may start

    def start_s(self, now_s: float) -> float:
        """Return when the next may start."""
        return max(now_s, self.free_s)

    def take(self, amount: float, start_s: float) -> None:
        """Note that `amount` starts at `start_s`."""
        if self.per_min is not None:
            self.free_s = start_s + amount * MINUTE_S / self.per_min


class RateLimit:
    """At most so many requests and tokens a minute, but for the tokens by which the last request goes over."""

    def __init__(
        self,
        *,
        requests_per_min: float | None,
        tokens_per_min: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests, self._tokens = Pace(requests_per_min), Pace(tokens_per_min)
        self._clock, self._sleep = clock, sleep

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may be sent; those that wait are served in their order."""
        now_s = self._clock()
        start_s = max(self._requests.start_s(now_s), self._tokens.start_s(now_s))
        self._requests.take(1, start_s)
        self._tokens.take(tokens, start_s)
        if start_s > now_s:
            await self._sleep(start_s - now_s)
