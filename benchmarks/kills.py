"""`python -m benchmarks.kills kills=200`: kill -9 of driver, server component and engine at random over one long search.

On this machine against the stub: each life of the run is `submit` or `resume` as a user starts it. At the end its
labels and its trace must be, byte for byte, those of a run that nobody disturbed; nothing saved may have been found unreadable.
"""

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import arguments, printed
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.folder import RunDir
from tests.cluster.processes import children

SLOW, FAST = "model.vllm_args.delay-ms=20", "model.vllm_args.delay-ms=0"  # while it is killed, and after
MODEL = (
    "model=stub",
    "task.limit=24",
    "search.method=single",
    "search.schedule=constant",
    "search.memo_mb=0",
    "search.ahead=1",
)
TARGETS = ("driver", "component", "engine", "driver and component")


class Life:
    """A start of the run."""

    def __init__(self, run_dir: RunDir, arguments: list[str]) -> None:
        module = "icm_hpc.resume" if run_dir.config.exists() else "icm_hpc.submit"
        given = [f"run={run_dir.path.name}", f"run.root={run_dir.path.parent}"]
        given += arguments
        self.driver = subprocess.Popen(
            [sys.executable, "-m", module, *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self, target: str) -> bool:
        """Kill what is there of the target; return whether all of it was there."""
        components = children(self.driver.pid)
        pids = {
            "driver": [self.driver.pid],
            "component": components,
            "engine": [pid for component in components for pid in children(component)],
            "driver and component": [self.driver.pid, *components],
        }[target]
        if not pids or (target == "driver and component" and not components):
            return False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True


def undisturbed(root: Path, settings: list[str]) -> RunDir:
    """Run to the end."""
    run_dir = RunDir(root / "undisturbed")
    if Life(run_dir, [*settings, FAST]).driver.wait() != 0:
        raise SystemExit(run_dir.driver_log.read_text())
    return run_dir


def disturbed(root: Path, settings: list[str], kills: int, rng: random.Random) -> tuple[RunDir, dict[str, Any]]:
    """Kill a run again and again, then let it come to its end."""
    run_dir = RunDir(root / "disturbed")
    done: collections.Counter[str] = collections.Counter()
    lives, in_search = 0, 0
    while sum(done.values()) < kills:
        life, lives = Life(run_dir, [*settings, SLOW]), lives + 1
        while life.driver.poll() is None and sum(done.values()) < kills:
            time.sleep(rng.uniform(0.0, 4.0))
            target = rng.choice(TARGETS)
            if life.driver.poll() is None and life.kill(target):
                done[target] += 1
                in_search += bool(checkpoint.generations(run_dir.shard(0)))
                if "driver" in target:
                    life.driver.wait()
            if run_dir.shard(0).exists():
                checkpoint.load_newest(run_dir.shard(0))  # raises if nothing is whole
        life.driver.terminate()
        if life.driver.wait() == 0:
            raise SystemExit(f"the search was over after {sum(done.values())} kills: take more steps")
    if Life(run_dir, [*settings, FAST]).driver.wait() != 0:
        raise SystemExit(run_dir.driver_log.read_text()[-5000:])
    return run_dir, {"kills": dict(done), "lives": lives + 1, "kills_once_something_was_saved": in_search}


def _random(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


def main() -> None:
    """Run the benchmark."""
    mine, rest = arguments({"kills": "200", "steps": "8000", "seed": "0"})
    settings = [*MODEL, f"search.steps={mine['steps']}", "run.save_interval_s=0.05", "server.max_restarts=1000", *rest]
    with tempfile.TemporaryDirectory() as folder:
        plain = undisturbed(Path(folder), settings)
        run_dir, figures = disturbed(Path(folder), settings, int(mine["kills"]), _random(int(mine["seed"])))
        traces = [(one.shard(0) / "trace.jsonl").read_bytes() for one in (plain, run_dir)]
        printed(
            {
                **figures,
                "steps": traces[1].count(b"\n") - 1,
                "labels_equal": plain.labels.read_bytes() == run_dir.labels.read_bytes(),
                "traces_equal": traces[0] == traces[1],
                "saves": int(checkpoint.generations(run_dir.shard(0))[-1].stem.removeprefix("state-")),
                "generations_found_unreadable": len(list(run_dir.path.glob("shard-*/*.damaged"))),
            }
        )


if __name__ == "__main__":
    main()
