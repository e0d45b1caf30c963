"""The one place that knows every path inside a run's folder, and how its small files are written."""

import dataclasses
import fcntl
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server of one attempt listens, and the key it wants."""

    attempt: str
    hosts: tuple[str, ...]  # names and addresses of its node, the likeliest first
    port: int
    key: str = dataclasses.field(repr=False)
    model: str


@dataclass(frozen=True, slots=True)
class ServerExit:
    """How the server of one attempt ended."""

    attempt: str
    reason: str
    told_to_stop: bool


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, machine and job ids."""
        return self.path / "provenance.json"

    @property
    def endpoint(self) -> Path:
        """Where the server listens, with its key: 0600."""
        return self.path / "endpoint.json"

    @property
    def server_exit(self) -> Path:
        """How the server ended."""
        return self.path / "server-exit.json"

    @property
    def server_log(self) -> Path:
        """What the engine printed."""
        return self.path / "server.log"

    @property
    def driver_log(self) -> Path:
        """What the driver logged."""
        return self.path / "driver.log"

    @property
    def labels(self) -> Path:
        """The result: one line an example."""
        return self.path / "labels.jsonl"

    @property
    def summary(self) -> Path:
        """The result's figures."""
        return self.path / "summary.json"

    @property
    def submitit(self) -> Path:
        """What submitit keeps of its jobs."""
        return self.path / "submitit"

    def shard(self, number: int, restart: int = 0) -> Path:
        """The folder of the checkpoints and the trace of one search of a shard."""
        return self.path / (f"shard-{number:03d}" + (f"-restart-{restart}" if restart else ""))

    @contextmanager
    def held(self, holder: str) -> Iterator[None]:
        """Keep other drivers out while this one runs; the lock goes with the process. Raises ConfigError, naming the holder."""
        handle = os.open(self.path / "driver.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                other = os.pread(handle, 1000, 0).decode(errors="replace").strip()
                raise ConfigError(f"{self.path} is in use: {other}; wait for its end, or stop it first") from error
            except OSError as error:
                log.warning(
                    "%s: this file system has no locks (%s); see to it that one driver runs at a time", self.path, error
                )
            os.truncate(handle, 0)
            os.pwrite(handle, f"{holder}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def create(self) -> None:
        """Make the folder, for its owner only."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise ConfigError(f"run.root: the folder {self.path} cannot be made: {error}") from error

    def write_endpoint(self, endpoint: Endpoint) -> None:
        """Publish where the server listens."""
        write_atomically(self.endpoint, json.dumps(dataclasses.asdict(endpoint)).encode())

    def read_endpoint(self, attempt: str) -> Endpoint | None:
        """Return where the server of this attempt listens, or None while it has not said so."""
        values = _read_json(self.endpoint)
        if values is None or values["attempt"] != attempt:
            return None
        return Endpoint(**{**values, "hosts": tuple(values["hosts"])})

    def write_server_exit(self, record: ServerExit) -> None:
        """Record how the server ended."""
        write_atomically(self.server_exit, json.dumps(dataclasses.asdict(record)).encode())

    def read_server_exit(self, attempt: str) -> ServerExit | None:
        """Return how the server of this attempt ended, or None while it has not."""
        values = _read_json(self.server_exit)
        return ServerExit(**values) if values is not None and values["attempt"] == attempt else None


def new_attempt() -> str:
    """Return a name for a start on this machine; its server is given it as $ICM_ATTEMPT."""
    return f"local-{time.time_ns()}-{secrets.token_hex(4)}"


def attempt_of_job() -> str:
    """Return what tells this start of a Slurm job from others; equal in both components."""
    return f"{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there, readable by its owner only, and on the disk when this returns."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def private_append(path: Path) -> BinaryIO:
    """Open a log for appending; made if missing, readable by its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def fsync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log, or a note that there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return f"({path} is not there)"
    return "\n".join(text.splitlines()[-lines:]) or f"({path} is empty)"


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return values
