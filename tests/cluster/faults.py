"""Whatever kills runs: what is done to one in mid-search, and how its jobs must then end; `matrix.py` does it."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from icm_hpc import scheduler
from icm_hpc.config import loading
from icm_hpc.jobs import submission
from icm_hpc.rundir import checkpoint
from tests.cluster import daemons
from tests.cluster.daemons import Cluster
from tests.cluster.processes import children, kill
from tests.cluster.runs import Run, command, components, icm, logs, until

Site = Callable[[Cluster], "contextlib.AbstractContextManager[None]"]


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run in mid-search."""

    what: str  # for the table
    inflict: Callable[[Cluster, Run], object]
    ends: str | None = None  # the state in which the first job ends, if the run does not go on by itself
    says: str = ""  # what the run's driver log must then tell
    settings: tuple[str, ...] = ()
    site: Site = lambda _: contextlib.nullcontext()
    on_disk_of_mib: int | None = None  # the run's folder is on a file system of its own
    at_start: bool = False  # it happens to the server before it serves
    before_resume: Callable[[Run], object] = lambda _: None
    resume_with: tuple[str, ...] = ()


def preempt(_slurm: Cluster, _run: Run) -> None:
    """Send a job of higher priority that requires all GPU nodes."""
    command("sbatch", "--partition=gpu-high", "--nodes=2", "--gres=gpu:8", "--output=/dev/null", "--wrap=sleep 3")


def _preempted_with(*, grace_s: int = 0, warned: bool = True, mode: str = "REQUEUE") -> Site:
    @contextmanager
    def site(slurm: Cluster) -> Iterator[None]:
        daemons.send_user_signals(slurm, wanted=warned)
        for partition in ("gpu", "cpu"):
            command("scontrol", "update", f"partition={partition}", f"GraceTime={grace_s}", f"PreemptMode={mode}")
        try:
            yield
        finally:
            daemons.send_user_signals(slurm, wanted=True)
            for partition in ("gpu", "cpu"):
                command("scontrol", "update", f"partition={partition}", "GraceTime=0", "PreemptMode=REQUEUE")

    return site


def _node_of(component: int) -> Callable[[Cluster, Run], None]:
    """Return what lets the node of a component die, and come back once the job has been started elsewhere."""

    def inflict(slurm: Cluster, run: Run) -> None:
        node = components(run.job)[component]["NodeList"]
        starts = len(run.attempts)
        daemons.stop_node(slurm, node)
        try:
            until(lambda: len(run.attempts) > starts, f"a start without {node}")
        finally:
            daemons.start_node(slurm, node)

    return inflict


def _leave_no_node_for_the_driver(slurm: Cluster, run: Run) -> None:
    """Let the driver's node die while the other one takes no jobs, until Slurm has the GPU nodes back."""
    node, job = components(run.job)[0]["NodeList"], run.job
    other = next(name for name in ("cpu1", "cpu2") if name != node)
    command("scontrol", "update", f"nodename={other}", "state=drain", "reason=test")
    daemons.stop_node(slurm, node)
    try:
        until(lambda: {one.state for one in scheduler.queued(job)} == {"PENDING"}, "GPU nodes that are free", 180)
    finally:
        command("scontrol", "update", f"nodename={other}", "state=resume")
        daemons.start_node(slurm, node)


def _reach_time_limit(_slurm: Cluster, run: Run) -> None:
    """Shorten the time limit to less than cluster.signal_s from now; Slurm looks at it every half a minute or so.

    So that the search does not end meanwhile, the engine is held up.
    """
    starts, engine = len(run.attempts), run.engine()
    kill(engine, *children(engine), number=signal.SIGSTOP)
    elapsed = command("squeue", "--noheader", "--format=%M", f"--jobs={run.job}").split()[0]
    first = run.job
    _limit_time(first, int(elapsed.split(":")[-2]) + 2)
    until(lambda: len(run.attempts) > starts, "a start after the time limit")
    if run.job == first:
        _limit_time(first, 60)


def _limit_time(job: str, minutes: int) -> None:
    for component in ("+0", "+1"):
        command("scontrol", "update", f"jobid={job}{component}", f"TimeLimit={minutes}")


def _spoil_newest(run: Run) -> None:
    """Flip a bit of the newest generation."""
    newest = checkpoint.generations(run.dir.shard(0))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)


