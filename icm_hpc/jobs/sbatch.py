"""The batch script: a template of slurm/, in which each placeholder is filled, and nothing else is changed."""

import re
import shlex
import string
import sys
import tempfile
from pathlib import Path

from .. import scheduler
from ..config.loading import package_folder
from ..config.schema import Config
from ..errors import ClusterError
from ..rundir.folder import RunDir


def require_startable(script: str) -> None:
    """Raise ClusterError unless `sbatch --test-only` accepts the script."""
    with tempfile.NamedTemporaryFile("w", suffix=".sbatch") as file:
        file.write(script)
        file.flush()
        tested = scheduler.sbatch(Path(file.name), "--test-only")
    if tested.returncode:
        words = tested.stderr.strip() or tested.stdout.strip() or f"exit code {tested.returncode}"
        raise ClusterError(
            f"this cluster cannot start the job, so it was not queued: {words}; see the partitions, GPUs, memory and time in"
            " cluster.* and server.* (dry_run=true prints the script)"
        )


def template(config: Config) -> str:
    """Return the name of the template in slurm/: of a server and its driver, or of a driver alone."""
    return f"{config.cluster.job}.sbatch" if config.external_url is None else "driver.sbatch"


def job_name(run_dir: RunDir) -> str:
    """Return what the run's jobs are called."""
    return f"icm-{run_dir.path.name}"


def text(config: Config, run_dir: RunDir) -> str:
    """Return the batch script: a template of slurm/, filled in."""
    cluster, folder = config.cluster, run_dir.submitit
    python = cluster.server_python or sys.executable
    server_argv = [*cluster.server_launcher, python, "-m", "icm_hpc.serving.server", str(run_dir.path)]
    return _Template((package_folder("slurm") / template(config)).read_text()).substitute(
        job_name=shlex.quote(job_name(run_dir)),
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
        post_mortem_command=shlex.join(
            [sys.executable, "-m", "icm_hpc.serving.server", str(run_dir.path), "--post-mortem"]
        ),
        driver_command=shlex.join([sys.executable, "-u", "-m", "icm_hpc.jobs.submission", str(folder)]),
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
        *_driver_memory(config),
        *cluster.driver_flags,
    ]


def _server_flags(config: Config, cpus: int | None, mem_gb: int | None) -> list[str]:
    """Return what the server asks for: `cpus` a node, or, without them, whole nodes; and `mem_gb` a node."""
    cluster = config.cluster
    named = {"partition": cluster.server_partition, "constraint": cluster.server_constraint}
    return [
        *_common_flags(config),
        *(f"--{name}={value}" for name, value in named.items() if value),
        f"--nodes={config.nodes}",
        f"--cpus-per-task={cpus}" if cpus else "--exclusive",
        *_memory(mem_gb, cluster.server_flags),
        *_gpu_flags(config),
        *cluster.server_flags,
    ]


def _single_flags(config: Config) -> list[str]:
    """Return what a job asks for whose driver runs beside the server: the sum of both."""
    server, cluster = config.server, config.cluster
    both = (server.mem_gb, cluster.driver_mem_gb)
    total = 0 if 0 in both else None if None in both else sum(filter(None, both))
    return _server_flags(config, server.cpus and server.cpus + cluster.driver_cpus, total)


def _memory(mem_gb: int | None, flags: list[str]) -> list[str]:
    """Return the flag of a component's memory a node: 0 is all of it, None the site's default; none if `flags` state it."""
    if mem_gb is None or _states_memory(flags):
        return []
    return [f"--mem={mem_gb}G" if mem_gb else "--mem=0"]


def _driver_memory(config: Config) -> list[str]:
    """Return the flag of the driver's memory.

    sbatch hands the first component's memory on to a second one that states none, and refuses --mem in the first with
    --mem-per-cpu or --mem-per-gpu in the second (22.05): the first then has none, or states the same by CPU.
    """
    cluster, server = config.cluster, config.server
    flags = _memory(cluster.driver_mem_gb, cluster.driver_flags)
    if not flags or template(config) != "het.sbatch":
        return flags
    if _states_memory(cluster.server_flags, by="-per-[cg]pu"):
        mb = -(-(cluster.driver_mem_gb or 0) * 1024 // cluster.driver_cpus)
        return [f"--mem-per-cpu={mb}M"] if mb else []
    return flags if server.mem_gb is not None or _states_memory(cluster.server_flags) else []


def _states_memory(flags: list[str], *, by: str = "(-per-[cg]pu)?") -> bool:
    return any(re.match(rf"--mem{by}(=|$)", flag) for flag in flags)


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
