"""Which sections and keys there are; what is none is refused, with the nearest one."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .schema import Config
from .written import NO_MAP, Written

FREE_FORM = ("model.vllm_args", "model.env", "task.columns", "task.labels", "task.rule")

ALIASES = {"run": "run.name", "engine": "model.engine", "replicas": "server.replicas"}

SECTIONS: dict[str, type] = {str(name): kind for name, kind in typing.get_type_hints(Config).items()}
HINTS = {name: typing.get_type_hints(kind) for name, kind in SECTIONS.items()}


def require_sections(tree: dict[str, Any], path: Path) -> None:
    """Refuse what is no section, and a key that no section has; an empty section becomes one without keys."""
    for section, values in tree.items():
        if section != NO_MAP and isinstance(values, Written) and not values:
            values = tree[section] = {}
        if section not in SECTIONS and section != NO_MAP:
            near = nearest(str(ALIASES.get(section, section)), [*SECTIONS, *ALIASES.values()])
            raise ConfigError(f"{path}: {section}: no such section{near}; sections: {', '.join(SECTIONS)}")
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must hold sections ({', '.join(SECTIONS)}), each with its keys")
        for key in values:
            check_key(f"{section!s}.{key!s}", str(path))


def check_key(dotted: str, where: str, arguments: Iterable[str] = ()) -> None:
    """Refuse a key that no section has, with the nearest one that exists, or of the command's own `arguments`."""
    section, _, rest = dotted.partition(".")
    known = [f"{s}.{field.name}" for s, kind in SECTIONS.items() for field in dataclasses.fields(kind)]
    key = rest.split(".", 1)[0]
    free_form = f"{section}.{key}" in FREE_FORM
    if f"{section}.{key}" in known and ("." not in rest or free_form):
        return
    by_leaf = [k for k in known if k.split(".")[1] == (key or section)]
    near = f"; did you mean {by_leaf[0]}?" if by_leaf else nearest(dotted, [*arguments, *known])
    raise ConfigError(f"{dotted}: no such key (in {where}){near or '; sections: ' + ', '.join(SECTIONS)}")


def nearest(word: str, known: Sequence[str]) -> str:
    lowered = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    return f"; did you mean {lowered[near[0]]}?" if near else ""
