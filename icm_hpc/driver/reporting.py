"""From the steps of all searches, and what is labelled beyond the pool, to one progress."""

import math

from ..core.types import StepInfo
from ..rundir.progress import Progress, Watch
from ..scoring.scorer import Work
from ..tasks import Division


class Reporter:
    """Tells a watch where a run is."""

    def __init__(self, division: Division, restarts: int, work: Work, watch: Watch) -> None:
        self._work, self._watch = work, watch
        self._searches = len(division.shards) * restarts
        self._examples = sum(len(part.examples) for part in division.shards) * restarts
        self._last: dict[tuple[int, int], StepInfo] = {}
        self._expected: dict[tuple[int, int], int] = {}  # steps
        self._applied, self._to_apply = 0, len(division.beyond.examples) if division.beyond else 0
        pool = len(division.shards[0].examples)
        self._applied_step = 1 / (pool * max(1.0, math.log2(pool)))

    def __call__(self, number: int, restart: int, info: StepInfo, steps: int) -> None:
        """Note the last step of a shard's search, and how many are expected."""
        self._last[number, restart], self._expected[number, restart] = info, steps
        self._tell()

    def applied(self, examples: int) -> None:
        """Note how many examples beyond the pool are labelled."""
        self._applied = examples
        self._tell()

    def _tell(self) -> None:
        latest = list(self._last.values())
        expected = round(sum(self._expected.values()) * self._searches / len(self._expected))
        self._watch(
            Progress(
                step=sum(info.step for info in latest),
                steps=expected,
                pool=sum(info.pool for info in latest),
                examples=self._examples,
                counts=tuple(map(sum, zip(*(info.counts for info in latest), strict=True))),
                energy=sum(info.energy for info in latest) / len(latest),
                flips=sum(info.flips for info in latest),
                waits=self._work.waits,
                waiting_s=self._work.waiting_s,
                applied=self._applied,
                to_apply=self._to_apply,
                applied_step=self._applied_step,
            )
        )