def _fill_disk(_slurm: Cluster, run: Run) -> None:
    with (run.root / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


def _immutable(sign: str) -> Callable[[Run], object]:
    """Return what makes the folder of the search unwritable even for root (+i), or writable again (-i)."""
    return lambda run: command("chattr", sign, str(run.dir.shard(0)))


def _second_driver(_slurm: Cluster, run: Run) -> None:
    """Queue another job of the same run, past the check of `submit`; it must be refused, and not disturb the first.

    So that the search does not end before the second job starts, the engine is held up.
    """
    engine = run.engine()
    held = (engine, *children(engine))
    kill(*held, number=signal.SIGSTOP)
    refused = icm("resume", f"run={run.name}", f"run.root={run.root}")
    assert "is in the queue (RUNNING, RUNNING)" in refused.stderr, refused.stderr
    config = loading.load_file(run.dir.config)
    first = run.job
    second = submission.submit(config, run.dir)
    until(lambda: "is in use: attempt" in logs(run.dir.path), "a refusal")
    kill(*held, number=signal.SIGCONT)
    until(lambda: not command("squeue", "--noheader", f"--jobs={second.job_id}", "--states=R,PD,CG").strip(), "its end")
    for path in run.dir.submitit.glob(f"{second.job_id}_submitted.pkl"):
        path.unlink()
    assert run.job == first


FAULTS: dict[str, Fault] = {
    "preempted": Fault("preempted; GraceTime 0, user signal sent", preempt),
    "preempted-unwarned": Fault(
        "preempted; GraceTime 0, no user signal: SIGTERM, and SIGKILL after 10 s",
        preempt,
        site=_preempted_with(warned=False),
    ),
    "preempted-with-grace": Fault(
        "preempted; GraceTime 20 s, user signal sent", preempt, site=_preempted_with(grace_s=20)
    ),
    "preempted-with-grace-unwarned": Fault(
        "preempted; GraceTime 20 s, no user signal", preempt, site=_preempted_with(grace_s=20, warned=False)
    ),
    "preempted-with-long-grace-unwarned": Fault(
        "preempted; GraceTime 120 s, no user signal", preempt, site=_preempted_with(grace_s=120, warned=False)
    ),
    "time-limit": Fault("time limit reached", _reach_time_limit),
    "gpu-node-dies": Fault("the server's node dies", _node_of(1)),
    "cpu-node-dies": Fault("the driver's node dies, which is the batch host", _node_of(0)),
    "no-cpu-node-left": Fault(
        "the driver's node dies and no other is free: the server's nodes are given back within two minutes",
        _leave_no_node_for_the_driver,
    ),
    "requeued-by-admin": Fault(
        "`scontrol requeue` by an admin", lambda _, run: command("scontrol", "requeue", run.job) and None
    ),
    "cancelled": Fault(
        "`scancel`; resumed by hand on another partition with other GPUs",
        lambda _, run: command("scancel", run.job),
        ends="CANCELLED",
        resume_with=("cluster.server_partition=gpu-high", "server.gpus_per_node=4"),
    ),
    "driver-killed": Fault("kill -9 of the driver", lambda _, run: kill(run.driver()), ends="FAILED"),
    "engine-killed": Fault("kill -9 of vLLM's API server", lambda _, run: kill(run.engine())),
    "engine-core-killed": Fault("kill -9 of vLLM's engine core", lambda _, run: kill(run.engine_core())),
    "engine-hangs": Fault(
        "SIGSTOP of vLLM's engine core: /health answers 200, requests hang",
        lambda _, run: kill(run.engine_core(), number=signal.SIGSTOP),
        settings=("server.request_timeout_s=20",),
    ),
    "rank-killed": Fault(
        "kill -9 of vLLM's rank on the second of two nodes, tensor parallel",
        lambda _, run: kill(*children(run.component(rank=1))),
        settings=("server.nodes=2", "model.tensor_parallel_size=2"),
    ),
    "component-killed": Fault(
        "kill -9 of the server component",
        lambda _, run: kill(run.component()),
        ends="FAILED",
        says="it was killed before it could say why",
    ),
    "both-killed": Fault(
        "kill -9 of driver and server component at one time",
        lambda _, run: kill(run.driver(), run.component()),
        ends="FAILED",
    ),
    "preempted-resubmits": Fault(
        "preempted where requeue is forbidden (PreemptMode=CANCEL); on_preempt=resubmit",
        preempt,
        settings=("cluster.on_preempt=resubmit",),
        site=_preempted_with(mode="CANCEL"),
    ),
    "time-limit-resubmits": Fault(
        "time limit reached; on_preempt=resubmit", _reach_time_limit, settings=("cluster.on_preempt=resubmit",)
    ),
    "cancelled-stays-cancelled": Fault(
        "`scancel`; on_preempt=resubmit",
        lambda _, run: command("scancel", run.job),
        ends="CANCELLED",
        settings=("cluster.on_preempt=resubmit",),
    ),
    "preempted-stops": Fault(
        "preempted; on_preempt=stop",
        preempt,
        settings=("cluster.on_preempt=stop",),
        ends="PREEMPTED",
        says="stopped; go on with: python -m icm_hpc.resume",
    ),
    "newest-state-spoilt": Fault(
        "`scancel`, then a bit of the newest generation flips",
        lambda _, run: command("scancel", run.job),
        ends="CANCELLED",
        before_resume=_spoil_newest,
    ),
    "disk-full": Fault(
        "the disk is full; freed before it is resumed",
        _fill_disk,
        ends="FAILED",
        says="No space left on device",
        on_disk_of_mib=64,
        before_resume=lambda run: (run.root / "filler").unlink(),
    ),
    "folder-unwritable": Fault(
        "the folder of the search can no longer be written to; repaired before it is resumed",
        lambda _, run: _immutable("+i")(run),
        ends="FAILED",
        says="the state cannot be saved",
        before_resume=_immutable("-i"),
    ),
    "out-of-memory": Fault(
        "vLLM is to take more memory than there is; resumed with less",
        lambda _slurm, _run: None,
        ends="FAILED",
        says="less memory is free than it is to take: lower model.gpu_memory_utilization",
        settings=("model.env.VLLM_CPU_KVCACHE_SPACE=4000",),
        at_start=True,
        resume_with=("model.env.VLLM_CPU_KVCACHE_SPACE=1",),
    ),
    "attempts-used-up": Fault(
        "preempted; cluster.max_attempts=1",
        preempt,
        ends="FAILED",
        says="was started cluster.max_attempts=1 times and has not ended",
        settings=("cluster.max_attempts=1",),
        resume_with=("cluster.max_attempts=2",),
    ),
    "second-driver": Fault("a second job of the same run starts", _second_driver),
    "controller-restarts": Fault(
        "slurmctld is killed, and back 10 s later", lambda slurm, _: daemons.restart_controller(slurm, 10)
    ),
}
