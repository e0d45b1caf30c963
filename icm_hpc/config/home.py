"""The user's home folder, which a container or a service may not have."""

import os
from pathlib import Path

from ..errors import ConfigError


def expanded(path: str | Path, *, instead: str) -> Path:
    """Return `path` with its ~ replaced; raises ConfigError, naming what to set `instead`, if there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0].removeprefix("~")
        if user:
            raise ConfigError(f"{path}: there is no user {user} with a home folder: set {instead}") from error
        raise ConfigError(
            f"{path}: no home folder is known (HOME is not set, and the user has no entry in passwd): set {instead}, or HOME"
        ) from error


def holds(path: Path) -> bool:
    """Return whether there is such a file or folder; False too for a name that none can have, or that we may not look at."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def settings_folder() -> Path | None:
    """Return the user's folder of settings, or None if there is no home."""
    for variable, below in (("XDG_CONFIG_HOME", ""), ("HOME", ".config")):
        value = os.environ.get(variable, "")
        if Path(value).is_absolute():
            return Path(value) / below
    return None
