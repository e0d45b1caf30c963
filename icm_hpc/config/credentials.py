"""Where a server that is not ours is, and its key: from the environment, or from a secrets file that only its owner reads.

Only the session that sends it holds a key: no setting, command line, log or error does.
"""

import dataclasses
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..engines import ENGINES
from ..errors import ConfigError
from . import home
from .schema import Config

# As a shell would read it: export before it, a value in quotes, a comment after it; and with spaces around =.
LINE = re.compile(
    r"""(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^\s'"#][^'"]*?)?)(?:\s+\#.*)?""", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it was found."""

    value: str = dataclasses.field(repr=False)
    source: str


def find(name: str, *, in_environment: bool = True) -> Found | None:
    """Return a variable of the environment, else a line of the secrets file; raises ConfigError for a file that is not safe."""
    value = os.environ.get(name, "").strip() if in_environment else ""
    source = "the environment"
    if not value:
        source = str(secrets_file())
        value = _read(secrets_file()).get(name, "")
    if not value:
        return None
    if not re.fullmatch(r"[!-~]+", value):
        raise ConfigError(f"{name} of {source}: has a space, a line break or a letter that no HTTP header may hold")
    return Found(value, f"{name} of {source}")


def secrets_file() -> Path:
    """Return the file of keys: $ICM_SECRETS, or ~/.config/icm_hpc/secrets.env."""
    named = os.environ.get("ICM_SECRETS") or "~/.config/icm_hpc/secrets.env"
    return home.expanded(named, instead="ICM_SECRETS=FILE (the file of keys; it may be empty)")


def addressed(config: Config) -> tuple[Config, str]:
    """Return `config` with the URL of a server that already runs, if one is set anywhere, and where it was set."""
    variable = ENGINES[config.model.engine].url_variable
    found = find(variable) if variable and config.server.url is None else None
    if found is None:
        return config, "server.url" if config.server.url else "the default"
    try:
        server = dataclasses.replace(config.server, url=found.value)
    except ValueError as error:
        raise ConfigError(f"{found.source}: {error}") from None
    return dataclasses.replace(config, server=server), found.source


def of_server(config: Config) -> Found | None:
    """Return the key of a server that is not ours; None if it has none, if its engine may have none.

    Raises ConfigError for a run that cannot have its key. A Slurm job's must be in the file: Slurm keeps the environment of
    sbatch, and copies it to the nodes.
    """
    engine, on_slurm = ENGINES[config.model.engine], config.cluster.executor == "slurm"
    name = engine.key_variable
    found = find(name, in_environment=not on_slurm)
    path = secrets_file()
    remedy = f"write it as a line {name}=... into {path}, which only you may read (chmod 600 {path})"
    if found is None and on_slurm and os.environ.get(name):
        raise ConfigError(f"{name} is in the environment only, which Slurm would store and show in the job: {remedy}")
    if found is None and engine.needs_key:
        raise ConfigError(f"engine={config.model.engine} needs a key, and there is no {name}: {remedy}")
    return found


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that may be stored."""
    keys = {engine.key_variable for engine in ENGINES.values()}
    return {name: value for name, value in environment.items() if name not in keys}


def _read(path: Path) -> dict[str, str]:
    """Return the lines NAME=value of a file that is its owner's alone, none if it is not there."""
    try:
        with path.open(encoding="utf-8") as file:
            _require_private(path, os.fstat(file.fileno()))
            lines = file.read().splitlines()
    except FileNotFoundError:
        if os.environ.get("ICM_SECRETS"):
            raise ConfigError(f"ICM_SECRETS={path}: there is no such file") from None
        return {}
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {type(error).__name__}") from None  # a text might be quoted
    values = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:  # the line is not quoted: it may hold a key
            raise ConfigError(f"{path}, line {number}: is not NAME=value")
        name, single, double, bare = match.groups()
        if any(sign in (double or bare or "") for sign in ("$", "`")):
            raise ConfigError(
                f"{path}, line {number}: no shell reads this file: write the value itself, without $ and `"
            )
        values[name] = single or double or bare or ""
    return values


def _require_private(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.getuid():
        raise ConfigError(f"{path}: is not your file, so no key is taken from it: copy it, and chmod 600 the copy")
    if mode & 0o077:
        raise ConfigError(f"{path}: others may use it (mode {mode:04o}), so no key is taken from it: chmod 600 {path}")
