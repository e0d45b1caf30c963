"""What Slurm says of a run's jobs, and the one way to sbatch."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import credentials
from ..errors import ClusterError, SchedulerError

LIVE = ("RUNNING", "COMPLETING", "CONFIGURING", "PENDING", "SUSPENDED", "STOPPED")
PASSING = ("PREEMPTED", "REQUEUED", "NODE_FAIL")  # followed by another start, if the job is still in the queue
SBATCH_S = 120.0  # it also waits for a site's own filters of jobs
ANSWER_S = 45.0  # Slurm's commands give up on a controller that is away after 18 s (22.05)

# Settings of a site or a person, which Slurm does not set inside a job.
SITE = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_KEY", "SLURM_SACK_JWKS")
# What Slurm, its MPI plug-ins and submitit put into the environment of a job and of a step.
INSIDE: tuple[str, ...] = (
    *("SLURM_", "SLURMD_", "_SLURM_", "SRUN_", "SBATCH_", "SPANK_", "SUBMITIT_"),
    *("PMI_", "PMI2_", "PMIX_", "PALS_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_", "PRTE_", "PRRTE_", "HYDRA_"),
)
GPUS = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
# Variables that answer for a flag which the script leaves out; sbatch lets a variable override the script.
SBATCH_VARIABLES = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_ACCTG_FREQ": "acctg-freq",
    "SBATCH_CLUSTERS": "clusters",
    "SBATCH_COMMENT": "comment",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_DEBUG": "verbose",
    "SBATCH_EXPORT": "export",
    "SBATCH_GET_USER_ENV": "get-user-env",
    "SBATCH_NETWORK": "network",
    "SBATCH_PARTITION": "partition",
    "SBATCH_PROFILE": "profile",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_WCKEY": "wckey",
}


class UnknownJob(ClusterError):  # noqa: N818
    """A job may have been queued, and its id is not known: to submit again could queue a second one."""


SUBMITTED = re.compile(r"([0-9]+)_submitted\.pkl(\.save_tmp)?")


@dataclass(frozen=True, slots=True)
class Component:
    """A component of a heterogeneous job."""

    state: str
    reason: str  # why it waits, as Slurm says; or the nodes that it has
    exit: str = ""  # CODE:SIGNAL of its steps, the highest, or else of its script; as the accounting has it


def newest(folder: Path) -> str | None:
    """Return the id of the last job that submitit submitted from `folder`, or None.

    A job that is requeued writes its file again: submitit removes it, then renames the new one. So both names count, and
    where there is neither, a second look decides.
    """
    for _ in range(2):
        found = [match for path in folder.glob("*_submitted.pkl*") if (match := SUBMITTED.fullmatch(path.name))]
        if found:
            return str(max(int(match[1]) for match in found))
    return None


def cluster_of(folder: Path, job: str) -> str | None:
    """Return the cluster to which a job of `folder` went, or None if sbatch named none: the default one."""
    file = folder / f"{job}_cluster.txt"
    return file.read_text().strip() or None if file.exists() else None


def note_cluster(folder: Path, job: str, cluster: str) -> None:
    """Record to which cluster a job went."""
    (folder / f"{job}_cluster.txt").write_text(f"{cluster}\n")


def on_cluster(cluster: str | None) -> list[str]:
    """Return the flag that asks Slurm's commands about another cluster than the default one."""
    return [f"--clusters={cluster}"] if cluster else []


def queued(job: str, cluster: str | None = None) -> list[Component]:
    """Return the components of a job that is in the queue, none if it has left it.

    Raises SchedulerError if Slurm does not answer: whether the job is in the queue is then not known.
    """
    return all_queued([job], cluster).get(job, [])


def all_queued(jobs: Sequence[str], cluster: str | None = None) -> dict[str, list[Component]]:
    """Return the components of those jobs that are in the queue, by job; raises SchedulerError if Slurm does not answer."""
    try:
        printed = ask("squeue", "--noheader", "--format=%i|%T|%R", f"--jobs={','.join(jobs)}", *on_cluster(cluster))
    except SchedulerError as error:
        if (
            "Invalid job id" in str(error) and len(jobs) == 1
        ):  # it left so long ago that the controller has forgotten it
            return {}
        raise
    found: dict[str, list[Component]] = {}
    for id_, state, reason in sorted(line.split("|", 2) for line in printed.splitlines() if line.count("|") >= 2):
        found.setdefault(id_.partition("+")[0], []).append(Component(state, reason))
    return found


