"""Where a run's two components run: as processes of this machine, or as one heterogeneous Slurm job through submitit.

The only importer of submitit, whose private methods it overrides: pinned to 1.5.4.
"""

import asyncio
import logging
import os
import shlex
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.core import core, utils
from submitit.slurm import slurm

from . import driver
from .config import Config, load_file, package_folder
from .core import pool
from .driver import Interrupted, Progress, Watch
from .errors import ClusterError, IcmError
from .rundir import RunDir, attempt_of_job, new_attempt, private_append

SERVER_STOP_S = 15.0
REPORT_S = 10.0
TEMPLATE = "het.sbatch"

log = logging.getLogger(__name__)


def run_local(config: Config, run_dir: RunDir, watch: Watch) -> dict[str, Any]:
    """Run server and driver on this machine to the end; return the summary.

    Raises Interrupted after Ctrl-C or SIGTERM, with the state saved. The server is stopped however this ends.
    """
    attempt = new_attempt()
    with local_server(run_dir, attempt):
        return _drive(config, run_dir, attempt, watch)


@contextmanager
def local_server(run_dir: RunDir, attempt: str) -> Iterator[None]:
    """Run the server component as a child of this process, in a session of its own: Ctrl-C is for the driver."""
    argv = [sys.executable, "-m", "icm_hpc.server", str(run_dir.path)]
    environment = {**os.environ, "ICM_ATTEMPT": attempt}
    with private_append(run_dir.server_log) as output:
        server = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        server.terminate()
        try:
            server.wait(timeout=SERVER_STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def submit(config: Config, run_dir: RunDir) -> core.Job[dict[str, Any]]:
    """Queue the run's heterogeneous job, after sbatch has found that it could start; return submitit's job.

    Raises ClusterError, with sbatch's words, if it could not.
    """
    executor = HetSlurmExecutor(config, run_dir)
    require_startable(sbatch_text(config, run_dir))
    try:
        return executor.submit(DriverJob(str(run_dir.path)))
    except utils.FailedJobError as error:
        raise ClusterError(f"sbatch refused the job: {error}") from error


def result(job: core.Job[dict[str, Any]]) -> dict[str, Any]:
    """Wait for a job's end and return its summary; raises ClusterError, with the driver's words, if it has none."""
    try:
        summary: dict[str, Any] = job.result()
    except (utils.FailedJobError, utils.UncompletedJobError) as error:
        raise ClusterError(f"job {job.job_id} ended without labels: {error}") from error
    return summary


def require_startable(text: str) -> None:
    """Raise ClusterError unless `sbatch --test-only` accepts the script."""
    with tempfile.NamedTemporaryFile("w", suffix=".sbatch") as file:
        file.write(text)
        file.flush()
        try:
            tested = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise ClusterError("sbatch is not on the PATH: submit from a login node, or use cluster=local") from error
    if tested.returncode:
        raise ClusterError(
            f"this cluster cannot start the job, so it was not queued: {tested.stderr.strip()}; see the partitions, GPUs,"
            " memory and time in cluster.* and server.* (dry_run=true prints the script)"
        )


def sbatch_text(config: Config, run_dir: RunDir) -> str:
    """Return the batch script: the template slurm/het.sbatch, filled in."""
    cluster, server, model = config.cluster, config.server, config.model
    gpus = server.gpus_per_node if server.gpus_per_node is not None else model.gpus
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
        f"--nodes={server.nodes}",
        f"--cpus-per-task={server.cpus}" if server.cpus else "--exclusive",
        f"--mem={server.mem_gb}G" if server.mem_gb else "--mem=0",
        gpu_flag if gpus else None,
        *cluster.server_flags,
    ]
    folder = run_dir.submitit
    return _Template((package_folder("slurm") / TEMPLATE).read_text()).substitute(
        job_name=shlex.quote(f"icm-{run_dir.path.name}"),
        batch_log=shlex.quote(f"{folder}/%j_batch.out"),
        driver_signal=f"USR2@{cluster.signal_s}",
        server_signal=f"B:USR2@{cluster.signal_s}",  # to the batch shell of component 1, which has none: to nobody
        driver_directives=_directives(driver_flags),
        server_directives=_directives(server_flags),
        setup="\n".join(cluster.setup),
        logs=shlex.quote(str(folder)),
        server_command=shlex.join([sys.executable, "-m", "icm_hpc.server", str(run_dir.path)]),
        driver_command=shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]),
    )


