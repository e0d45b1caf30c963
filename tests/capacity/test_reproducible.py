"""model.reproducible: what can give answers that do not depend on the batch, and what is refused."""

from pathlib import Path

import pytest

from icm_hpc import tasks
from icm_hpc.capacity.found import Plan
from icm_hpc.capacity.plan import plan
from icm_hpc.config import loading
from icm_hpc.config.fingerprint import result_settings
from icm_hpc.engines import start_of

GPUS = ("cluster.executor=slurm", "cluster.gpu=H100")


def planned(*arguments: str) -> Plan:
    """Return the plan of some reviews that are to be repeated exactly."""
    config = loading.load(["task.limit=8", "model.reproducible=true", *arguments])
    return plan(config, tasks.load(config.task, seed=0))


def test_gpus_give_it() -> None:
    found = planned("model=8B", *GPUS)
    assert found.fits, found.misfits
    assert not any("model.reproducible" in note for note in found.notes)


def test_a_server_without_gpus_cannot_give_it_and_what_would_fit_is_named() -> None:
    found = planned("model=tiny")
    assert "requires NVIDIA GPUs of compute capability 8.0 or more, and the server has no GPU" in found.misfits[0]
    assert "model.reproducible=false" in found.remedies


def test_a_server_that_runs_already_is_not_started_so() -> None:
    found = planned("model=8B", "server.url=http://theirs:8000")
    assert "start that one so (VLLM_BATCH_INVARIANT=1" in found.misfits[0]


def test_of_fp8_nothing_is_promised() -> None:
    found = planned("model=405B-FP8", *GPUS)
    assert any("and nothing of FP8" in note for note in found.notes)


def test_the_stub_gives_it_always() -> None:
    assert planned("model=stub").fits


@pytest.mark.parametrize("word", ["true", "false"])
def test_the_server_is_started_so_and_only_then(word: str) -> None:
    reproducible = word == "true"
    config = loading.load(["model=8B", f"model.reproducible={word}"])
    start = start_of("vllm")
    argv = start.argv(config.model, Path("weights"), host="h", port=1)
    assert ("--attention-backend" in argv) is reproducible
    assert (start.environment(config.model, "key").get("VLLM_BATCH_INVARIANT") == "1") is reproducible
    assert ("model.reproducible" in result_settings(config)) is reproducible, "runs of earlier versions have it not"
