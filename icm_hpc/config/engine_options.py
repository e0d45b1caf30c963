"""Options of the engine in model.vllm_args: refused where a run sets them itself, in whatever way they are written."""

import re
from collections.abc import Mapping
from typing import Any

from ..engines import DEFAULT, ENGINES
from ..engines.options import Options, written_plainly
from ..errors import ConfigError
from .written import Tree, Written


def require_allowed(model: Mapping[str, Tree]) -> None:
    """Raise ConfigError for an option that a run sets itself, in any of its spellings; no value is quoted.

    What a run's own config.yaml holds is not checked again.
    """
    given, options = model.get("vllm_args", {}), _options_of(model.get("engine"))
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if not _is_saved(value):
            _require_allowed(name, value, options)


def _require_allowed(name: str, value: Tree, options: Options) -> None:
    key, product = f"model.vllm_args.{name}", options.product
    if not re.fullmatch(r"-{0,2}[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_.-]+)?", name):
        raise ConfigError(f"{key!r}: is not the name of an option: write it as in {product}'s --NAME, without value")
    option = options.reserved(name)
    if option is not None:
        spelt = "" if option == written_plainly(name) else f" ({product}'s --{option})"
        setting = options.settings.get(option)
        what = f"set {setting} instead" if setting else f"cannot be set: {options.reasons[option]}"
        raise ConfigError(f"{key}{spelt}: {what}")
    if name.startswith("-"):
        raise ConfigError(f"{key}: write it without leading -: model.vllm_args.{name.lstrip('-')}")
    if isinstance(value, Written) and re.match(r"-[^0-9.]", value.text):
        raise ConfigError(f"{key}: its value begins with -, so {product} would take it for another option")


def _options_of(engine: Tree) -> Options:
    """Return the options of an engine; of the default one for a name that is refused later."""
    name = engine.text if isinstance(engine, Written) else DEFAULT
    return ENGINES.get(name, ENGINES[DEFAULT]).options


def _is_saved(tree: Any) -> bool:
    if isinstance(tree, Written):
        return tree.saved
    inner = list(tree.values()) if isinstance(tree, dict) else tree
    return bool(inner) and all(map(_is_saved, inner))
