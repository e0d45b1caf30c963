"""Rates that a provider allows: requests are spread evenly over each minute and never sent in a burst; and how long to wait
after an answer that says that they come too fast.

Not by aiolimiter, whose bucket starts full, so that the first minute holds twice the rate, and which refuses a request that
is larger than a minute's share.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

MINUTE_S = 60.0
FIRST_WAIT_S = 1.0  # after an answer that does not say how long to wait; twice as long after each further one
MAX_WAIT_S = 60.0  # of one wait, whatever the server asks for: its clock or its estimate may be wrong


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


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that an answer asks us to wait (RFC 9110, section 10.2.3; decimals too); None for no or no usable
    value.
    """
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, now or datetime.now(timezone.utc))
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seconds_until(date: str, now: datetime) -> float:
    try:
        then = parsedate_to_datetime(date)
    except (TypeError, ValueError, IndexError, OverflowError):
        return math.nan
    then = then if then.tzinfo else then.replace(tzinfo=timezone.utc)
    return max(0.0, (then - now).total_seconds())


class Patience:
    """Waits of one request for a rate limit: as long as the server asks, else longer and longer, `limit_s` in all."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s, self._left_s, self._waits = limit_s, limit_s, 0

    def next_wait_s(self, asked_s: float | None) -> float | None:
        """Return how long to wait before the next try; None if the limit is reached."""
        if self._left_s <= 0:
            return None
        own_s = FIRST_WAIT_S * 2 ** min(self._waits, 10)
        wait_s = min(max(asked_s, FIRST_WAIT_S) if asked_s else own_s, MAX_WAIT_S, self._left_s)
        self._left_s -= wait_s
        self._waits += 1
        return wait_s
