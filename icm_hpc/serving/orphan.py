"""A server component whose driver's node has died, while no other node is free for the driver.

Slurm then requeues component 0 of the job alone, and component 1 keeps its nodes, GPUs included, for as long as component 0
waits. To requeue the leader requeues what still runs, although scontrol answers that the job is pending (measured with 22.05,
24.11 and 26.05).
"""

import os
import subprocess
import time
from pathlib import Path

from .. import scheduler
from ..errors import SchedulerError
from ..rundir import lock
from ..rundir.polling import Polled

SILENT_S = 60.0  # of the driver, until Slurm is asked; and between two times that it is asked


class Watch:
    """Listens for the heartbeat of the run's driver; asks Slurm only when it is silent."""

    def __init__(self, path: Path) -> None:
        self._record = Polled(lambda: lock.read(path), None)
        self._last: lock.Record | None = None
        self._since_s = time.monotonic()
        self._het = scheduler.is_heterogeneous()

    def gave_back(self) -> bool:
        """Return whether the whole job was requeued just now, as its first component waits for a node and this one runs."""
        found = self._record() if self._het else None
        if found != self._last:
            self._last, self._since_s = found, time.monotonic()
        if not self._het or time.monotonic() - self._since_s < SILENT_S:
            return False
        self._since_s = time.monotonic()
        leader = scheduler.own_id(os.environ)
        try:
            states = [component.state for component in scheduler.queued(leader)]
            if states != ["PENDING", "RUNNING"]:
                return False
            scheduler.requeue(leader)
        except (OSError, SchedulerError, subprocess.TimeoutExpired):
            return False  # asked again after SILENT_S
        return True