def accounted(job: str, cluster: str | None = None) -> list[Component]:
    """Return the components of a job as the accounting has them, none if it does not know the job or does not answer."""
    return all_accounted([job], cluster).get(job, [])


def all_accounted(jobs: Sequence[str], cluster: str | None = None) -> dict[str, list[Component]]:
    """Return the same of several jobs, by job."""
    fields = "JobID,State,NodeList,ExitCode,DerivedExitCode"
    flags = ("--allocations", "--noheader", "--parsable2", f"--format={fields}", f"--jobs={','.join(jobs)}")
    try:
        printed = ask("sacct", *flags, *on_cluster(cluster))
    except SchedulerError:
        return {}
    found: dict[str, list[Component]] = {}
    for id_, state, nodes, script, steps in (
        row.split("|") for row in printed.splitlines() if row.count("|") == fields.count(",")
    ):
        if state.strip():
            exit_code = steps if steps not in ("", "0:0") else script
            found.setdefault(id_.partition("+")[0], []).append(Component(state.split()[0], nodes, exit_code))
    return found


def is_to_go_on(job: str) -> bool:
    """Return whether a job that is being ended by SIGTERM was not cancelled by a person: preempted, at its time limit, or
    on a node that failed.

    Raises SchedulerError if Slurm does not answer.
    """
    shown = ask("scontrol", "show", "job", job)
    states = set(re.findall(r"JobState=(\w+)", shown))
    preempted = any(when != "None" for when in re.findall(r"PreemptTime=(\S+)", shown))
    return preempted or bool(states & {"PREEMPTED", "NODE_FAIL", "TIMEOUT"})


def own_id(environment: Mapping[str, str]) -> str:
    """Return the id of the job that this environment is of; of a heterogeneous job the leader's.

    The components that a job names count only if it is one of them: a job that was submitted from inside a heterogeneous
    one may have inherited that one's.
    """
    own = environment["SLURM_JOB_ID"]
    named = {value for name, value in environment.items() if re.fullmatch(r"SLURM_JOB_ID_HET_GROUP_\d+", name)}
    return environment.get("SLURM_JOB_ID_HET_GROUP_0", own) if own in named else own


def job_id() -> str | None:
    """Return the id of the job that this process is in, or None outside of any."""
    return os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """Return how often the job that this process is in was requeued."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def attempt() -> str:
    """Return a name of this start of the job, equal in all of its components and different after a requeue."""
    return f"{os.environ['SLURM_JOB_ID']}.{restarts()}"


def rank() -> int:
    """Return which task of its step this process is, from 0."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def tasks_started() -> int | None:
    """Return how many tasks the step of this process has, or None if Slurm does not say."""
    found = os.environ.get("SLURM_STEP_NUM_TASKS")
    return None if found is None else int(found)


def node_name() -> str | None:
    """Return Slurm's name of this node, or None outside of a job."""
    return os.environ.get("SLURMD_NODENAME")


def is_heterogeneous() -> bool:
    """Return whether the job that this process is in has several components."""
    return "SLURM_JOB_ID_HET_GROUP_1" in os.environ