@dataclass(frozen=True)
class DriverJob:
    """What submitit pickles: the run's folder, in which everything else is found."""

    run_folder: str

    def __call__(self) -> dict[str, Any]:
        """Drive the run inside the job. Told to stop, save, requeue if it was in good time, and wait for the end."""
        run_dir = RunDir(Path(self.run_folder))
        config = load_file(run_dir.config)
        log_to_files(run_dir)
        submitits = signal.getsignal(signal.SIGUSR2)  # it pickles this job again, requeues it, and exits
        received: list[int] = []
        try:
            return _drive(config, run_dir, attempt_of_job(), log_progress(), received)
        except Interrupted:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            log.info("state saved after %s", signal.Signals(received[0]).name)
            if signal.SIGUSR2 in received and callable(submitits):
                submitits(signal.SIGUSR2, None)
            while True:  # Slurm requeues or cancels us; to return or to raise would leave a result
                time.sleep(60)
        except IcmError as error:
            log.error("%s", error)
            raise

    def checkpoint(self) -> utils.DelayedSubmission:
        """Return what submitit is to run after a requeue: the same, which finds its saved state in the folder."""
        return utils.DelayedSubmission(self)


class HetSlurmJobEnvironment(slurm.SlurmJobEnvironment):  # type: ignore[misc]
    """The inside of a heterogeneous job; submitit finds it by its entry point and SUBMITIT_EXECUTOR=hetslurm."""

    @property
    def raw_job_id(self) -> str:
        """The leader's id, which sbatch printed."""
        return os.environ.get("SLURM_JOB_ID_HET_GROUP_0") or os.environ["SLURM_JOB_ID"]

    def _requeue(self, countdown: int) -> None:
        """Requeue the whole job, unless Slurm has done so already (a preemption without grace does both at once)."""
        for _ in range(5):
            done = _run_ignoring_sigterm("scontrol", "requeue", self.raw_job_id)
            states = set(_run_ignoring_sigterm("squeue", "-h", "-o", "%T", "-j", self.raw_job_id).stdout.split())
            if done.returncode == 0 or states & {"COMPLETING", "PENDING", "PREEMPTED", "REQUEUED"}:
                log.info("requeued job %s, %d time-outs left", self.raw_job_id, countdown)
                return
            time.sleep(1)
        raise ClusterError(f"job {self.raw_job_id} cannot be requeued: {done.stderr.strip()}")


class HetInfoWatcher(slurm.SlurmInfoWatcher):  # type: ignore[misc]
    """Reads sacct, which prints a heterogeneous job 12 as its components 12+0 and 12+1, and folds them on the leader."""

    LIVE = ("RUNNING", "COMPLETING", "PENDING", "REQUEUED", "PREEMPTED", "SUSPENDED")

    def read_info(self, string: str | bytes) -> dict[str, dict[str, str]]:
        """Return each job's state: a live one if a component has it, else a bad one, else the leader's."""
        text = string if isinstance(string, str) else string.decode()
        header, *lines = text.splitlines() or [""]
        jobs: dict[str, list[dict[str, str]]] = {}
        for line in lines:
            row = dict(zip(header.split("|"), (field.strip() for field in line.split("|")), strict=False))
            if "." not in row["JobID"]:
                jobs.setdefault(row["JobID"].split("+")[0], []).append(row)
        return {leader: self._folded(leader, rows) for leader, rows in jobs.items()}

    def _folded(self, leader: str, rows: list[dict[str, str]]) -> dict[str, str]:
        states = [row["State"].split(" ")[0] for row in rows]  # "CANCELLED by 0"
        rank = [s for s in states if s in self.LIVE] + [s for s in states if s != "COMPLETED"] + states
        return {**rows[0], "JobID": leader, "State": rank[0], "NodeList": ",".join(row["NodeList"] for row in rows)}


