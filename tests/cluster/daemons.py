"""Real Slurm daemons on one machine, for tests: `python3 -m tests.cluster.daemons up | down | status`.

munged, mariadbd, slurmdbd, slurmctld, and four slurmd: gpu1 and gpu2 with eight fake GPUs each, cpu1 and cpu2. Needs root.
Standard library only, so that it runs before anything is installed.
"""

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import processes

FOLDER = Path("/tmp/icm-hpc-slurm")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "mariadb-server")
DAEMONS = ("mariadbd", "slurmdbd", "slurmctld", "slurmd")
NODES = ("gpu1", "gpu2", "cpu1", "cpu2")
GPUS = 8
START_S = 90.0
SBIN = "/usr/sbin:/sbin"


class ClusterUnavailable(Exception):  # noqa: N818
    """This machine cannot run the daemons; says why and what would help."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up."""

    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What Slurm's commands need in their environment."""
        return {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}


def up(folder: Path = FOLDER) -> Cluster:
    """Start the cluster, or return the one that is up; raises ClusterUnavailable."""
    cluster = Cluster(folder)
    if is_up(folder):
        return cluster
    _require_root_and_packages()
    down(folder)
    _require_no_other_slurm()
    for name in ("etc", "log", "state", "run", "mysql", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    _write_configuration(folder)
    _start_munge()
    _start_database(folder)
    _spawn(folder, "slurmdbd", "slurmdbd", "-D")
    _until(lambda: _accounting_answers(cluster), folder, "slurmdbd")
    _spawn(folder, "slurmctld", "slurmctld", "-D")
    for node in NODES:
        start_node(cluster, node)
    _spawn(folder, "kicker", "bash", "-c", KICKER)
    _until(lambda: is_up(folder), folder, "slurmctld")
    return cluster


def down(folder: Path = FOLDER) -> None:
    """End what `up` started, jobs included, and remove the folder."""
    for node in NODES:
        _kill_node(folder, node)
    for pid_file in sorted((folder / "run").glob("*.pid")) if folder.exists() else []:
        processes.kill_tree(int(pid_file.read_text()))
    ours = b"SLURM_CONF=" + str(folder).encode()
    deadline = time.monotonic() + 10
    while left := [  # what an earlier folder of this name has left behind, and what takes its time to die
        pid
        for pid in processes.pids()
        if processes.read(pid, "comm").strip().decode() in DAEMONS and ours in processes.read(pid, "environ")
    ]:
        for pid in left:
            processes.kill_tree(pid)
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def is_up(folder: Path = FOLDER) -> bool:
    """Return whether all four nodes can take jobs."""
    if not (folder / "etc" / "slurm.conf").exists():
        return False
    states = _slurm(Cluster(folder), "sinfo", "--noheader", "--Node", "--format=%N %t").stdout
    usable = {line.split()[0] for line in states.splitlines() if line.split()[1] in ("idle", "mix", "alloc", "comp")}
    return usable == set(NODES)


def start_node(cluster: Cluster, node: str) -> None:
    """Start a node's slurmd and let it take jobs."""
    _spawn(cluster.folder, f"slurmd.{node}", "slurmd", "-D", "-N", node)
    _slurm(cluster, "scontrol", "update", f"nodename={node}", "state=resume")


def send_user_signals(cluster: Cluster, *, wanted: bool) -> None:
    """Say whether a preempted job is sent the signal of its --signal first; partitions are then as they were at the start."""
    path = cluster.folder / "etc" / "slurm.conf"
    lines = [line for line in path.read_text().splitlines() if line.lstrip("#") != USER_SIGNALS]
    new = path.with_suffix(".new")  # a daemon may be reading the file, for the reconfiguration before this one
    new.write_text("\n".join([*lines, USER_SIGNALS if wanted else f"#{USER_SIGNALS}", ""]))
    new.replace(path)
    _slurm(cluster, "scontrol", "reconfigure")


def restart_controller(cluster: Cluster, away_s: float) -> None:
    """Kill slurmctld, and start it again after a while."""
    processes.kill_tree(int((cluster.folder / "run" / "slurmctld.pid").read_text()))
    time.sleep(away_s)
    _spawn(cluster.folder, "slurmctld", "slurmctld", "-D")
    _until(lambda: bool(_slurm(cluster, "sinfo", "--noheader").stdout), cluster.folder, "slurmctld")


def stop_node(cluster: Cluster, node: str) -> None:
    """Let a node die: its slurmd, its steps and their processes at once; the controller is told that it is down."""
    _kill_node(cluster.folder, node)
    _slurm(cluster, "scontrol", "update", f"nodename={node}", "state=down", "reason=test")


# Heterogeneous jobs are started by the backfill scheduler only, which sleeps while nothing changes: not even the start
# time of a requeued job coming wakes it, for minutes. An update of a partition does.
KICKER = "while sleep 1; do scontrol update partitionname=cpu State=UP; done"

USER_SIGNALS = "SlurmctldParameters=preempt_send_user_signal"
SLURM_CONF = """\
ClusterName=icmtest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# The shortest that works: a requeued job waits for it (121 s by default).
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile={folder}/run/slurmctld.own
SlurmdPidFile={folder}/run/slurmd.%n.own
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
InactiveLimit=0
KillWait=10
MinJobAge=300
SlurmctldTimeout=120
SlurmdTimeout=300
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,bf_resolution=1,sched_interval=1,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
EnforcePartLimits=ALL
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/none
NodeName=gpu[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=2 RealMemory={memory_mb} Gres=gpu:{gpus}
NodeName=cpu[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17003-17004] CPUs=2 RealMemory={memory_mb}
PartitionName=gpu Nodes=gpu[1-2] Default=NO MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=gpu-high Nodes=gpu[1-2] Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=cpu Nodes=cpu[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1
SlurmctldParameters=preempt_send_user_signal
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost=localhost
SlurmUser=root
PidFile={folder}/run/slurmdbd.own
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""

MY_CNF = """\
[mysqld]
datadir={folder}/mysql
socket=/run/mysqld/mysqld.sock
pid-file={folder}/run/mariadb.own
log-error={folder}/log/mariadb.log
skip-networking
skip-log-bin
performance_schema=OFF
innodb_buffer_pool_size=128M
innodb_log_file_size=64M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=0
max_connections=50
"""


def _require_root_and_packages() -> None:
    if os.geteuid() != 0:
        raise ClusterUnavailable("the daemons need root: sudo make cluster-up")
    missing = [name for name in ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch") if not _which(name)]
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    if not shutil.which("apt-get"):
        raise ClusterUnavailable(
            f"{', '.join(missing)} are missing, and there is no apt-get to install {' '.join(PACKAGES)}"
        )
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "update"], install):
        done = subprocess.run(argv, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterUnavailable(f"`{' '.join(argv)}` failed: {done.stderr.strip()[-500:]}")


def _require_no_other_slurm() -> None:
    if any(
        processes.read(pid, "comm") == b"slurmctld\n" and processes.read(pid, "cmdline") for pid in processes.pids()
    ):  # the dead have none
        raise ClusterUnavailable("another slurmctld runs on this machine: the tests would disturb it")


def _write_configuration(folder: Path) -> None:
    memory_kb = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    values = {
        "folder": folder,
        "host": socket.gethostname().split(".")[0],
        "memory_mb": min(20000, memory_kb * 8 // 10 // 1024),
        "gpus": GPUS,
    }
    etc = folder / "etc"
    (etc / "slurm.conf").write_text(SLURM_CONF.format(**values))
    (etc / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))
    (etc / "slurmdbd.conf").chmod(0o600)
    (etc / "my.cnf").write_text(MY_CNF.format(**values))
    devices = folder / "gpu"
    devices.mkdir()
    for number in range(GPUS):  # character devices that do nothing stand in for GPUs
        os.mknod(devices / f"fake{number}", 0o20666, os.makedev(1, 3))
    (etc / "gres.conf").write_text(f"NodeName=gpu[1-2] Name=gpu File={devices}/fake[0-{GPUS - 1}]\n")
    if _version() >= (23, 2):  # newer slurmd insists on cgroups unless told otherwise
        (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n")


def _version() -> tuple[int, int]:
    said = subprocess.run([_which("slurmd"), "-V"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"\d+", said)[:2]
    return int(major), int(minor)


def _start_munge() -> None:
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    user = pwd.getpwnam("munge")
    for name in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(name).mkdir(exist_ok=True, parents=True)
        os.chown(name, user.pw_uid, user.pw_gid)
    Path("/run/munge").chmod(0o755)
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        os.chown(key, user.pw_uid, user.pw_gid)
        key.chmod(0o400)
    subprocess.run(["runuser", "-u", "munge", "--", _which("munged")], check=True)


def _start_database(folder: Path) -> None:
    options = f"--defaults-file={folder}/etc/my.cnf"
    method = ("--auth-root-authentication-method=socket", "--auth-root-socket-user=root")
    prepared = subprocess.run(
        ["mariadb-install-db", options, "--user=root", *method, "--skip-test-db"],
        capture_output=True,
        text=True,
        check=False,
    )
    if prepared.returncode:
        raise ClusterUnavailable(f"mariadb-install-db failed: {prepared.stderr.strip()[-500:]}")
    Path("/run/mysqld").mkdir(exist_ok=True)
    _spawn(folder, "mariadb", "mariadbd", options, "--user=root")
    _until(lambda: _database_exists(folder), folder, "mariadb")


def _database_exists(folder: Path) -> bool:
    """Create slurmdbd's database; with MariaDB 11.8 slurmdbd fails where it must create it itself."""
    create = ("mariadb", f"--defaults-file={folder}/etc/my.cnf", "--socket=/run/mysqld/mysqld.sock", "--execute")
    return _slurm(Cluster(folder), *create, "CREATE DATABASE IF NOT EXISTS slurm_acct").returncode == 0


def _accounting_answers(cluster: Cluster) -> bool:
    return _slurm(cluster, "sacctmgr", "--noheader", "show", "cluster").returncode == 0


def _spawn(folder: Path, name: str, *argv: str) -> None:
    """Start a process that outlives this one; its pid and its output go into the folder."""
    with (folder / "log" / f"{name}.out").open("ab") as output:
        process = subprocess.Popen(
            [_which(argv[0]), *argv[1:]],
            env={**os.environ, **Cluster(folder).environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=folder / "log",  # where a daemon that crashes leaves its core
        )
    (folder / "run" / f"{name}.pid").write_text(str(process.pid))


def _slurm(cluster: Cluster, *argv: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **cluster.environment}
    try:
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 1, "", str(error))


def _until(true: Callable[[], bool], folder: Path, daemon: str) -> None:
    deadline = time.monotonic() + START_S
    while not true():
        if time.monotonic() > deadline:
            logs = [path.read_text(errors="replace")[-1500:] for path in sorted((folder / "log").glob(f"{daemon}*"))]
            raise ClusterUnavailable(f"{daemon} was not ready in {START_S:g} s; its log ends:\n" + "\n".join(logs))
        time.sleep(0.2)


def _kill_node(folder: Path, node: str) -> None:
    """Kill a node's slurmd, and its step daemons, which are no children of it, with all that they run."""
    pid_file = folder / "run" / f"slurmd.{node}.pid"
    if pid_file.exists():
        processes.kill_tree(int(pid_file.read_text()))
        pid_file.unlink()
    log = f"{folder}/log/slurmd.{node}.log"
    for pid in processes.pids():  # a step daemon writes to its node's log
        if b"slurmstepd" in processes.read(pid, "cmdline") and log in processes.open_files(pid):
            processes.kill_tree(pid)


def _which(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}") or ""


def main() -> None:
    """Run the command."""
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        if command == "up":
            environment = up().environment
            print("up; for Slurm's commands:", *(f"export {k}={v}" for k, v in environment.items()))
        elif command == "down":
            down()
        elif command == "status":
            print("up" if is_up() else "down")
        else:
            sys.exit(__doc__)
    except ClusterUnavailable as error:
        sys.exit(f"no cluster: {error}")


if __name__ == "__main__":
    main()
