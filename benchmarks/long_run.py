"""`python -m benchmarks.long_run`: memory and the size of a save over a long search, at speed.

The stub's answers in the same process, without a server. 864,000 steps are a day at ten a second.
"""

import asyncio
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.serving import arguments, printed
from icm_hpc.driver import run
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.progress import Progress
from tests.offline import OfflineClient, prepare


def rss_mb() -> float:
    """Return the memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measured(folder: Path, steps: int, points: int, arguments: list[str]) -> list[dict[str, Any]]:
    """Search, and look now and then."""
    settings, run_dir, client = prepare(folder, "search.method=single", f"search.steps={steps}", *arguments)
    asked = cast(OfflineClient, client).prompts
    looks: list[dict[str, Any]] = []
    began = time.monotonic()

    def watch(now: Progress) -> None:
        asked.clear()  # the client keeps them for tests
        if now.step >= len(looks) * steps // points:
            saved = [*checkpoint.generations(run_dir.shard(0)), *run_dir.shard(0).glob("memo-*.bin")]
            looks.append(
                {
                    "step": now.step,
                    "rss_mb": round(rss_mb(), 1),
                    "s": round(time.monotonic() - began, 1),
                    "saved_bytes": sum(path.stat().st_size for path in saved),
                    "scorings": now.waits,
                }
            )

    await run.label(settings, run_dir, client, watch)
    return looks


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"steps": "864000", "points": "12"})
    with tempfile.TemporaryDirectory() as folder:
        looks = asyncio.run(measured(Path(folder), int(mine["steps"]), int(mine["points"]), rest))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    printed({"looks": looks, "peak_rss_mb": round(peak, 1)})


if __name__ == "__main__":
    main()
