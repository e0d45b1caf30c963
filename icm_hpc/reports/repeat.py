"""The command that repeats a run: its presets, and every setting that differs from theirs."""

import dataclasses
import json
import re
import shlex
from typing import Any

from ..config import loading
from ..config.schema import Config
from ..errors import IcmError

PLAIN = re.compile(r"[^\s\"'\[\]{},:][^\n\"'\[\]{}]*")  # a text that is read as it stands
OWN = ("run.name", "run.root")  # of a run, which another run has not


def command(config: Config) -> tuple[str, str]:
    """Return the command, and what must be known of it; empty if it gives these very settings here."""
    words = [f"{section}={name}" for section in loading.PRESET_SECTIONS if (name := _preset(config, section))]
    note = ""
    try:
        base = _flat(loading.load(words))
        wanted = _flat(config)
        words += [f"{key}={_written(wanted[key])}" for key in wanted if key not in OWN and wanted[key] != base[key]]
        again = _flat(loading.load(words))
        differing = [key for key in wanted if key not in OWN and again[key] != wanted[key]]
    except IcmError as error:
        differing, note = [], f"It is not accepted here ({error}): see the settings below."
    if differing:
        note = f"It cannot set {', '.join(differing)}: see the settings below."
    return shlex.join(["python", "-m", "icm_hpc.submit", *words]), note


def _preset(config: Config, section: str) -> str | None:
    name = str(getattr(config, section).name)
    return name if name in loading.presets(section) else None


def _flat(config: Config) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in dataclasses.asdict(config).items()
        for key, value in values.items()
    }


def _written(value: Any, *, inside: bool = False) -> str:
    """Return a value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        is_plain = not inside and PLAIN.fullmatch(value) and value == value.strip() and value != "null"
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {_written(v, inside=True)}" for k, v in value.items()) + "}"
    return "[" + ", ".join(_written(item, inside=True) for item in value) + "]"
