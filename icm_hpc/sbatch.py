"""The batch script: a template of slurm/, in which each placeholder is filled, and nothing else is changed."""

import shlex
import string
import subprocess
import sys
import tempfile

from . import keys
from .config import package_folder
from .errors import ClusterError
from .rundir import RunDir
from .settings import Config


def require_startable(script: str) -> None:
    """Raise ClusterError unless `sbatch --test-only` accepts the script."""
    with tempfile.NamedTemporaryFile("w", suffix=".sbatch") as file:
        file.write(script)
        file.flush()
        try:
            command = ["sbatch", "--test-only", file.name]
            with keys.hidden():
                tested = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise ClusterError("sbatch is not on the PATH: submit from a login node, or use cluster=local") from error
    if tested.returncode:
        raise ClusterError(
            f"this cluster cannot start the job, so it was not queued: {tested.stderr.strip()}; see the partitions, GPUs,"
            " memory and time in cluster.* and server.* (dry_run=true prints the script)"
        )


def template(config: Config) -> str:
    """Return the name of the template in slurm/: of a server and its driver, or of a driver alone."""
    return "het.sbatch" if config.external_url is None else "driver.sbatch"


def text(config: Config, run_dir: RunDir) -> str:
    """Return the batch script: a template of slurm/, filled in."""
    cluster, server = config.cluster, config.server
    gpus = config.gpus_per_node
    gpu_flag = {"gres": f"--gres=gpu:{gpus}", "gpus": f"--gpus-per-node={gpus}", "none": None}[cluster.gpu_flag]
    account = [
        f"--account={cluster.account}" if cluster.account else None,
        f"--qos={cluster.qos}" if cluster.qos else None,
    ]
    common = [*account, f"--time={cluster.time_min}"]
    driver_flags = [
        *common,
        f"--partition={cluster.driver_partition}" if cluster.driver_partition else None,
        f"--cpus-per-task={cluster.driver_cpus}",
        f"--mem={cluster.driver_mem_gb}G",
        *cluster.driver_flags,
    ]
    server_flags = [
        *common,
        f"--partition={cluster.server_partition}" if cluster.server_partition else None,
        f"--nodes={config.nodes}",
        f"--cpus-per-task={server.cpus}" if server.cpus else "--exclusive",
        f"--mem={server.mem_gb}G" if server.mem_gb else "--mem=0",
        gpu_flag if gpus else None,
        *cluster.server_flags,
    ]
    folder = run_dir.submitit
    server_argv = [sys.executable, "-m", "icm_hpc.server", str(run_dir.path)]
    return _Template((package_folder("slurm") / template(config)).read_text()).substitute(
        job_name=shlex.quote(f"icm-{run_dir.path.name}"),
        requeue="--requeue" if cluster.on_preempt == "requeue" else "--no-requeue",
        batch_log=shlex.quote(f"{folder}/%j_batch.out"),
        driver_signal=f"USR2@{cluster.signal_s}",
        server_signal=f"B:USR2@{cluster.signal_s}",  # to the batch shell of component 1, which has none: to nobody
        driver_directives=_directives(driver_flags),
        server_directives=_directives(server_flags),
        setup="\n".join(cluster.setup),
        logs=shlex.quote(str(folder)),
        server_command=shlex.join(server_argv),
        post_mortem_command=shlex.join([*server_argv, "--post-mortem"]),
        driver_command=shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]),
    )


class _Template(string.Template):
    """Placeholders @{name}, so that a shell's own $ stays as it is."""

    delimiter = "@"
    pattern = r"@(?:(?P<escaped>@)|\{(?P<braced>[a-z_]+)\}|(?P<named>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]


def _directives(flags: list[str | None]) -> str:
    return "\n".join(f"#SBATCH {shlex.quote(flag)}" for flag in flags if flag)
