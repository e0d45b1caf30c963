"""One model over two nodes, and two replicas of it, as heterogeneous jobs on the real Slurm daemons."""

from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster
from tests.cluster.matrix import STUB_SLOW, inflicted
from tests.cluster.runs import NOISE, TINY, Run, components, logs, submit

pytestmark = pytest.mark.cluster


@pytest.mark.vllm
@pytest.mark.parametrize(
    "spread",
    [("model.tensor_parallel_size=2",), ("server.replicas=2", "model.vllm_args.api-server-count=1")],
    ids=["tensor-parallel", "replicas"],
)
def test_labels_from_two_nodes_are_those_from_one(
    undisturbed_tiny: tuple[Run, str], slurm: Cluster, tmp_path: Path, spread: tuple[str, ...]
) -> None:
    done = submit(tmp_path, "two", *TINY, *spread, "server.nodes=2", "wait=true")
    assert done.returncode == 0, done.stderr + logs(tmp_path / "two")
    one, two = undisturbed_tiny[0], Run(tmp_path, "two")
    assert two.await_end() == "COMPLETED+COMPLETED"
    assert components(two.job)[1]["NodeList"] == "gpu[1-2]"
    assert two.script() == submit(tmp_path, "two", *TINY, *spread, "server.nodes=2", "dry_run=true").stdout
    assert two.words() == one.words()
    assert two.decisions() == one.decisions()
    assert two.noise_against(one) <= NOISE
    assert two.dir.rank_log(1).stat().st_size > 0, "the second node's engine has a log of its own"


def test_a_rank_that_dies_is_restarted_with_the_others_and_the_run_ends_as_if_nothing_had_happened(
    undisturbed_stub: tuple[Run, str], slurm: Cluster, tmp_path: Path
) -> None:
    outcome = inflicted("rank-killed", slurm, tmp_path, undisturbed_stub[0], STUB_SLOW)
    assert outcome.ok, outcome.row()
    assert outcome.noise == 0
    assert outcome.servers_lost == 1


def test_both_ranks_start_at_a_site_where_jobs_and_steps_inherit_no_environment(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    spread = ("model=stub", "server.nodes=2", "model.tensor_parallel_size=2", "task.limit=8", "search.steps=5")
    done = submit(tmp_path, "two", *spread, "cluster.setup=['export SLURM_EXPORT_ENV=NONE']", "wait=true")
    assert done.returncode == 0, done.stderr + logs(tmp_path / "two")
    assert len(Run(tmp_path, "two").words()) == 8
