"""After a power cut at any moment of a run, the next start ends as if there had been none."""

import asyncio
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from icm_hpc.driver import run
from icm_hpc.rundir import attempts
from icm_hpc.rundir.folder import Endpoint, RunDir
from icm_hpc.scoring.client import Client
from tests import offline
from tests.offline import OfflineClient
from tests.rundir.power_cuts import crash_states, make, recorded

ARGUMENTS = ("task.limit=8", "search.restarts=2", "search.scorings=8", "run.save_interval_s=0")
ENDPOINT = Endpoint("first", 0, ("localhost",), 1, key="k", model="stub")
TRIED = None if os.environ.get("ICM_POWER_CUTS") == "all" else 60  # of the states; all of them take some minutes


class Slow(OfflineClient):
    """Leaves time to save between two answers."""

    pause_s = 0.03

    async def label_logprobs(self, prompts: Iterable[bytes], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        await asyncio.sleep(self.pause_s)
        return await super().label_logprobs(prompts, label_ids)


def start(folder: Path, *, slowly: bool = False) -> RunDir:
    """Start a run, or go on with it, to its end; as a driver does, with the server's part of the folder."""
    settings, run_dir, client = offline.prepare(folder, *ARGUMENTS)
    client = cast(Client, Slow()) if slowly else client
    number = attempts.record_attempt(run_dir, f"start {len(attempts.attempts(run_dir))}")
    run_dir.write_endpoint(ENDPOINT)
    asyncio.run(run.label(settings, run_dir, client, lambda _: None))
    attempts.record_end(run_dir, number, "finished", {})
    return run_dir


def results(run_dir: RunDir) -> dict[str, bytes]:
    """Return what a run is to end with."""
    return {
        str(path.relative_to(run_dir.path)): path.read_bytes()
        for path in (run_dir.labels, *sorted(run_dir.path.glob("shard-*/trace.jsonl")))
    }


def test_from_every_state_a_power_cut_may_leave_a_run_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    expected = results(start(tmp_path / "undisturbed"))
    root = tmp_path / "cut"
    root.mkdir()
    states = list(crash_states(recorded(root, lambda _: start(root, slowly=True))))
    assert len(states) > 150
    random.Random(0).shuffle(states)
    for number, (marks, folders, files) in enumerate(states[:TRIED]):
        place = tmp_path / str(number)
        make(root, place, folders, files)
        run_dir = RunDir(place / "test")
        before = len(attempts.attempts(run_dir))
        assert run_dir.read_endpoint("first") in (None, ENDPOINT)
        if "end" in marks:
            assert results(run_dir) == expected, "what a finished run has written is safe"
        assert results(start(place)) == expected
        assert len(attempts.attempts(run_dir)) == before + 1