def ask(*argv: str) -> str:
    """Return what one of Slurm's commands prints; raises SchedulerError, with its words, if it does not answer."""
    name = argv[0]
    try:
        done = run(*argv)
    except FileNotFoundError as error:
        raise SchedulerError(f"{name} is not on the PATH", is_missing=True) from error
    except OSError as error:
        raise SchedulerError(f"{name} cannot be run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{name} does not answer within {ANSWER_S:g} s") from error
    if done.returncode:
        words = " ".join((done.stderr.strip() or done.stdout.strip()).split()) or f"exit code {done.returncode}"
        raise SchedulerError(f"{name}: {words}")
    return done.stdout


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that outlives the SIGTERM which Slurm sends to every process of a step."""
    filters = ("SQUEUE_", "SACCT_")  # a person's own, such as SQUEUE_STATES, which would hide our job
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=ANSWER_S,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith(filters)},
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    )


def requeue(job: str) -> "subprocess.CompletedProcess[str]":
    """Ask for a new start of a job; of a heterogeneous one, given by its leader, of all components."""
    return run("scontrol", "requeue", job)


def sbatch(script: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Run sbatch as from outside of any job, without keys: all that is queued, or tested, goes this way.

    Raises ClusterError where there is no sbatch, and UnknownJob where it does not answer.
    """
    environment = outside_environment(os.environ, script.read_text())
    try:
        return subprocess.run(
            ["sbatch", *flags, str(script)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SBATCH_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        if "--test-only" in flags:
            raise ClusterError(f"sbatch --test-only does not answer within {SBATCH_S:g} s: try again later") from error
        raise UnknownJob(
            f"sbatch does not answer within {SBATCH_S:g} s: a job may have been queued; look for it with `squeue --me`, and"
            " scancel it before you submit again"
        ) from error
    except OSError as error:
        why = "is not on the PATH" if isinstance(error, FileNotFoundError) else f"cannot be run: {error}"
        raise ClusterError(f"sbatch {why}: submit from a login node, or use cluster=local") from error


def submit(script: Path, name: str) -> tuple[str, str | None]:
    """Queue a script whose job is called `name`; return the job's id, and its cluster if sbatch names one.

    Raises ClusterError if sbatch refuses it, and UnknownJob if no id is found in what it prints.
    """
    done = sbatch(script)
    job, cluster = next(filter(None, map(id_of, (done.stdout, done.stderr))), (None, None))
    printed = "\n".join(filter(None, (done.stdout.strip(), done.stderr.strip())))
    if done.returncode and job is None:
        raise ClusterError(f"sbatch refused the job (exit code {done.returncode}): {printed or 'it printed nothing'}")
    if done.returncode or job is None:
        raise UnknownJob(
            f"sbatch ended with exit code {done.returncode} and printed {printed!r}: a job may have been queued; look for"
            f" it with `squeue --me --name={name}`, and scancel it before you submit again"
        )
    return job, cluster


def id_of(printed: str) -> tuple[str, str | None] | None:
    """Return the id of the job that sbatch, or a site's wrapper of it, says it has queued, and the cluster that it names;
    None if it says no such thing.

    The last line that is sbatch's own counts, else its last words in another line, else the only line that is an id alone,
    as --parsable prints it.
    """
    lines = [line.strip() for line in printed.splitlines()]
    own = r"(?:sbatch: )?Submitted batch job (\d+)(?: on cluster (\S+?))?\.?"
    found = [match.groups() for line in lines if (match := re.fullmatch(own, line))]
    found = found or re.findall(r"Submitted batch job (\d+)\b(?: on cluster (\S+))?", printed)
    if not found:
        found = [match.groups() for line in lines if (match := re.fullmatch(r"(\d+)(?:;(\S+))?", line))]
        if len(found) != 1:
            return None
    job, cluster = found[-1]
    return job, cluster or None


def outside_environment(given: Mapping[str, str] | None = None, script: str = "") -> dict[str, str]:
    """Return an environment, by default ours, without keys and without what Slurm and submitit put there for its job.

    Of sbatch's own variables those stay that say whose a job is and where it runs, unless `script` says it.
    """
    environment = os.environ if given is None else given
    inside = any(name.startswith(("SLURM_JOB_", "SLURM_JOBID", "SLURM_STEP")) for name in environment)

    def is_kept(name: str, value: str) -> bool:
        if name in SBATCH_VARIABLES:
            return re.search(rf"^#SBATCH\s.*--{SBATCH_VARIABLES[name]}\b", script, re.MULTILINE) is None
        if name.startswith("SBATCH_"):
            return False
        if name in SITE or not inside:
            return True
        return not (name.startswith(INSIDE) or name in GPUS or (name, value) == ("ENVIRONMENT", "BATCH"))

    ours = credentials.without_keys(environment)
    return {name: value for name, value in ours.items() if is_kept(name, value)}
