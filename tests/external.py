"""Servers that already run, played by the stub in a process of its own, and the secrets file with its key."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "sk-of-this-test-0123456789abcdef"
CONTEXT = 1_000_000


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_stub(port: int, *, model: str = "theirs", delay_ms: float = 0) -> Iterator[str]:
    """Run a stub that requires KEY; yield its URL."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", model]
    words += ["--max-model-len", str(CONTEXT), "--delay-ms", str(delay_ms)]
    environment = {**os.environ, "VLLM_API_KEY": KEY}
    server = subprocess.Popen([sys.executable, "-m", "icm_hpc.engines.stub", *words], env=environment)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def secrets_file(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    """Write a file of keys."""
    path = folder / "secrets.env"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(mode)
    return path


def submit(*arguments: str, module: str = "submit", **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands with `variables` in its environment."""
    argv = [sys.executable, "-m", f"icm_hpc.{module}", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=300)


def command_lines(until: "subprocess.Popen[bytes]") -> bytes:
    """Return the command lines of all processes, seen again and again until one has ended."""
    seen: set[bytes] = set()
    while until.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(path.read_bytes())
            except OSError:
                continue  # it has ended
        time.sleep(0.05)
    return b"\n".join(seen)


def holding(folder: Path, secret: str) -> list[Path]:
    """Return the files of a folder that hold a secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if secret.encode() in path.read_bytes()]