class HetSlurmJob(slurm.SlurmJob[core.R]):  # type: ignore[misc]
    """A submitted heterogeneous job."""

    watcher = HetInfoWatcher(delay_s=10)


class HetSlurmExecutor(slurm.SlurmExecutor):  # type: ignore[misc]
    """Submits callables as the driver component of a heterogeneous job; the server component is in the template."""

    job_class = HetSlurmJob

    def __init__(self, config: Config, run_dir: RunDir) -> None:
        super().__init__(run_dir.submitit, max_num_timeout=config.cluster.max_requeues)
        self._config, self._run_dir = config, run_dir
        self.update_parameters(time=config.cluster.time_min)

    def _internal_process_submissions(self, delayed_submissions: list[utils.DelayedSubmission]) -> list[core.Job[Any]]:
        """Submit one job a callable: sbatch refuses arrays of heterogeneous jobs."""
        jobs: list[core.Job[Any]] = super(slurm.SlurmExecutor, self)._internal_process_submissions(delayed_submissions)
        return jobs

    def _num_tasks(self) -> int:
        return 1

    def _make_submission_file_text(self, command: str, uid: str) -> str:  # noqa: ARG002
        return sbatch_text(self._config, self._run_dir)


class _Template(string.Template):
    """Placeholders @{name}, so that a shell's own $ stays as it is."""

    delimiter = "@"
    pattern = r"@(?:(?P<escaped>@)|\{(?P<braced>[a-z_]+)\}|(?P<named>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]


def _directives(flags: list[str | None]) -> str:
    return "\n".join(f"#SBATCH {shlex.quote(flag)}" for flag in flags if flag)


def _drive(
    config: Config, run_dir: RunDir, attempt: str, watch: Watch, received: list[int] | None = None
) -> dict[str, Any]:
    """Run the driver; SIGINT, SIGTERM and SIGUSR2 set its stop event and are noted in `received`."""

    async def main() -> dict[str, Any]:
        stop = asyncio.Event()

        def note(number: int) -> None:
            if received is not None:
                received.append(number)
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            asyncio.get_running_loop().add_signal_handler(number, note, number)
        return await driver.run(config, run_dir, attempt=attempt, stop=stop, watch=watch)

    return asyncio.run(main())


def log_to_files(run_dir: RunDir) -> None:
    """Send what is logged to driver.log, which only the owner can read, and to stderr."""
    private_append(run_dir.driver_log).close()
    handlers: list[logging.Handler] = [logging.FileHandler(run_dir.driver_log), logging.StreamHandler()]
    logging.basicConfig(level=logging.INFO, handlers=handlers, format="%(asctime)s %(message)s", force=True)


def log_progress() -> Watch:
    """Return a watch that logs a line now and then."""
    logged = float("-inf")

    def watch(progress: Progress) -> None:
        nonlocal logged
        if time.monotonic() - logged < REPORT_S and progress.step < progress.steps:
            return
        logged = time.monotonic()
        log.info(
            "step %d/%d, pool %d/%d, labels %s, entropy %.3f, energy %.3f, flips %d",
            *(progress.step, progress.steps, progress.pool, progress.examples),
            *("+".join(map(str, progress.counts)), pool.entropy(progress.counts), progress.energy, progress.flips),
        )

    return watch


def _run_ignoring_sigterm(*argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that outlives the SIGTERM which Slurm sends to every process of a step."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    )
