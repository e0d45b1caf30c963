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
    return f"{config.cluster.job}.sbatch" if config.external_url is None else "driver.sbatch"


def text(config: Config, run_dir: RunDir) -> str:
    """Return the batch script: a template of slurm/, filled in."""
    cluster, folder = config.cluster, run_dir.submitit
    python = cluster.server_python or sys.executable
    server_argv = [*cluster.server_launcher, python, "-m", "icm_hpc.server", str(run_dir.path)]
    return _Template((package_folder("slurm") / template(config)).read_text()).substitute(
        job_name=shlex.quote(f"icm-{run_dir.path.name}"),
        requeue="--requeue" if cluster.on_preempt == "requeue" else "--no-requeue",
        batch_log=shlex.quote(f"{folder}/%j_batch.out"),
        driver_signal=f"USR2@{cluster.signal_s}",
        server_signal=f"B:USR2@{cluster.signal_s}",  # to the batch shell of component 1, which has none: to nobody
        driver_directives=_directives(_driver_flags(config)),
        server_directives=_directives(_server_flags(config, config.server.cpus, config.server.mem_gb)),
        single_directives=_directives(_single_flags(config)),
        setup="\n".join(cluster.setup),
        logs=shlex.quote(str(folder)),
        steps=(package_folder("slurm") / "steps.sh").read_text().rstrip(),
        server_nodes=str(config.nodes),
        server_srun_flags=shlex.join(cluster.server_srun_flags),
        server_command=shlex.join(server_argv),
        post_mortem_command=shlex.join([sys.executable, "-m", "icm_hpc.server", str(run_dir.path), "--post-mortem"]),
        driver_command=shlex.join([sys.executable, "-u", "-m", "icm_hpc.cluster", str(folder)]),
    )


def _common_flags(config: Config) -> list[str]:
    cluster = config.cluster
    named = {"account": cluster.account, "qos": cluster.qos, "reservation": cluster.reservation}
    return [*(f"--{name}={value}" for name, value in named.items() if value), f"--time={cluster.time_min}"]


def _driver_flags(config: Config) -> list[str]:
    cluster = config.cluster
    named = {"partition": cluster.driver_partition, "constraint": cluster.driver_constraint}
    return [
        *_common_flags(config),
        *(f"--{name}={value}" for name, value in named.items() if value),
        f"--cpus-per-task={cluster.driver_cpus}",
        f"--mem={cluster.driver_mem_gb}G",
        *cluster.driver_flags,
    ]


def _server_flags(config: Config, cpus: int | None, mem_gb: int | None) -> list[str]:
    """Return what the server asks for: `cpus` and `mem_gb` a node, or, without them, whole nodes."""
    cluster = config.cluster
    named = {"partition": cluster.server_partition, "constraint": cluster.server_constraint}
    return [
        *_common_flags(config),
        *(f"--{name}={value}" for name, value in named.items() if value),
        f"--nodes={config.nodes}",
        f"--cpus-per-task={cpus}" if cpus else "--exclusive",
        f"--mem={mem_gb}G" if mem_gb else "--mem=0",
        *_gpu_flags(config),
        *cluster.server_flags,
    ]


def _single_flags(config: Config) -> list[str]:
    """Return what a job asks for whose driver runs beside the server: the sum of both."""
    server, cluster = config.server, config.cluster
    return _server_flags(
        config,
        server.cpus and server.cpus + cluster.driver_cpus,
        server.mem_gb and server.mem_gb + cluster.driver_mem_gb,
    )


def _gpu_flags(config: Config) -> list[str]:
    count, cluster = config.gpus_per_node, config.cluster
    wanted = f"{cluster.gpu_type}:{count}" if cluster.gpu_type else str(count)
    flags = {"gres": f"--gres=gpu:{wanted}", "gpus": f"--gpus-per-node={wanted}"}
    return [flags[cluster.gpu_flag]] if count and cluster.gpu_flag in flags else []


class _Template(string.Template):
    """Placeholders @{name}, so that a shell's own $ stays as it is."""

    delimiter = "@"
    pattern = r"@(?:(?P<escaped>@)|\{(?P<braced>[a-z_]+)\}|(?P<named>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]


def _directives(flags: list[str]) -> str:
    return "\n".join(f"#SBATCH {shlex.quote(flag)}" for flag in flags)
