"""The report at the end of a run, in a process of its own: whatever becomes of it, the run has ended and has its labels."""

import logging
import shlex
import subprocess
import sys

from ..rundir.folder import RunDir

WITHIN_S = 60.0  # in a job, the server's nodes wait for it

log = logging.getLogger(__name__)


def write_report(run_dir: RunDir) -> None:
    """Write report.html. A failure is logged, with the command that tries again."""
    words = ["-m", "icm_hpc.report", f"run={run_dir.path.name}", f"run.root={run_dir.path.parent}"]
    failure = _failure([sys.executable, *words])
    if failure:
        again = shlex.join(["python", *words])
        log.warning("report.html is not written (%s); the labels are complete. To try again: %s", failure, again)


def _failure(argv: list[str]) -> str:
    """Return why a command failed, empty if it did not: our own words, of other errors the type, which quotes no row."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {WITHIN_S:g} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return last if last.startswith("report: ") else f"exit code {done.returncode}, {last.partition(':')[0][:100]}"
