"""A screen that refreshes: all runs of a folder with those that run first; of one run, the course of its energy, too."""

import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from .. import scheduler
from ..rundir.folder import RunDir
from ..rundir.progress import balance
from ..rundir.progress import read as read_progress
from ..rundir.trace import last_line
from . import energies, state, table
from .slurm import Seldom
from .state import Status

REFRESH_S = 2.0
READING_SHARE = 0.2  # of the time, at most: reading a folder of very many runs slows the refresh down
SEARCHES = 4  # of one run, whose course is shown
LOG_LINES = 3
LOG_BYTES = 16384  # of the end of driver.log, in which they are looked for
LINES_AROUND = 4  # the title, an empty line, the header, and how many runs do not fit


def is_possible(console: Console) -> bool:
    """Return whether there is a terminal to refresh."""
    return console.is_terminal and not console.is_dumb_terminal


def watch(root: Path, name: str, console: Console) -> None:
    """Show the runs of a folder, or one of them, until Ctrl-C or SIGTERM."""
    slurm = Seldom()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the terminal is restored first
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            live.update(picture(root, name, slurm, console), refresh=True)
            took = time.monotonic() - began
            time.sleep(max(REFRESH_S, took / READING_SHARE))


def picture(root: Path, name: str, slurm: Seldom, console: Console) -> RenderableType:
    """Return what the screen shows now."""
    run_dirs = state.folders(root, name)
    slurm.refresh(state.jobs(run_dirs))
    found = [(state.readable_status(one, slurm), one) for one in run_dirs]
    width, height = console.size
    if name and found:
        return _one(*found[0], width)
    found.sort(key=lambda pair: _rank(*pair))
    return _many(root, [status for status, _ in found], console, height)


def _rank(status: Status, run_dir: RunDir) -> tuple[bool, float]:
    """Return the place of a run: those that run or wait first, then by time, the newest first."""
    is_live = status.driver in (*state.RUNNING, *scheduler.LIVE)
    changed = [_changed_s(path) for path in (run_dir.config, run_dir.provenance, run_dir.progress)]
    return not is_live, -max(changed)


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _many(root: Path, found: Sequence[Status], console: Console, height: int) -> RenderableType:
    running = sum(one.driver in state.RUNNING for one in found)
    shown = found[: max(1, height - LINES_AROUND)]
    rest = len(found) - len(shown)
    more = Text(f"and {rest} more (status prints all)", style="dim") if rest else Text("")
    title = _title(f"{len(found)} runs, {running} running", root)
    return Group(title, Text(""), table.fitting(shown, console, console.width), more)


def _one(status: Status, run_dir: RunDir, width: int) -> RenderableType:
    progress = _progress(run_dir)
    counted = (f"{progress['pool']}/{progress['examples']}", balance(progress["counts"])) if progress else (None, None)
    lines: list[dict[str, object]] = [
        {"state": table.state_words(status), "server": status.server, "job": status.job, "attempts": status.attempts},
        {"step": table.steps(status), "pool": counted[0], "labels": counted[1]},
        {
            "energy": None if status.energy is None else f"{status.energy:.3f}",
            "flips": status.flips,
            "last save": None if status.saved_s is None else f"{table.duration(status.saved_s)} ago",
            "ETA": None if status.eta_s is None else table.duration(status.eta_s),
        },
    ]
    figures = [_line("  ".join(f"{key} {value}" for key, value in line.items() if value is not None)) for line in lines]
    log = [_line(line, "dim") for line in _log_lines(run_dir)]
    return Group(
        _title(f"run {status.run}", run_dir.path.parent), Text(""), *figures, Text(""), *_courses(run_dir, width), *log
    )


def _title(words: str, root: Path) -> Text:
    return _line(f"{time.strftime('%H:%M:%S')}  {words}  (Ctrl-C ends)  {root}")


def _progress(run_dir: RunDir) -> dict[str, Any] | None:
    """Return the last report of progress if it has the pool and its labels."""
    try:
        found = read_progress(run_dir)
        return found if found and {"pool", "examples", "counts"} <= found.keys() else None
    except (OSError, ValueError):
        return None


def _courses(run_dir: RunDir, width: int) -> list[Text]:
    """Return two lines a search: where it is, and the course of its energy over its steps."""
    traces = sorted(run_dir.path.glob("shard-*/trace.jsonl"))
    found = []
    for trace in traces[:SEARCHES]:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            values = energies.by_column(energies.course(trace, width), width)
            last = last_line(trace)
            if values and last:
                figures = f"step {last['step']}  labels {balance(last['counts'])}  energy {last['energy']:.3f}"
                words = f"{trace.parent.name}  {figures}  {min(values):.2f} to {max(values):.2f}"
                found += [_line(words), Text(energies.sparkline(values), style="cyan"), Text("")]
    if len(traces) > SEARCHES:
        found += [Text(f"and {len(traces) - SEARCHES} more searches", style="dim"), Text("")]
    return found


def _line(words: str, style: str = "") -> Text:
    return Text(words, style=style, no_wrap=True, overflow="ellipsis")


def _log_lines(run_dir: RunDir) -> list[str]:
    """Return the last lines of driver.log, and of the one before it, without their reports of progress."""
    lines: list[str] = []
    for path in (run_dir.driver_log, run_dir.earlier_driver_log):  # the newer one may have begun just now
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
            found = file.read().decode(errors="replace").splitlines()
            lines = [line for line in found if " step " not in line][-LOG_LINES:] + lines
    return lines[-LOG_LINES:]
