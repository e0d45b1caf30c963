"""A run as one Slurm job, heterogeneous if it has a server of its own, through submitit.

The only importer of submitit, whose private methods it overrides: pinned to 1.5.4. `python -m icm_hpc.jobs.submission FOLDER`
is the driver component: it runs what submitit has pickled into a folder.
"""

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from submitit.core import core, submission, utils
from submitit.slurm import slurm

from .. import scheduler
from ..config.loading import load_file
from ..config.schema import Config
from ..driver.run import drive
from ..errors import ClusterError, IcmError, Interrupted, SchedulerError
from ..heldout import label as heldout
from ..rundir import progress
from ..rundir.attempts import attempts, scored_anything
from ..rundir.files import require_private
from ..rundir.folder import RunDir
from ..rundir.logs import log_to_files
from . import sbatch
from .notifying import notify
from .reporting import IN_JOB_S, write_report

TRY_FOR_S = 60.0  # to requeue or to resubmit; a part of cluster.signal_s
ENDED_WITHIN_S = 900.0  # by Slurm, once the driver was told to stop; until then the job keeps its nodes
FRUITLESS_STARTS = 5  # in a row, before the run is left to a person
CONTINUED_AS = "continued_as"  # in the result of a job whose run goes on in another: that one's id

R = TypeVar("R")

log = logging.getLogger(__name__)


def main() -> None:
    """Run the job of this folder, if it is ours alone: submitit unpickles what is in it."""
    try:
        require_private(Path(sys.argv[1]))
    except IcmError as error:
        sys.exit(f"icm_hpc: {error}")
    submission.submitit_main()


def submit(config: Config, run_dir: RunDir) -> core.Job[dict[str, Any]]:
    """Queue the run's job and return submitit's; raises ClusterError, with sbatch's words, if it is refused."""
    require_private(run_dir.submitit)
    return HetSlurmExecutor(config, run_dir).submit(DriverJob(str(run_dir.path)))


def result(job: core.Job[dict[str, Any]], run_dir: RunDir) -> dict[str, Any]:
    """Wait for the end of a job, and of those that go on with its run, and return the summary.

    Raises ClusterError, with the driver's words, if there is none.
    """
    require_private(run_dir.submitit)
    while True:
        try:
            summary: dict[str, Any] = job.result()
        except (utils.FailedJobError, utils.UncompletedJobError) as error:
            successor = scheduler.newest(run_dir.submitit)
            if successor in (None, job.job_id):
                raise ClusterError(f"job {job.job_id} ended without labels: {error}") from error
        else:
            successor = summary.get(CONTINUED_AS)
            if successor is None:
                return summary
        job = HetSlurmJob(run_dir.submitit, successor)


