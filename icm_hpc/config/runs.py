"""Which folders are runs, and whether one can be made; of a folder that cannot be read, nothing is said but that."""

import os
from pathlib import Path

from ..errors import ConfigError, FolderError


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's. Raises FolderError if it cannot be read."""
    try:
        (folder / "config.yaml").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise FolderError(f"{folder}: cannot be read: {error.strerror}") from error
    return True


def all_runs(root: Path) -> list[Path]:
    """Return the folders of all runs that we may read, sorted. Raises FolderError if `root` cannot be read."""
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FolderError(f"{root}: cannot be read: {error.strerror}") from error
    return sorted(path.parent for path in root.glob("*/config.yaml"))


def require_writable(folder: Path) -> None:
    """Raise ConfigError if a run's folder, or the folder of all runs, cannot be made or cannot be written."""
    for place in (folder, *folder.parents):
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigError(f"run.root: {place}: {error.strerror}; choose another run.root") from error
        if not place.is_dir():
            raise ConfigError(f"run.root: {place} is a file, and no folder: choose another run.root or run.name")
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigError(f"run.root: {place} cannot be written: choose another run.root")
        return
