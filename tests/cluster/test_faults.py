"""The core of the fault matrix; `make faults` inflicts all of it, with real vLLM."""

from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster
from tests.cluster.matrix import STUB_SLOW, inflicted
from tests.cluster.runs import TINY, Run

pytestmark = pytest.mark.cluster

WITH_VLLM = ("preempted", "engine-core-killed")
WITH_STUB = (
    *("preempted-unwarned", "time-limit", "gpu-node-dies", "cpu-node-dies", "cancelled", "driver-killed"),
    *("preempted-resubmits", "disk-full", "second-driver"),
)


@pytest.mark.vllm
@pytest.mark.parametrize("name", WITH_VLLM)
def test_a_fault_changes_nothing_but_the_engines_noise(
    name: str, undisturbed_tiny: tuple[Run, str], slurm: Cluster, tmp_path: Path
) -> None:
    outcome = inflicted(name, slurm, tmp_path, undisturbed_tiny[0], TINY)
    assert outcome.ok, outcome.row()


@pytest.mark.parametrize("name", WITH_STUB)
def test_with_a_deterministic_engine_a_fault_changes_nothing(
    name: str, undisturbed_stub: tuple[Run, str], slurm: Cluster, tmp_path: Path
) -> None:
    outcome = inflicted(name, slurm, tmp_path, undisturbed_stub[0], STUB_SLOW)
    assert outcome.ok, outcome.row()
    assert outcome.noise == 0
