"""The core of the fault matrix; `make faults` inflicts all of it, with real vLLM.

With ICM_FAULTS=all, all that needs no vLLM is inflicted on the stub.
"""

import os
from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster
from tests.cluster.faults import FAULTS
from tests.cluster.matrix import STUB_SLOW, inflicted
from tests.cluster.runs import TINY, Run

pytestmark = pytest.mark.cluster

WITH_VLLM = ("preempted", "engine-core-killed")
ONLY_WITH_VLLM = (
    "engine-core-killed",
    "engine-hangs",
    "out-of-memory",
)  # the stub has no engine core, and no such memory
CORE = (
    *("preempted-unwarned", "time-limit", "gpu-node-dies", "cpu-node-dies", "cancelled", "driver-killed"),
    *("preempted-resubmits", "disk-full", "second-driver"),
)
ALL = tuple(name for name in FAULTS if name not in (*ONLY_WITH_VLLM, "rank-killed"))  # test_nodes.py kills a rank
WITH_STUB = ALL if os.environ.get("ICM_FAULTS") == "all" else CORE


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
