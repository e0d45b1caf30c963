"""The user's home folder, which a container or a service may not have."""

from pathlib import Path

from ..errors import ConfigError


def expanded(path: str | Path, *, instead: str) -> Path:
    """Return `path` with its ~ replaced; raises ConfigError, naming what to set `instead`, if there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: no home folder is known (HOME is not set, and the user has no entry in passwd): set {instead}, or HOME"
        ) from error
