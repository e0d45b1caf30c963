"""run.notify_command: a command of the user's own, at the end of a run that does not go on by itself."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Literal

from ..config import credentials, no_secrets
from ..config.schema import Config
from ..rundir.files import private_append
from ..rundir.folder import RunDir

WITHIN_S = 20.0  # in a job, the server's nodes wait for it; after scancel, Slurm may end both sooner (KillWait)
OUTCOME = "ICM_OUTCOME"

log = logging.getLogger(__name__)


def notes(config: Config) -> list[str]:
    """Return a note if this machine does not have the command; the node on which the run ends may have it."""
    command = config.run.notify_command
    if not command or shutil.which(command[0]):
        return []
    return [f"run.notify_command: {command[0]} is no command of this machine; the node of the driver requires it"]


def notify(config: Config, run_dir: RunDir, outcome: Literal["finished", "failed", "stopped"]) -> None:
    """Run the command, if there is one, with the run's folder as its last argument. A failure is logged and nothing else."""
    if not config.run.notify_command:
        return
    argv = [*config.run.notify_command, str(run_dir.path)]
    try:
        with private_append(run_dir.notify_log) as output:
            failure = _failure(argv, {**environment(os.environ), OUTCOME: outcome}, output)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
        failure = str(error)
    if failure:
        log.warning("run.notify_command failed (%s); what it printed is in %s", failure, run_dir.notify_log)


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return our environment without keys of servers and without what looks like a secret."""
    without_keys = credentials.without_keys(ours)
    return {name: value for name, value in without_keys.items() if not no_secrets.is_secret(name, value)}


def _failure(argv: Sequence[str], env: Mapping[str, str], output: IO[bytes]) -> str:
    """Return why a command failed, empty if it did not; one that takes too long is killed with all that it has started."""
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        code = process.wait(WITHIN_S)
    except BaseException as error:  # also a second Ctrl-C
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"not done within {WITHIN_S:g} s"
        raise
    return f"exit code {code}" if code else ""
