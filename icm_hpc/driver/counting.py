"""What a start of a run did, all measured: by its own counters, and by the server's."""

import logging
from dataclasses import asdict, dataclass, field

from ..engines.engine import Metrics
from ..errors import RequestError
from ..scoring.client import Client, Traffic
from ..scoring.scorer import Work
from .summary import SinceStart

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """What this attempt did so far, all measured."""

    work: Work = field(default_factory=Work)
    traffic: Traffic = field(default_factory=Traffic)
    servers_lost: int = 0
    checked: bool = False  # the server, once

    def since(self, before: Metrics | None, after: Metrics | None) -> SinceStart:
        """Return them with what the server counted in between."""
        return SinceStart(
            **asdict(self.work),
            **asdict(self.traffic),
            servers_lost=self.servers_lost,
            server_prompt_tokens=after.prompt_tokens - before.prompt_tokens if before and after else None,
            server_computed_tokens=after.computed_tokens - before.computed_tokens if before and after else None,
        )


async def known_metrics(client: Client) -> Metrics | None:
    """Return the server's counts, or None where they cannot be had: the API of others, a proxy that does not pass them on, or a
    server that is gone once the labels are there.
    """
    if client.engine.counters is None:
        return None
    try:
        return await client.metrics()
    except RequestError as error:
        log.warning("the server's own counts are not known: %s", error)
        return None
