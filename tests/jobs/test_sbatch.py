"""What the batch script asks for."""

from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.jobs import sbatch
from icm_hpc.rundir.folder import RunDir

SLURM = ("model=stub", "cluster=slurm")


def memory(*arguments: str) -> list[list[str]]:
    """Return the flags of memory of each component of a script."""
    script = sbatch.text(loading.load([*SLURM, *arguments]), RunDir(Path("/runs/mine")))
    parts = script.split("#SBATCH hetjob\n")
    directives = [[line.split()[1] for line in part.splitlines() if line.startswith("#SBATCH ")] for part in parts]
    return [[flag for flag in flags if flag.startswith("--mem")] for flags in directives]


PER_CPU = ("server.mem_gb=null", "cluster.server_flags=[--mem-per-cpu=2G]")


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ((), [["--mem=8G"], ["--mem=1G"]]),
        (("model=405B",), [["--mem=8G"], ["--mem=0"]]),
        (("server.mem_gb=0", "cluster.driver_mem_gb=0"), [["--mem=0"], ["--mem=0"]]),
        (("cluster.driver_mem_gb=null",), [[], ["--mem=1G"]]),
        (("cluster.driver_mem_gb=null", "server.mem_gb=null"), [[], []]),
        # sbatch would hand the driver's memory on to the server.
        (("server.mem_gb=null",), [[], []]),
        # It refuses --mem before --mem-per-cpu.
        (PER_CPU, [["--mem-per-cpu=4096M"], ["--mem-per-cpu=2G"]]),
        ((*PER_CPU, "cluster.driver_mem_gb=null"), [[], ["--mem-per-cpu=2G"]]),
        (("cluster.server_flags=[--mem-per-cpu=2G]",), [["--mem-per-cpu=4096M"], ["--mem-per-cpu=2G"]]),
        (("cluster.server_flags=[--mem-per-gpu=2G]",), [["--mem-per-cpu=4096M"], ["--mem-per-gpu=2G"]]),
        (("cluster.driver_flags=[--mem-per-cpu=3G]",), [["--mem-per-cpu=3G"], ["--mem=1G"]]),
        (("cluster.server_flags=[--mem=500M]", "server.mem_gb=null"), [["--mem=8G"], ["--mem=500M"]]),
        (("cluster.server_flags=[--mem-bind=local]",), [["--mem=8G"], ["--mem=1G", "--mem-bind=local"]]),
        (("cluster.job=single",), [["--mem=9G"]]),
        (("cluster.job=single", "server.mem_gb=0"), [["--mem=0"]]),
        (("cluster.job=single", "server.mem_gb=null"), [[]]),
        (("cluster.job=single", "cluster.driver_mem_gb=null"), [[]]),
        (("cluster.job=single", "cluster.server_flags=[--mem-per-cpu=2G]"), [["--mem-per-cpu=2G"]]),
        (("server.url=http://host:8000",), [["--mem=8G"]]),
        (("server.url=http://host:8000", "cluster.driver_mem_gb=null"), [[]]),
        (("server.url=http://host:8000", "server.mem_gb=null"), [["--mem=8G"]]),
    ],
)
def test_memory_is_stated_by_node_by_cpu_or_not_at_all(arguments: tuple[str, ...], flags: list[list[str]]) -> None:
    assert memory(*arguments) == flags