@dataclass(frozen=True)
class DriverJob:
    """What submitit pickles: the run's folder, in which everything else is found."""

    run_folder: str
    earlier: int = 0  # starts of the driver in jobs before this one, since a person last submitted or resumed the run

    def __call__(self) -> dict[str, Any]:
        """Drive the run inside the job; told to stop, save and go on as cluster.on_preempt says; else report and notify."""
        run_dir = RunDir(Path(self.run_folder))
        config = load_file(run_dir.config)
        log_to_files(run_dir)
        submitits = signal.getsignal(signal.SIGUSR2)  # it pickles this job again, requeues it, and exits
        received: list[int] = []
        attempt = scheduler.attempt()
        try:
            self._require_attempts_left(config, run_dir)
            test = heldout.step(config, run_dir)
            with progress.to_file(run_dir, attempt) as to_file:
                watch = progress.all_of(progress.to_log(), to_file)
                summary = drive(config, run_dir, attempt=attempt, watch=watch, received=received, then=test)
        except Interrupted:
            log.info("state saved after %s", signal.Signals(received[0]).name)
            return self._continued(config, run_dir, received, submitits)
        except Exception as error:
            _ignore_signals()  # the run has ended: it is not to be requeued while the user's command runs
            if isinstance(error, IcmError):
                log.error("%s", error)
            notify(config, run_dir, "failed")
            raise
        write_report(run_dir, IN_JOB_S)
        notify(config, run_dir, "finished")
        return summary

    def _continued(self, config: Config, run_dir: RunDir, received: list[int], submitits: Any) -> dict[str, Any]:
        """See to it that a run that was told to stop goes on as cluster.on_preempt says; returns in this job if in another."""
        then = config.cluster.on_preempt
        goes_on = then != "stop" and (signal.SIGUSR2 in received or _is_to_go_on())
        try:
            if then == "stop":
                log.info("stopped; go on with: %s", run_dir.resume_command)
                raise ClusterError(f"stopped, the state is saved; go on with: {run_dir.resume_command}") from None
            if then == "resubmit" and goes_on:
                return {CONTINUED_AS: self._resubmit(config, run_dir)}
            if then == "requeue" and goes_on and callable(submitits):
                submitits(signal.SIGUSR2, None)  # Slurm would, too, but maybe at the end of a long grace only
        except Exception:
            notify(config, run_dir, "stopped")
            raise
        if not goes_on:
            notify(config, run_dir, "stopped")
        time.sleep(ENDED_WITHIN_S)  # Slurm ends us: to return or to raise would leave a result
        raise ClusterError(f"told to stop, and not ended; go on with: {run_dir.resume_command}") from None

    def checkpoint(self) -> utils.DelayedSubmission:
        """Return what submitit is to run after a requeue: the same, which finds its saved state in the folder."""
        return utils.DelayedSubmission(self)

    @property
    def _starts(self) -> int:
        return self.earlier + scheduler.restarts() + 1

    def _require_attempts_left(self, config: Config, run_dir: RunDir) -> None:
        """Raise ClusterError if the run was started too often, or again and again without anything to show for it."""
        recent = attempts(run_dir)[-min(FRUITLESS_STARTS, self._starts - 1) :] if self._starts > 1 else []
        if len(recent) == FRUITLESS_STARTS and not any(scored_anything(attempt) for attempt in recent):
            raise ClusterError(
                f"{FRUITLESS_STARTS} starts in a row ended before anything was scored: is the job preempted too often, or"
                f" cluster.time_min={config.cluster.time_min} too short for the server to start? Go on with:"
                f" {run_dir.resume_command}"
            )
        if self._starts > config.cluster.max_attempts:
            raise ClusterError(
                f"the run was started cluster.max_attempts={config.cluster.max_attempts} times and has not ended; see in"
                f" {run_dir.driver_log} why, and go on with: {run_dir.resume_command}"
            )

    def _resubmit(self, config: Config, run_dir: RunDir) -> str:
        """Queue a job that goes on where this one stopped; return its id."""
        successor = DriverJob(self.run_folder, self._starts)

        def submitted() -> str:
            job = HetSlurmExecutor(config, run_dir).submit(successor)
            log.info("the run goes on as job %s", job.job_id)
            return str(job.job_id)

        return _until_done(submitted, f"no job was queued to go on with the run; go on with: {run_dir.resume_command}")


class HetSlurmJobEnvironment(slurm.SlurmJobEnvironment):  # type: ignore[misc]
    """The inside of a job, heterogeneous or not; submitit finds it by its entry point and SUBMITIT_EXECUTOR=hetslurm."""

    @property
    def raw_job_id(self) -> str:
        """The leader's id, which sbatch printed."""
        return _job_id()

    def _requeue(self, countdown: int) -> None:
        """Requeue the whole job, unless Slurm has done so already (a preemption without grace does both at once)."""

        def requeue() -> None:
            done = scheduler.requeue(self.raw_job_id)
            states = {component.state for component in scheduler.queued(self.raw_job_id)}
            if done.returncode and not states & {"COMPLETING", "PENDING", "PREEMPTED", "REQUEUED"}:
                raise ClusterError(done.stderr.strip())
            log.info("requeued job %s, %d time-outs left", self.raw_job_id, countdown)

        _until_done(
            requeue,
            f"job {self.raw_job_id} cannot be requeued; the state is saved. Where requeues are forbidden, use"
            " cluster.on_preempt=resubmit",
        )


