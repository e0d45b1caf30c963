"""A run's folder as one command takes it: under a name that none has, by one command at a time, and undone if refused."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from .. import scheduler
from ..errors import ConfigError, IcmError
from ..rundir.files import fsync_folder, make_folder, write_atomically
from ..rundir.folder import RunDir


@dataclass(frozen=True, slots=True)
class Seen:
    """What another submit or resume of the same run changes."""

    config: bytes | None
    job: str | None

    @classmethod
    def of(cls, run_dir: RunDir) -> "Seen":
        """Return what is there now."""
        config = run_dir.config.read_bytes() if run_dir.config.exists() else None
        return cls(config, scheduler.newest(run_dir.submitit))


def unused(run_dir: RunDir) -> RunDir:
    """Make a folder that was not there, under this name or under the first of NAME-2, NAME-3, ... that is free."""
    made = run_dir.path
    for number in count(2):
        try:
            make_folder(made.parent)
            made.mkdir(mode=0o700)
            fsync_folder(made.parent)
        except FileExistsError:
            made = run_dir.path.with_name(f"{run_dir.path.name}-{number}")
        except OSError as error:
            raise ConfigError(f"run.root: the folder {made} cannot be made: {error}") from error
        else:
            break
    return RunDir(made)


@contextmanager
def alone(run_dir: RunDir) -> Iterator[None]:
    """Make the run's folder and keep other submits and resumes out of it; raises ConfigError if one is at work."""
    run_dir.create()
    try:
        handle = os.open(run_dir.path / "start.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"run.root: nothing can be written to {run_dir.path}: {error}") from error
    try:
        _lock(handle, run_dir.path)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{folder} is being started by another submit or resume: wait for it, or choose another run.name"
        ) from None
    except OSError:
        return  # a file system without locks; driver.lock keeps a second driver out


@contextmanager
def written(run_dir: RunDir, files: Mapping[Path, bytes]) -> Iterator[None]:
    """Write the settings, and what else a job needs to start; if it is refused, put back what was there.

    A job of which sbatch does not say whether it is queued keeps them. Without saved state the run has the scores of no model.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    if not run_dir.has_state():
        for of_server in (run_dir.served_model, run_dir.measured, run_dir.word_prior, run_dir.label_prior):
            of_server.unlink(missing_ok=True)
    with _undone(BaseException, run_dir, before):
        try:
            _replace(run_dir, files)
        except OSError as error:
            raise ConfigError(f"run.root: {run_dir.path} cannot be written: {error}") from error
    with _undone(IcmError, run_dir, before):
        yield


@contextmanager
def _undone(kind: type[BaseException], run_dir: RunDir, before: Mapping[Path, bytes | None]) -> Iterator[None]:
    """Put back what was there if something of a kind is raised, as far as that can be written."""
    try:
        yield
    except scheduler.UnknownJob:
        raise
    except kind:
        with suppress(OSError):
            _replace(run_dir, before)
        raise


def _replace(run_dir: RunDir, files: Mapping[Path, bytes | None]) -> None:
    """Write files, or remove them (None): whenever this ends, the settings are whole, and what is beside them is theirs.

    No file is there without those before it in `files`.
    """
    for path in reversed([path for path in files if path != run_dir.config]):
        path.unlink(missing_ok=True)
    fsync_folder(run_dir.path)
    for path in sorted(files, key=lambda path: path != run_dir.config):
        content = files[path]
        if content is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, content)
