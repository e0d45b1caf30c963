"""Runs that nobody disturbs, for comparison."""

from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster
from tests.cluster.runs import STUB, TINY, Run, logs, submit
from tests.conftest import require_vllm


@pytest.fixture(scope="session")
def undisturbed_tiny(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run of the model tiny on real vLLM, submitted and waited for; and what submit printed."""
    require_vllm()
    return _undisturbed(tmp_path_factory.mktemp("undisturbed"), TINY)


@pytest.fixture(scope="session")
def undisturbed_stub(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """The same with the stub."""
    return _undisturbed(tmp_path_factory.mktemp("undisturbed"), STUB)


def _undisturbed(root: Path, model: tuple[str, ...]) -> tuple[Run, str]:
    done = submit(root, "run", *model, "wait=true")
    assert done.returncode == 0, done.stdout + done.stderr + logs(root / "run")
    return Run(root, "run"), done.stdout