class HetInfoWatcher(slurm.SlurmInfoWatcher):  # type: ignore[misc]
    """Reads sacct, which prints a heterogeneous job 12 as its components 12+0 and 12+1, and folds them on the leader.

    A job of one component stays as it is.
    """

    cluster: str | None = None  # where it is not the default one
    _asked_s = float("-inf")  # on the clock, when the queue was asked about a job that the accounting does not know

    def _make_command(self) -> list[str] | None:
        command: list[str] | None = super()._make_command()
        return command and [*command, *scheduler.on_cluster(self.cluster)]

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

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Return whether a job has ended: one that was preempted, or lost a node, has if it is not in the queue again.

        So has one that the accounting does not know, as where there is none.
        """
        state = self.get_state(job_id, mode=mode)
        if state not in ("UNKNOWN", *scheduler.PASSING):
            return state not in scheduler.LIVE
        if state == "UNKNOWN" and mode != "force":
            if time.monotonic() - self._asked_s < self._delay_s:
                return False
            self._asked_s = time.monotonic()
        try:
            return not any(component.state in scheduler.LIVE for component in scheduler.queued(job_id, self.cluster))
        except SchedulerError:  # asked again later
            return False

    def _folded(self, leader: str, rows: list[dict[str, str]]) -> dict[str, str]:
        states = [row["State"].split(" ")[0] for row in rows]  # "CANCELLED by 0"
        live = (*scheduler.LIVE, *scheduler.PASSING)
        rank = [s for s in states if s in live] + [s for s in states if s != "COMPLETED"] + states
        return {**rows[0], "JobID": leader, "State": rank[0], "NodeList": ",".join(row["NodeList"] for row in rows)}


class HetSlurmJob(slurm.SlurmJob[core.R]):  # type: ignore[misc]
    """A submitted job."""

    watcher = HetInfoWatcher(delay_s=10)


class HetSlurmExecutor(slurm.SlurmExecutor):  # type: ignore[misc]
    """Submits callables as the driver component of a job; the server component, if there is one, is in the template."""

    job_class = HetSlurmJob

    def __init__(self, config: Config, run_dir: RunDir) -> None:
        super().__init__(run_dir.submitit, max_num_timeout=config.cluster.max_attempts)
        self._config, self._run_dir = config, run_dir
        self.update_parameters(time=config.cluster.time_min)

    @classmethod
    def affinity(cls) -> int:
        """Return that this executor can be used: without submitit's search for srun, which a login node may lack."""
        return 2

    def _internal_process_submissions(self, delayed_submissions: list[utils.DelayedSubmission]) -> list[core.Job[Any]]:
        """Submit one job a callable: sbatch refuses arrays of heterogeneous jobs."""
        jobs: list[core.Job[Any]] = super(slurm.SlurmExecutor, self)._internal_process_submissions(delayed_submissions)
        return jobs

    def _submit_command(self, command: str) -> core.Job[Any]:  # noqa: ARG002
        """Submit as submitit does, but by way of jobs.submit, which cleans the environment and reads what wrappers print."""
        uid = uuid.uuid4().hex
        script = self.folder / f".submission_file_{uid}.sh"
        script.write_text(sbatch.text(self._config, self._run_dir))
        job_id, cluster = scheduler.submit(script, sbatch.job_name(self._run_dir))
        if cluster:
            scheduler.note_cluster(self.folder, job_id, cluster)
            HetSlurmJob.watcher.cluster = cluster
        job: core.Job[Any] = HetSlurmJob(self.folder, job_id)
        job.paths.move_temporary_file(script, "submission_file", keep_as_symlink=True)
        self._write_job_id(job.job_id, uid)
        self._set_job_permissions(job.paths.folder)
        return job


def _ignore_signals() -> None:
    """Ignore Slurm's signals, also in the commands that we start."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _until_done(do: Callable[[], R], failure: str) -> R:
    """Do something that Slurm may refuse for a while, as when its controller is away; raises ClusterError at last."""
    deadline = time.monotonic() + TRY_FOR_S
    while True:
        try:
            return do()
        except scheduler.UnknownJob:  # to try again could queue a second job
            raise
        except Exception as error:  # submitit raises what it likes
            if time.monotonic() > deadline:
                log.error("%s: %s", failure, error)
                raise ClusterError(f"{failure}: {error}") from error
        time.sleep(2)


def _is_to_go_on() -> bool:
    """Return whether our job goes on; while Slurm does not answer, ask again, and at last leave it to Slurm."""
    try:
        return _until_done(lambda: scheduler.is_to_go_on(_job_id()), "was this job cancelled? That is not known")
    except ClusterError:
        return False


def _job_id() -> str:
    """Return the id of the job that we are in, the leader's of a heterogeneous one."""
    return scheduler.own_id(os.environ)


if __name__ == "__main__":
    main()
