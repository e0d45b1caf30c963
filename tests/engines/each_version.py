"""What is tested on each version of vLLM beside the tests with the mark `versions`: replicas, and an engine that is killed.

pytest collects this module only by its name, as tests/engines/versions.py does. On the newest, cluster tests do it.
"""

import os
import signal
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from icm_hpc import tasks
from icm_hpc.config.schema import Config
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.driver import run
from icm_hpc.jobs import local
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring import connect
from icm_hpc.scoring.prompts import of_tokens
from icm_hpc.scoring.scorer import Scorer
from tests.cluster.processes import children, read
from tests.cluster.runs import NOISE, TINY, Run
from tests.conftest import Served, prepare_run
from tests.driver.test_lost_server import drive

pytestmark = [pytest.mark.vllm, pytest.mark.versions]


async def scored(settings: Config, run_dir: RunDir) -> tuple[np.ndarray, int]:
    """Return the scores of 16 reviews, and the tokens that the server computed for them."""
    task = tasks.load(settings.task, seed=0)
    async with connect.connected(settings, run_dir, "tests") as connected:
        client = connected.salted(uuid4().hex)
        scorer = Scorer(client, await of_tokens(client, task), task.problem(), "trie")
        before = await client.metrics()
        (scores,) = await scorer.answer([ScorePool(frozen_labels(np.arange(len(task.examples)) % 2), "eval")])
        return scores, (await client.metrics()).computed_tokens - before.computed_tokens


@pytest.mark.parametrize(
    "spread", ["server.replicas=2", "model.vllm_args.api-server-count=2"], ids=["replicas", "front-ends"]
)
async def test_two_score_as_one_and_compute_no_branch_of_the_prompts_twice(
    tiny_server: Served, tmp_path: Path, spread: str
) -> None:
    alone, computed = await scored(tiny_server.settings, tiny_server.run_dir)
    settings, run_dir = prepare_run(tmp_path, "model=tiny", "task.limit=16", spread)
    with local.serving(run_dir, "tests"):
        together, by_both = await scored(settings, run_dir)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert by_both == pytest.approx(computed, rel=0.05)


def kill_core(_run_dir: RunDir, component: int) -> None:
    """Kill the core of the engine that a server component runs."""
    (engine,) = children(component)
    core = next(pid for pid in children(engine) if b"EngineCore" in read(pid, "cmdline"))
    os.kill(core, signal.SIGKILL)


async def test_an_engine_core_that_is_killed_is_restarted_and_the_run_ends_as_if_nothing_had_happened(
    tiny_server: Served, tmp_path: Path
) -> None:
    settings, undisturbed = prepare_run(tmp_path / "plain", *TINY)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        await run.label(settings, undisturbed, client, lambda _: None)
    settings, _ = prepare_run(tmp_path / "killed", *TINY)
    summary = await drive(settings, RunDir(tmp_path / "killed" / "test"), 30, kill_core)
    assert summary["since_start"]["servers_lost"] == 1
    plain, killed = Run(tmp_path / "plain", "test"), Run(tmp_path / "killed", "test")
    assert killed.words() == plain.words()
    assert killed.decisions() == plain.decisions()
    assert killed.noise_against(plain) <= NOISE
