"""What slurm/ holds, submitted for real: the text that dry_run prints is the text that Slurm was given."""

import subprocess
from pathlib import Path

import pytest

from icm_hpc.config.loading import package_folder
from tests.cluster.daemons import Cluster
from tests.cluster.matrix import STUB_SLOW, inflicted
from tests.cluster.runs import TINY, Run, components, logs, submit
from tests.conftest import require_vllm

pytestmark = pytest.mark.cluster

SINGLE = ("cluster.job=single", "cluster.driver_cpus=1", "server.cpus=1", "server.mem_gb=6")


@pytest.mark.vllm
def test_a_heterogeneous_job_was_given_what_a_dry_run_prints(undisturbed_tiny: tuple[Run, str]) -> None:
    run, _ = undisturbed_tiny
    assert run.script() == submit(run.root, run.name, *TINY, "dry_run=true").stdout


@pytest.mark.vllm
def test_a_plain_job_runs_driver_and_server_side_by_side(slurm: Cluster, tmp_path: Path) -> None:
    require_vllm()
    settings = ("model=tiny", "task.limit=12", "search.steps=20", *SINGLE)
    done = submit(tmp_path, "run", *settings, "wait=true")
    assert done.returncode == 0, done.stderr + logs(tmp_path / "run")
    run = Run(tmp_path, "run")
    assert run.await_end() == "COMPLETED"
    assert [row["JobID"] for row in components(run.job)] == [run.job]
    assert len(run.words()) == 12
    assert run.script() == submit(tmp_path, "run", *settings, "dry_run=true").stdout


def test_a_preempted_plain_job_ends_as_if_nothing_had_happened(
    undisturbed_stub: tuple[Run, str], slurm: Cluster, tmp_path: Path
) -> None:
    outcome = inflicted("preempted-unwarned", slurm, tmp_path, undisturbed_stub[0], (*STUB_SLOW, *SINGLE))
    assert outcome.ok, outcome.row()
    assert outcome.noise == 0


@pytest.mark.parametrize("job", ["het", "single"])
def test_every_placeholder_of_a_site_is_accepted_by_sbatch(slurm: Cluster, tmp_path: Path, job: str) -> None:
    site = (
        *(f"cluster.job={job}", "cluster.account=root", "cluster.gpu_flag=gpus", "cluster.driver_flags=[--nice=10]"),
        *("cluster.server_flags=[--nice=10]", "cluster.server_srun_flags=[--export=ALL]"),
        *("cluster.server_launcher=[env,--unset=X]", "cluster.setup=['export A=1']", "server.nodes=2"),
    )
    printed = submit(tmp_path, "run", "model=tiny", *SINGLE, *site, "dry_run=true").stdout
    assert "srun --overlap" in printed if job == "single" else "#SBATCH hetjob" in printed
    tested = subprocess.run(["sbatch", "--test-only"], input=printed, text=True, capture_output=True, check=False)
    assert tested.returncode == 0, tested.stderr


def test_the_admins_self_test_passes_here(slurm: Cluster, tmp_path: Path) -> None:
    text = (package_folder("slurm") / "selftest.sbatch").read_text()
    script = tmp_path / "selftest.sbatch"
    script.write_text(
        text.replace("##SBATCH --partition=CPU_PARTITION", "#SBATCH --partition=cpu").replace(
            "##SBATCH --partition=GPU_PARTITION --gres=gpu:1", "#SBATCH --partition=gpu"
        )
    )
    done = subprocess.run(["sbatch", "--wait", str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    (output,) = tmp_path.glob("icm-selftest-*.out")
    told = output.read_text()
    assert done.returncode == 0, told
    assert told.count("ok      ") == 6
    assert "runs on each of its 2 nodes" in told
    assert "FAILED" not in told
