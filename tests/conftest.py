"""Fixtures that cost much and are shared: one real vLLM and one real Slurm for the whole session."""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.engines import ENGINES, start_of
from icm_hpc.engines.engine import Argv
from icm_hpc.jobs import local
from icm_hpc.rundir.files import write_atomically
from icm_hpc.rundir.folder import RunDir
from icm_hpc.serving import weights

hypothesis.settings.register_profile("icm", deadline=None, print_blob=True)  # machines are noisy: no test has a clock
hypothesis.settings.load_profile("icm")

# A developer's own servers, keys and defaults are no part of a test.
for engine in ENGINES.values():
    for name in (engine.key_variable, engine.url_variable, "ICM_SECRETS", "ICM_DEFAULTS"):
        os.environ.pop(str(name), None)
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def start_stub_by(monkeypatch: pytest.MonkeyPatch, argv: Argv) -> None:
    """Have another command started where the stub would be."""
    start = dataclasses.replace(start_of("stub"), argv=argv)
    monkeypatch.setitem(ENGINES, "stub", dataclasses.replace(ENGINES["stub"], start=start))


def unavailable(reason: str) -> None:
    """Skip a test of a real part that this machine cannot have; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"with CI=true nothing is skipped: {reason}")
    pytest.skip(reason)


@dataclass(frozen=True)
class Served:
    """A run's folder with a server component that runs beside the test."""

    settings: Config
    run_dir: RunDir
    attempt: str


def prepare_run(folder: Path, *arguments: str) -> tuple[Config, RunDir]:
    """Make a run's folder with its settings, as `submit` does."""
    config = loading.load([f"run.root={folder}", "run=test", *arguments])
    run_dir = RunDir(folder / "test")
    run_dir.create()
    write_atomically(run_dir.config, loading.to_yaml(config).encode())
    return config, run_dir


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server component with real vLLM and the model tiny; its preset holds an option that vLLM no longer has."""
    require_vllm()
    old = "model.vllm_args.swap-space=4"
    settings, run_dir = prepare_run(tmp_path_factory.mktemp("tiny"), "model=tiny", "task.limit=16", old)
    with local.serving(run_dir, "tests"):
        yield Served(settings, run_dir, "tests")


def require_vllm() -> None:
    """Skip, or in CI fail, where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        unavailable("vLLM is not installed: make setup, or pip install -e '.[cpu]'")
    weights.locate(loading.load(["model=tiny"]).model)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Any]:
    """The real Slurm daemons; a cluster that ran before the tests goes on running."""
    from tests.cluster import daemons

    try:
        ran_before = daemons.is_up()
        up = daemons.up()
    except daemons.ClusterUnavailable as error:
        unavailable(f"no Slurm daemons: {error}")
    os.environ.update(up.environment)
    yield up
    if not ran_before:
        daemons.down()
