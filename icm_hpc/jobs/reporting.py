"""The report at the end of a run, in a process of its own: whatever becomes of it, the run has ended and has its labels."""

import logging
import shlex
import subprocess
import sys

from ..rundir.folder import RunDir

WITHIN_S = 60.0
IN_JOB_S = 20.0  # where the server's nodes wait for it; 100,000 labels take 9 s of a CPU

log = logging.getLogger(__name__)


def write_report(run_dir: RunDir, within_s: float = WITHIN_S) -> None:
    """Write report.html. A failure, as to do so in time, is logged, with the command that tries again."""
    words = ["-m", "icm_hpc.report", f"run={run_dir.path.name}", f"run.root={run_dir.path.parent}"]
    failure = _failure([sys.executable, *words], within_s)
    if failure:
        again = shlex.join(["python", *words])
        log.warning("report.html is not written (%s); the labels are complete. To try again: %s", failure, again)


def _failure(argv: list[str], within_s: float) -> str:
    """Return why a command failed, empty if it did not: our own words, of other errors the type, which quotes no row."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {within_s:g} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return last if last.startswith("icm_hpc: ") else f"exit code {done.returncode}, {last.partition(':')[0][:100]}"
