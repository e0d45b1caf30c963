"""A run as processes of this machine: the server component beside the driver."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ..config.schema import Config
from ..driver.run import drive
from ..heldout import label as heldout
from ..rundir import progress
from ..rundir.attempts import new_attempt
from ..rundir.files import private_append
from ..rundir.folder import RunDir
from ..rundir.progress import Watch
from ..serving import server

SERVER_STOP_S = 15.0


def run(config: Config, run_dir: RunDir, watch: Watch) -> dict[str, Any]:
    """Run driver and, unless one runs already, server on this machine to the end; return the summary.

    Raises Interrupted after Ctrl-C or SIGTERM, with the state saved. The server is stopped however this ends.
    """
    attempt = new_attempt()
    served = serving(run_dir, attempt) if config.external_url is None else nullcontext()
    with served, progress.to_file(run_dir, attempt) as to_file:
        both = progress.all_of(watch, to_file)
        return drive(config, run_dir, attempt=attempt, watch=both, then=heldout.step(config, run_dir))


@contextmanager
def serving(run_dir: RunDir, attempt: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the server component as a child of this process, in a session of its own: Ctrl-C is for the driver."""
    argv = [sys.executable, "-m", "icm_hpc.serving.server", str(run_dir.path)]
    environment = {**os.environ, "ICM_ATTEMPT": attempt, "ICM_PARENT": str(os.getpid())}
    with private_append(run_dir.server_log) as output:
        component = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    def watch_over() -> None:
        component.wait()
        server.post_mortem(run_dir, attempt, local=True)

    watching = threading.Thread(target=watch_over, name="server's end", daemon=True)
    watching.start()
    try:
        yield component
    finally:
        component.terminate()
        watching.join(SERVER_STOP_S)
        if watching.is_alive():
            component.kill()
            watching.join(SERVER_STOP_S)
