"""The cluster tests on several versions of Slurm: `python3 -m tests.cluster.versions all|newer|RELEASE [PYTEST OPTION ...]`.

Each version is that of a Debian release, which debootstrap installs into a folder. The tests run there by chroot, in mount,
process and network namespaces of their own, so that they neither disturb each other or this machine's daemons, nor leave
anything behind; all versions at one time. Prints a table in Markdown. Needs root, apt-get, and the .venv of this checkout.
Standard library only.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.daemons import PACKAGES, ClusterUnavailable
from tests.version_table import Report, results_of, table

RELEASES = ("bookworm", "trixie", "forky")  # the oldest first: Slurm 22.05, 24.11, 26.05
ROOTS = Path("/var/tmp/icm-hpc-slurm-roots")
CHECKOUT = Path(__file__).parents[2]
VENV_PYTHON = CHECKOUT / ".venv" / "bin" / "python"
TOOLS = ("ca-certificates", "python3", "python3-venv", "make", "procps", "iproute2", "e2fsprogs", "g++")
MIRROR = "http://deb.debian.org/debian"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Check-Valid-Until=false"
# glibc's look-ups, as Slurm makes them, find nothing on a machine whose only interface is the loopback.
NETWORK = (
    "ip link set lo up && ip link add icm0 type veth peer name icm1 && ip address add 192.0.2.10/24 dev icm0"
    " && ip link set icm0 up && ip link set icm1 up"
)


def main() -> None:
    """Run the command."""
    names = [word for word in sys.argv[1:] if word in (*RELEASES, "all", "newer")]
    options = [word for word in sys.argv[1:] if word not in names]
    releases = _chosen(names)
    try:
        roots = [_root(release) for release in releases]  # one after the other: apt-get's locks, and the network
        with ThreadPoolExecutor() as threads:
            reports = list(threads.map(lambda root: _tested(root, options), roots))
    except ClusterUnavailable as error:
        sys.exit(f"not tested: {error}")
    for report, release in zip(reports, releases, strict=True):
        print(f"--- Slurm {report.version} (Debian {release})\n{report.printed}")
    print(table(reports))
    failed = [report.version for report in reports if not report.passed]
    sys.exit(f"tests failed on Slurm {', '.join(failed)}" if failed else None)


def _chosen(names: list[str]) -> list[str]:
    """Return the releases that the words name."""
    if not names or "all" in names:
        return list(RELEASES)
    if "newer" not in names:
        return names
    own = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    place = RELEASES.index(own[1]) if own and own[1] in RELEASES else 0
    return [RELEASES[min(place + 1, len(RELEASES) - 1)]]


def _tested(root: Path, options: list[str]) -> Report:
    python = _python(root)
    version = _inside(root, ["slurmctld", "-V"], network=False).stdout.split()[-1]
    xml = root / "tmp" / "report.xml"
    xml.unlink(missing_ok=True)
    argv = [*python, "-m", "pytest", "-p", "no:cacheprovider", "--junit-xml=/tmp/report.xml", "tests/cluster", *options]
    done = _inside(root, argv, network=True)
    results = results_of(xml)
    printed = done.stdout + done.stderr
    return Report(version, results, passed=done.returncode == 0 and bool(results), printed=printed)


def _root(release: str) -> Path:
    """Return the folder with a Debian release and its Slurm, made if it is missing."""
    root = ROOTS / release
    if (root / ".ready").exists():
        return root
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterUnavailable("a Debian release is installed into a folder by root with apt-get")
    if not shutil.which("debootstrap"):
        _run("sh", "-c", f"{APT} update && {APT} install -y --no-install-recommends debootstrap")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    script = "/usr/share/debootstrap/scripts/sid"  # of all releases; the newest may have no name of its own there
    _run("debootstrap", "--variant=minbase", f"--include={','.join(TOOLS)}", release, str(root), MIRROR, script)
    for name in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
        if Path("/", name).exists():
            shutil.copy(Path("/", name), root / name)
    install = f"{APT} update && {APT} install -y --no-install-recommends {' '.join(PACKAGES)}"
    done = _inside(root, ["sh", "-c", install], network=False)
    if done.returncode:
        raise ClusterUnavailable(f"apt-get in {root} failed: {done.stderr[-500:]}")
    (root / ".ready").touch()
    return root


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterUnavailable(f"`{shlex.join(argv)}` failed: {(done.stdout + done.stderr)[-500:]}")


def _python(root: Path) -> list[str]:
    """Return the Python of the tests: that of this checkout, vLLM included, where it runs in `root`; else the root's own."""
    ours = _inside(root, [str(VENV_PYTHON), "-c", "import icm_hpc, h5py, ssl"], network=False)
    if ours.returncode == 0:
        return [str(VENV_PYTHON)]
    copy = "/root/icm_hpc"
    files = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        (root / f".{copy}" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, root / f".{copy}" / name)
    done = _inside(root, ["make", "-C", copy, "setup"], network=False)
    if done.returncode:
        raise ClusterUnavailable(f"no Python for {root}: {ours.stderr[-500:]}; and {done.stderr[-500:]}")
    return ["env", "-C", copy, ".venv/bin/python"]


def _inside(root: Path, argv: list[str], *, network: bool) -> "subprocess.CompletedProcess[str]":
    """Run a command in `root`, in this checkout's folder; with a `network` of its own, which has no way out."""
    binds = "".join(_bind(root, path) for path in (CHECKOUT, *_interpreter()))
    set_up = f"{NETWORK} && " if network else ""
    # bash is process 1 there: it reaps what the daemons leave.
    command = f"{set_up}cd {shlex.quote(str(CHECKOUT))} && {{ {shlex.join(argv)}; exit $?; }}"
    script = f"""set -e
mount --make-rprivate /
{binds}mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
mount --rbind /sys {root}/sys
chroot {root} bash -c {shlex.quote(command)}
"""
    spaces = ["--mount", "--pid", "--fork", "--kill-child", *(["--net"] if network else [])]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    environment = {**kept, "HOME": "/root", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": "/tmp"}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    words = ["unshare", *spaces, "bash", "-c", script]
    return subprocess.run(words, env=environment, capture_output=True, text=True, errors="replace", check=False)


def _interpreter() -> list[Path]:
    """Return what the Python of this checkout's .venv consists of."""
    show = "import sys, sysconfig; print(sys.base_prefix, sysconfig.get_path('stdlib'))"
    prefix, stdlib = subprocess.run(
        [VENV_PYTHON, "-c", show], capture_output=True, text=True, check=True
    ).stdout.split()
    return [VENV_PYTHON.resolve(), Path(stdlib)] if prefix in ("/usr", "/usr/local") else [Path(prefix)]


def _bind(root: Path, path: Path) -> str:
    """Return the shell lines that show a file or folder of this machine in `root`, under the same path."""
    place = shlex.quote(f"{root}{path}")
    make = f"mkdir -p {place}" if path.is_dir() else f"mkdir -p $(dirname {place}) && touch {place}"
    return f"{make}\nmount --bind {shlex.quote(str(path))} {place}\n"


if __name__ == "__main__":
    main()
