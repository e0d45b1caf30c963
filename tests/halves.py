"""`python -m tests.halves [options of pytest]`: the suite in two processes: cluster tests, which mostly wait, and the others.

What the cluster tests print follows what the others print. The exit code is that of a half that failed, else 0.
"""

import os
import subprocess
import sys
import tempfile

NO_TESTS = 5  # pytest's exit code where none was selected


def main() -> int:
    """Run both halves."""
    argv = [sys.executable, "-m", "pytest", *sys.argv[1:], "-m"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile() as printed:
        cluster = subprocess.Popen([*argv, "cluster"], stdout=printed, stderr=subprocess.STDOUT, env=environment)
        try:
            others = subprocess.run([*argv, "not cluster"], env=environment, check=False).returncode
            codes = [cluster.wait(), others]
        finally:
            cluster.terminate()
            cluster.wait()
            printed.seek(0)
            sys.stdout.buffer.write(printed.read())
            sys.stdout.flush()
    return next((code for code in codes if code not in (0, NO_TESTS)), 0)


if __name__ == "__main__":
    sys.exit(main())
