"""One model over two nodes, and two replicas of it, as heterogeneous jobs on the real Slurm daemons."""

from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster
from tests.cluster.matrix import STUB_SLOW
from tests.cluster.processes import children, kill, of_command, read
from tests.cluster.runs import NOISE, TINY, Run, components, logs, submit

pytestmark = pytest.mark.cluster


@pytest.mark.vllm
@pytest.mark.parametrize("spread", ["model.tensor_parallel_size=2", "server.replicas=2"])
def test_labels_from_two_nodes_are_those_from_one(
    undisturbed_tiny: tuple[Run, str], slurm: Cluster, tmp_path: Path, spread: str
) -> None:
    done = submit(tmp_path, "two", *TINY, spread, "server.nodes=2", "wait=true")
    assert done.returncode == 0, done.stderr + logs(tmp_path / "two")
    one, two = undisturbed_tiny[0], Run(tmp_path, "two")
    assert two.await_end() == "COMPLETED+COMPLETED"
    assert components(two.job)[1]["NodeList"] == "gpu[1-2]"
    assert two.words() == one.words()
    assert two.decisions() == one.decisions()
    assert two.noise_against(one) <= NOISE
    assert two.dir.rank_log(1).stat().st_size > 0, "the second node's engine has a log of its own"


def test_a_rank_that_dies_is_started_anew_with_the_others_and_the_run_goes_on(slurm: Cluster, tmp_path: Path) -> None:
    assert submit(tmp_path, "two", *STUB_SLOW, "server.nodes=2").returncode == 0
    run = Run(tmp_path, "two")
    run.await_step(20)
    (second,) = [pid for pid in of_command("icm_hpc.server", str(run.dir.path)) if _rank(pid) == b"1"]
    kill(*children(second))
    assert run.await_end() == "COMPLETED+COMPLETED", logs(run.dir.path)
    assert "of rank 1 on" in run.dir.server_log.read_text()
    assert run.attempts[0]["counts"]["servers_lost"] == 1
    assert of_command("icm_hpc.server", str(run.dir.path)) == []


def _rank(pid: int) -> bytes:
    """Return the rank that Slurm gave a process."""
    variables = dict(line.partition(b"=")[::2] for line in read(pid, "environ").split(b"\0"))
    return variables.get(b"SLURM_PROCID", b"")
