"""What Slurm says of many runs' jobs, with few questions: many people may watch, and one controller answers all of them."""

import threading
import time
from collections.abc import Collection, Mapping
from typing import Protocol

from .. import scheduler
from ..errors import SchedulerError
from ..scheduler import Component

ASK_S = 10.0  # between two rounds of questions
GONE_S = 300.0  # the same, about jobs that have left the queue: a person may requeue them
FIRST_S = 3.0  # that the first picture waits for the first answer

Job = tuple[str, str | None]  # its id, and its cluster if that is not the default one


class Slurm(Protocol):
    """What a run's state is read from; `scheduler` itself asks each time."""

    def queued(self, job: str, cluster: str | None = None) -> list[Component]:
        """Return the components of a job that is in the queue; raises SchedulerError if that is not known."""

    def accounted(self, job: str, cluster: str | None = None) -> list[Component]:
        """Return the components of a job as the accounting has them."""


class Once:
    """Asks about the jobs of all runs at once, when the first answer is needed.

    Once Slurm has not answered, which takes it a while, it is not asked again.
    """

    def __init__(self, jobs: Collection[Job]) -> None:
        self._jobs = tuple(jobs)
        self._queued: dict[str | None, dict[str, list[Component]]] = {}  # by cluster
        self._accounted: dict[str | None, dict[str, list[Component]]] = {}
        self._failure: SchedulerError | None = None

    def queued(self, job: str, cluster: str | None = None) -> list[Component]:
        """Return the components of a job; raises the first failure again."""
        if self._failure is not None:
            raise self._failure
        if cluster not in self._queued:
            try:
                self._queued[cluster] = scheduler.all_queued(self._ids(cluster), cluster)
            except SchedulerError as error:
                self._failure = error
                raise
        return self._queued[cluster].get(job, [])

    def accounted(self, job: str, cluster: str | None = None) -> list[Component]:
        """Return the components of a job as the accounting has them."""
        if cluster not in self._accounted:
            in_queue = self._queued.get(cluster, {})
            left = [one for one in self._ids(cluster) if one not in in_queue]
            self._accounted[cluster] = scheduler.all_accounted(left, cluster) if left else {}
        return self._accounted[cluster].get(job, [])

    def _ids(self, cluster: str | None) -> list[str]:
        return [job for job, where in self._jobs if where == cluster]


class Seldom:
    """Answers from what Slurm said last; asks about all jobs at once, and in a thread: the screen never waits for Slurm."""

    def __init__(self) -> None:
        self._queued: dict[Job, list[Component]] = {}
        self._accounted: dict[Job, list[Component]] = {}
        self._gone_s: dict[Job, float] = {}  # on the clock, when a job was found to have ended
        self._failure: SchedulerError | None = None
        self._asked_s = float("-inf")
        self._asking: threading.Thread | None = None

    def refresh(self, jobs: Collection[Job]) -> None:
        """Ask about these jobs, if it is time and Slurm has answered the last question."""
        is_busy = self._asking is not None and self._asking.is_alive()
        if is_busy or not jobs or time.monotonic() - self._asked_s < ASK_S:
            return
        first, self._asked_s = self._asking is None, time.monotonic()
        self._asking = threading.Thread(target=self._ask, args=(list(jobs),), name="asks Slurm", daemon=True)
        self._asking.start()
        if first:
            self._asking.join(FIRST_S)

    def queued(self, job: str, cluster: str | None = None) -> list[Component]:
        """Return the components of a job as Slurm had them last; raises SchedulerError if it did not answer."""
        if self._failure is not None:
            raise self._failure
        if (job, cluster) not in self._queued:
            raise SchedulerError("Slurm was not asked yet")
        return self._queued[job, cluster]

    def accounted(self, job: str, cluster: str | None = None) -> list[Component]:
        """Return the components of a job as the accounting had them last."""
        return self._accounted.get((job, cluster), [])

    def _ask(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        due = [job for job in jobs if now - self._gone_s.get(job, float("-inf")) >= GONE_S]
        for cluster in dict.fromkeys(cluster for _, cluster in due):
            ids = [job for job, where in due if where == cluster]
            try:
                in_queue = scheduler.all_queued(ids, cluster)
            except SchedulerError as error:
                self._failure = error
                return
            left = [job for job in ids if job not in in_queue]
            self._note(cluster, ids, in_queue, scheduler.all_accounted(left, cluster) if left else {})
        self._failure = None

    def _note(
        self,
        cluster: str | None,
        ids: list[str],
        in_queue: Mapping[str, list[Component]],
        accounted: Mapping[str, list[Component]],
    ) -> None:
        for job in ids:
            key = (job, cluster)
            self._accounted[key], self._queued[key] = accounted.get(job, []), in_queue.get(job, [])
            if not self._queued[key] and not any(one.state in scheduler.LIVE for one in self._accounted[key]):
                self._gone_s[key] = time.monotonic()
            else:
                self._gone_s.pop(key, None)
