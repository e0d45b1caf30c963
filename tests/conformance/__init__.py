"""Is the reference protocol the published search? Recorded runs of the published code, compared event by event."""

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icm_hpc.config import loading
from icm_hpc.config.searching import annealing_of
from icm_hpc.core import energy, published, search
from icm_hpc.core.types import frozen_labels
from tests.conformance.replay import Replay
from tests.conformance.trace import Different, Event, pairs, problem_of, read

TRACES = Path(os.environ.get("ICM_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
RELATIVE = 1e-9


def compare(folder: Path) -> int:
    """Replay all traces, one line each; return 1 if any differs, or if there is none."""
    paths = sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")])
    checks: list[tuple[Path, Callable[[Path], str]]] = [(path, replayed) for path in paths]
    checks += [(path, unit_cases) for path in sorted(folder.rglob("unit_cases.json"))]
    failures = 0
    for path, check in checks:
        try:
            verdict = f"ok    {path.relative_to(folder)}: {check(path)}"
        except Exception as error:  # whatever stops a comparison, this trace is not shown to be the same
            failures += 1
            verdict = f"DIFF  {path.relative_to(folder)}: {type(error).__name__}: {error}"
        print(verdict, flush=True)
    if not paths:
        print(f"there are no traces in {folder}: set ICM_TRACES", file=sys.stderr)
    return int(failures > 0 or not paths)


def replayed(path: Path) -> str:
    """Return what was compared; raises Different at the first event that differs."""
    header, events = read(path)
    left_out = {"init_shuffle"} | ({"sample", "batch"} if header["raw"] is None else set())  # `init` has its outcome
    recorded = iter([event for event in events if event["t"] not in left_out])
    compared = 0
    for ours in Replay(header, events).events():
        theirs = next(recorded, None)
        if theirs is None:
            raise Different(f"ours goes on with {ours['t']} where the recording ends")
        _require_same(ours, theirs, compared)
        compared += 1
    if (left := next(recorded, None)) is not None:
        raise Different(f"ours ends where {left['t']} was recorded")
    return f"{sum(event['t'] == 'iter_end' for event in events)} iterations, {compared} events"


def unit_cases(path: Path) -> str:
    """Check the tables of the published pure functions; return what was compared."""
    tables = json.loads(path.read_text())
    for case in tables["score_from_top_logprobs"]:
        no, yes = published.label_scores(case["logprobs"], ("false", "true"))
        _require_equal(case, yes - no, case["score"])
    for case in tables["temperature"]:
        names = {
            "initial_temperature": "initial_T",
            "final_temperature": "final_T",
            "decay": "decay",
            "schedule": "scheduler",
        }
        given = loading.load([f"search.{ours}={case[theirs]}" for ours, theirs in names.items()])
        _require_equal(case, search.temperature(annealing_of(given.search), case["flips"]), case["T"])
    for case in tables["inconsistent_pairs"]:
        uids = [uid for uid, *_ in case["pool"]]
        problem = problem_of([{"consistency_id": i, "consistency_key": key} for _, i, key, _ in case["pool"]])
        found = energy.broken(problem, frozen_labels([label for *_, label in case["pool"]]))
        _require_equal(case, [[uids[a], uids[b], kind] for a, b, kind in pairs(found)], case["pairs_before_shuffle"])
    return ", ".join(f"{len(rows)} cases of {name}" for name, rows in tables.items())


def _require_same(ours: Event, theirs: Event, number: int) -> None:
    """Compare all that our event tells; verbatim prompts and cache hits where they were recorded."""
    for key, value in ours.items():
        wanted: Any = theirs.get(key)
        if key in ("prompts", "cache_hit") and wanted is None:
            continue
        mine = {uid: value.get(uid) for uid in wanted} if key == "prompts" else value
        _require_equal(f"event {number} ({theirs['t']}), {key}", mine, wanted)


def _require_equal(what: object, ours: Any, theirs: Any) -> None:
    if not _equal(ours, theirs):
        raise Different(f"{what}: ours is {ours!r}, recorded {theirs!r}"[:1000])


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        return math.isclose(ours, theirs, rel_tol=RELATIVE, abs_tol=1e-12)
    return bool(ours == theirs)
