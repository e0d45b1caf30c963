"""Where a run is: for whoever watches, for the log, and for `status`."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

from ..core.energy import entropy
from ..core.json_values import typed
from ..errors import DamagedFile
from .files import read_json, write_atomically
from .folder import RunDir

REPORT_S = 10.0
LISTED_LABELS = 8  # whose counts are printed, at most

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, for whoever watches; sums over its searches."""

    step: int
    steps: int
    pool: int
    examples: int
    counts: tuple[int, ...]  # examples of each label
    energy: float  # mean over the searches that have begun
    flips: int
    waits: int  # for answers, since this start
    waiting_s: float  # summed over the searches
    applied: int = 0  # examples that are labelled given the pool: beyond it, new or held-out ones
    to_apply: int = 0  # of so many
    applied_step: float = 0.0  # steps of work that one of them is, by the tokens that it computes; a forecast

    @property
    def done(self) -> float:
        """Steps done, with what examples beyond the pool are worth."""
        return self.step + self.applied * self.applied_step

    @property
    def expected(self) -> float:
        """Steps expected, likewise."""
        return self.steps + self.to_apply * self.applied_step


OF_REPORT = {"attempt": str, "time_s": float, "steps_per_s": float | None, "left_s": float | None}
REQUIRED = {"step", "steps", "flips", "energy"}


def read(run_dir: RunDir) -> dict[str, Any] | None:
    """Return the last report, None if there is none; earlier versions wrote fewer fields. Raises DamagedFile."""
    found: dict[str, Any] | None = read_json(run_dir.progress, dict[str, Any])
    if found is None:
        return None
    kinds: dict[str, Any] = {**get_type_hints(Progress), **OF_REPORT}
    try:
        if not found.keys() >= REQUIRED:
            raise ValueError("a figure is missing")
        values = {key: typed(kinds.get(key, Any), value, key) for key, value in found.items()}
        if not math.isfinite(values.get("left_s") or 0.0):
            raise ValueError("left_s is not finite")
    except ValueError as error:
        raise DamagedFile(f"{run_dir.progress} is damaged: {error}") from error
    return values


Watch = Callable[[Progress], None]


def all_of(*watches: Watch) -> Watch:
    """Return a watch that tells several."""

    def watch(progress: Progress) -> None:
        for one in watches:
            one(progress)

    return watch


def to_log() -> Watch:
    """Return a watch that logs a line now and then."""

    def tell(progress: Progress) -> None:
        log.info(
            "step %d/%d, pool %d/%d, labels %s, entropy %.3f, energy %.3f, flips %d%s",
            *(progress.step, progress.steps, progress.pool, progress.examples),
            *("+".join(map(str, progress.counts)), entropy(progress.counts), progress.energy, progress.flips),
            f", given the pool {progress.applied}/{progress.to_apply}" if progress.to_apply else "",
        )

    return _now_and_then(tell)


@contextmanager
def to_file(run_dir: RunDir, attempt: str) -> Iterator[Watch]:
    """Yield a watch that writes progress.json now and then, with the speed since the first report and a forecast from it.

    It writes in a thread, and is up to date on exit; while a write lasts, only the end of the run waits for the next.
    """
    first: Progress | None = None
    began_s = 0.0
    writing: Future[None] | None = None

    def write(content: bytes) -> None:
        try:
            write_atomically(run_dir.progress, content)
        except OSError as error:  # whether the state can be saved shows when it is
            log.warning("%s cannot be written: %s", run_dir.progress, error)

    def tell(progress: Progress) -> None:
        nonlocal first, began_s, writing
        now_s = time.time()
        if first is None:
            first, began_s = progress, now_s
        rate = (progress.done - first.done) / (now_s - began_s) if now_s > began_s else None
        left_s = max(0.0, progress.expected - progress.done) / rate if rate else None
        told = {"attempt": attempt, "time_s": now_s, "steps_per_s": rate, "left_s": left_s, **asdict(progress)}
        if writing is None or writing.done() or progress.done >= progress.expected:
            writing = thread.submit(write, json.dumps(told).encode())

    with ThreadPoolExecutor(1, thread_name_prefix="progress") as thread:
        yield _now_and_then(tell)


def balance(counts: Sequence[int]) -> str:
    """Return how many examples have each label; of many labels, the largest numbers."""
    if len(counts) <= LISTED_LABELS:
        return "+".join(map(str, counts))
    most = sorted(counts, reverse=True)[:LISTED_LABELS]
    return f"{'+'.join(map(str, most))}+..., {sum(count > 0 for count in counts)} of {len(counts)} labels"


def _now_and_then(tell: Watch) -> Watch:
    told = float("-inf")

    def watch(progress: Progress) -> None:
        nonlocal told
        if time.monotonic() - told >= REPORT_S or progress.done >= progress.expected:
            told = time.monotonic()
            tell(progress)

    return watch
