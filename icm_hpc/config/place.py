"""The settings of where a run runs: its server, the cluster, its folder. Comments are meanings, as in schema.py."""

import re
from dataclasses import dataclass, field

from .addresses import require_url
from .ranges import require, require_at_least, require_file_names, require_one_of

MAX_NAME = 200  # letters: names of files end at 255 bytes, and temporary ones are longer
# Texts of the batch script's directives.
ONE_LINE = (
    "account", "qos", "reservation", "gpu_type", "driver_partition", "server_partition", "driver_constraint",
    "server_constraint",
)  # fmt: skip


def nodes_for(gpus: int, replicas: int, node_gpus: int) -> int:
    """Return the fewest nodes of so many GPUs over which vLLM can spread so many GPUs of so many replicas."""
    least = -(-gpus // node_gpus)
    return next(n for n in range(least, gpus + 1) if gpus % n == 0 and (replicas % n == 0 or n % replicas == 0))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The server component: its resources, and how long the driver waits for it; or a server that already runs."""

    url: str | None = None  # address of a server that already runs, http://HOST:PORT; then no server is started
    nodes: int | None = None  # nodes of the server; default: as many as its GPUs fill
    replicas: int = 1  # copies of the model, each with its own GPUs and prefix cache: vLLM's data parallelism
    gpus_per_node: int | None = None  # default: from the parallel sizes and replicas; 0: serve on CPUs
    cpus: int | None = None  # CPUs per node; default: the whole node
    mem_gb: int | None = 0  # memory per node; 0: all of it; null: no --mem, the site's default
    # Limit from the start of the server to the first scored prompt. Also the total time that a request waits for a rate limit.
    start_timeout_s: float = 1800.0
    request_timeout_s: float = 600.0  # a server that needs longer for one request counts as hung, and is restarted
    max_restarts: int = 3  # restarts of the engine in one start of the job, once it has served
    request_mb: float = 4.0  # prompts are sent together, in requests of about this size
    requests_in_flight: int = 16  # requests that are sent at the same time, at most
    requests_per_min: float | None = None  # engine=openai only: the rate that the account allows; default: no limit
    tokens_per_min: float | None = None  # engine=openai only: prompt tokens that the account allows; default: no limit

    def __post_init__(self) -> None:
        require_at_least(self, 1, "nodes", "replicas", "cpus", "requests_in_flight")
        require_at_least(self, 0, "gpus_per_node", "mem_gb", "max_restarts")
        if self.url:
            require_url(self.url)
        for key in ("start_timeout_s", "request_timeout_s", "request_mb", "requests_per_min", "tokens_per_min"):
            value = getattr(self, key)
            require(value is None or value > 0, f"{key}={value}: over 0")


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Where the run's two components run; a preset of configs/cluster/ that a site owns."""

    name: str = "auto"  # set by the preset
    executor: str = "auto"  # local; slurm; auto: Slurm if sbatch is on the PATH and the run needs GPUs, else local
    driver_partition: str | None = None  # --partition of the driver; default: the site's
    server_partition: str | None = None  # --partition of the server; default: the site's
    job: str = "het"  # het: driver and server as components of one heterogeneous job; single: as steps of a plain job
    account: str | None = None  # --account
    qos: str | None = None  # --qos
    reservation: str | None = None  # --reservation
    driver_constraint: str | None = None  # --constraint of the driver: node features
    server_constraint: str | None = None  # --constraint of the server: node features
    # Time limit in minutes; or as Slurm's --time: MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS, rounded up to minutes.
    time_min: int = field(default=1440, metadata={"is_time": True})
    driver_cpus: int = 2  # CPUs of the driver
    driver_mem_gb: int | None = 8  # memory of the driver; 0: all of its node; null: no --mem, the site's default
    signal_s: int = 120  # the driver gets its signal this long before the time limit
    # After a preemption or at the time limit. requeue: continue in the same job; resubmit: in a new job, for sites that
    # forbid requeues; stop: end, until you run resume.
    on_preempt: str = "requeue"
    max_attempts: int = 100  # starts of the driver by requeue or resubmission, until you run resume
    gpu: str | None = None  # GPU type of the server's nodes, for plans: A100-40, A100-80, H100, H200
    node_gpus: int = 8  # GPUs of each of these nodes
    max_nodes: int | None = None  # nodes that one server may take
    gpu_hour_price: float | None = None  # price of a GPU-hour, in your currency, for plans
    gpu_flag: str = "gres"  # gres: --gres=gpu:N; gpus: --gpus-per-node=N; none: no GPU flag
    gpu_type: str | None = None  # as Slurm names it: --gres=gpu:TYPE:N
    driver_flags: list[str] = field(default_factory=list)  # more sbatch flags of the driver, such as [--nice=100]
    server_flags: list[str] = field(default_factory=list)  # more sbatch flags of the server
    setup: list[str] = field(default_factory=list)  # shell lines before the components start, such as module load cuda
    server_srun_flags: list[str] = field(default_factory=list)  # of the server's step: [--container-image=FILE] (Pyxis)
    server_launcher: list[str] = field(default_factory=list)  # before its command: [apptainer, exec, --nv, FILE.sif]
    server_python: str | None = None  # default: the Python that submits; in a container, the container's Python

    def __post_init__(self) -> None:
        require_one_of(
            self,
            executor=("auto", "local", "slurm"),
            job=("het", "single"),
            on_preempt=("requeue", "resubmit", "stop"),
            gpu_flag=("gres", "gpus", "none"),
        )
        require_at_least(self, 1, "time_min", "driver_cpus", "signal_s", "max_attempts")
        require_at_least(self, 0, "driver_mem_gb")
        require_at_least(self, 1, "node_gpus", "max_nodes")
        require_at_least(self, 0, "gpu_hour_price")
        require(
            self.time_min * 60 > 2 * self.signal_s,
            f"time_min={self.time_min}: more than twice signal_s={self.signal_s}, which is kept for the end",
        )
        for key in ONE_LINE:
            value = getattr(self, key)
            require(
                value is None or value.isprintable(), f"{key}={value!r}: has a line break or another control character"
            )
        flags = (*self.driver_flags, *self.server_flags, *self.server_srun_flags)
        require(all(re.fullmatch(r"--\S+", flag) for flag in flags), "driver_flags, server_*flags: each --name=value")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The run's folder and how often it is saved."""

    name: str = ""  # of the run's folder; default: made from task, model and time
    root: str = "runs"  # folder of all runs; on Slurm, on a file system that all nodes see
    save_interval_s: float = 30.0  # seconds between saves of the state: the most work that a fault can cost
    # A command that is run when the run has ended and does not go on by itself, with the run's folder as its last argument
    # and finished, failed or stopped as $ICM_OUTCOME: [mail-me, --short]. 20 s at most; no shell reads it.
    notify_command: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require_file_names(self, "root")
        legal = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*|", self.name)
        require(legal is not None, f"name={self.name}: letters, digits, '.', '_', '-', no leading sign")
        length = len(self.name)
        require(length <= MAX_NAME, f"name={self.name[:20]}...: has {length} letters; {MAX_NAME} or fewer")
        require_at_least(self, 0, "save_interval_s")
        require(self.notify_command[:1] != [""], "notify_command: the first word is empty: [COMMAND, ARGUMENT, ...]")
