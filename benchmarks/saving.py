"""`python -m benchmarks.saving`: what a save costs, by pool size and by the steps that were done before it.

`sizes` are pools of two labels, all labelled; `steps` are lengths of the trace; the memo is as full as search.memo_mb lets
it be. Each save adds one step and one scoring; the first one saves all of the memo. Bytes are those of a generation, and what
trace and memo grew by.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import arguments, printed
from icm_hpc.core.memo import KEY_BYTES, Memo
from icm_hpc.core.types import Labelling, State, StepInfo, frozen_labels
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.checkpoint import Saved
from icm_hpc.rundir.saves import Saves

MARK = "{}"


def state_of(n: int, step: int) -> State:
    """Return a state with all of n examples labelled."""
    rng = np.random.default_rng(step)
    labelling = Labelling(frozen_labels(rng.integers(0, 2, n)), rng.normal(size=(n, 2)), 1.5)
    return State(step=step, flips=step // 2, current=labelling, best=labelling)


def memo_of(n: int, memo_mb: float) -> Memo:
    """Return a memo that is as full as it gets."""
    memo = Memo(int(memo_mb * 1e6), purposes_differ=False)
    for number in range(int(memo_mb * 1e6) // (n * 16)):
        learn(memo, n, number)
    return memo


def learn(memo: Memo, n: int, number: int) -> None:
    """Remember a scoring of n examples."""
    memo[number.to_bytes(KEY_BYTES, "big")] = np.full((n, 2), float(number))


def step_of(n: int, step: int) -> StepInfo:
    """Return a step that flipped one label."""
    counts = (n // 2, n - n // 2)
    return StepInfo(
        step, 123.456, step // 2, n, counts, 0, index=7, old=0, new=1, changed=((7, 1),), temperature=0.1, u=0.5
    )


def memo_size(folder: Path) -> int:
    """Return the bytes of the memo's file."""
    return sum(path.stat().st_size for path in folder.glob("memo-*.bin"))


def cost(n: int, steps: int, memo_mb: float, repeats: int) -> dict[str, Any]:
    """Return what a save costs after so many steps, the median of some."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        memo, state = memo_of(n, memo_mb), state_of(n, steps)
        with Saves(folder, MARK, None) as saves:
            for step in range(steps):
                saves.append(step_of(n, step))
            began = time.monotonic()
            saves.save(saves.snapshot(state, memo, n_labels=2))
            first_s = time.monotonic() - began
            seconds, before = [], (folder / "trace.jsonl").stat().st_size
            memo_bytes = memo_size(folder)
            for more in range(repeats):
                saves.append(step_of(n, steps + more))
                learn(memo, n, 10**9 + more)
                began = time.monotonic()
                path = saves.save(saves.snapshot(state, memo, n_labels=2))
                seconds.append(time.monotonic() - began)
            memo_added = (memo_size(folder) - memo_bytes) // repeats
        began = time.monotonic()
        loaded: Saved | None = checkpoint.load(folder, MARK)
        load_s = time.monotonic() - began
        if loaded is None or len(loaded.state.current.labels) != n:
            sys.exit("what was saved was not loaded")
        return {
            "n": n,
            "steps": steps,
            "first_save_ms": round(1e3 * first_s, 1),
            "save_ms": round(1e3 * float(np.median(seconds)), 1),
            "generation_bytes": path.stat().st_size,
            "memo_bytes_a_save": memo_added,
            "trace_bytes_a_step": ((folder / "trace.jsonl").stat().st_size - before) // repeats,
            "trace_bytes": before,
            "load_ms": round(1e3 * load_s, 1),
        }


def main() -> None:
    """Run the benchmark."""
    mine, _ = arguments({"sizes": "256,10000,1000000", "steps": "1000,100000", "memo_mb": "16", "repeats": "9"})
    rows = [
        cost(n, steps, float(mine["memo_mb"]), int(mine["repeats"]))
        for n in map(int, mine["sizes"].split(","))
        for steps in map(int, mine["steps"].split(","))
    ]
    printed({"saves": rows})


if __name__ == "__main__":
    main()
