"""From presets and the command line to settings; OmegaConf stays inside this file.

Command line over presets over defaults: `model=405B task=claims search.steps=200 cluster.time_min=600`.
"""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import home
from .errors import ConfigError
from .settings import PROTOCOLS, Config

PRESET_SECTIONS = ("model", "task", "cluster")

ALIASES = {"run": "run.name", "engine": "model.engine", "replicas": "server.replicas"}

SECTIONS: dict[str, type] = {str(name): kind for name, kind in typing.get_type_hints(Config).items()}


def load(arguments: Sequence[str], *, base: Mapping[str, Any] | None = None) -> Config:
    """Return the settings that command-line `arguments` (`key=value`) give over presets, or over `base`, over defaults.

    Raises ConfigError for a word without `=`, an unknown key or preset, a wrong type, a value out of range.
    """
    pairs = [_split(argument) for argument in arguments]
    chosen = {key: value for key, value in pairs if key in PRESET_SECTIONS}
    engine = dict(pairs).get("engine", "")
    if base is None and engine in presets("model"):
        chosen.setdefault("model", engine)  # openai, stub: what they serve has a preset of their own
    if base is None:
        layers = [_preset(section, chosen.get(section)) for section in PRESET_SECTIONS]
    else:
        layers = [dict(base), *(_preset(section, name) for section, name in chosen.items())]
    dotted = [(ALIASES.get(key, key), value) for key, value in pairs if key not in PRESET_SECTIONS]
    for key, _ in dotted:
        _check_key(key, "the command line")
    tree: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            tree[section] = {**tree.get(section, {}), **values}
    return _build(tree, [f"{key}={value}" for key, value in dotted])


def load_file(path: Path, arguments: Sequence[str] = ()) -> Config:
    """Return the settings that `path` (a run's config.yaml) holds, with `arguments` over them."""
    return load(arguments, base=_read_yaml(path))


def to_yaml(config: Config) -> str:
    """Return every setting as YAML, in the form that `load_file` reads."""
    return str(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True))


def package_folder(name: str) -> Path:
    """Return the folder `configs` or `slurm`: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return here / name if (here / name).is_dir() else here.parent / name


def _split(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals or not key:
        raise ConfigError(f"{argument!r} is not a setting: write key=value, such as model=smol or search.steps=200")
    return key, value


def presets(section: str) -> dict[str, Path]:
    """Return the presets of a section by name: the package's, and those in $ICM_CONFIGS, which go before."""
    folders = [Path(folder) / section for folder in (os.environ.get("ICM_CONFIGS"),) if folder]
    return {f.stem: f for folder in (package_folder("configs") / section, *folders) for f in folder.glob("*.yaml")}


def _preset(section: str, name: str | None) -> dict[str, dict[str, Any]]:
    """Read one preset: a file of this section in $ICM_CONFIGS or the package, or a path that ends in .yaml."""
    name = name or str(SECTIONS[section].__dataclass_fields__["name"].default)  # type: ignore[attr-defined]
    if name.endswith((".yaml", ".yml")):
        path = home.expanded(name, instead="a path without ~")
        if not path.is_file():
            raise ConfigError(f"{section}={name}: there is no such file")
        stem = path.stem
    else:
        files = presets(section)
        if name not in files:
            near = _nearest(name, list(files))
            raise ConfigError(f"{section}={name}: no such preset{near}; there are {', '.join(sorted(files))}")
        path, stem = files[name], name
    tree = _read_yaml(path)
    tree[section] = {"name": stem, **tree.get(section, {})} if section != "task" else tree.get(section, {})
    return tree


def _read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(tree, dict) or not all(isinstance(values, dict) for values in tree.values()):
        raise ConfigError(f"{path}: must hold sections ({', '.join(SECTIONS)}), each with its keys")
    for section, values in tree.items():
        for key in values:
            _check_key(f"{section!s}.{key!s}", str(path))
    return typing.cast(dict[str, dict[str, Any]], tree)


def _keys_of(section: str) -> list[str]:
    return [f.name for f in dataclasses.fields(SECTIONS[section])]


def _check_key(dotted: str, where: str) -> None:
    """Refuse a key that no section has, with the nearest one that exists."""
    section, _, rest = dotted.partition(".")
    known = [f"{s}.{k}" for s in SECTIONS for k in _keys_of(s)]
    key = rest.split(".", 1)[0]
    free_form = f"{section}.{key}" in ("model.vllm_args", "model.env")
    if f"{section}.{key}" in known and ("." not in rest or free_form):
        return
    by_leaf = [k for k in known if k.split(".")[1] == (key or section)]
    near = f"; did you mean {by_leaf[0]}?" if by_leaf else _nearest(dotted, known)
    raise ConfigError(f"{dotted}: no such key (in {where}){near or '; sections: ' + ', '.join(SECTIONS)}")


def _nearest(word: str, known: Sequence[str]) -> str:
    lowered = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    return f"; did you mean {lowered[near[0]]}?" if near else ""


def _build(tree: Mapping[str, Any], dotlist: list[str]) -> Config:
    sections = {}
    for section, kind in SECTIONS.items():
        mine = [pair.split(".", 1)[1] for pair in dotlist if pair.startswith(f"{section}.")]
        try:
            given = OmegaConf.from_dotlist(_literal(mine))
            merged = OmegaConf.merge(OmegaConf.structured(kind), _literal(tree.get(section, {})), given)
            sections[section] = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            full_key = str(error.full_key or "")
            key = ".".join(filter(None, (section, full_key)))
            wanted = _wanted_type(kind, full_key)
            said = str(error.msg or error).splitlines()[0]
            raise ConfigError(f"{key}: {said}{wanted}") from error
        except ValueError as error:
            raise ConfigError(f"{section}.{error}") from error
    return _with_protocol(_with_engine(Config(**sections)))  # type: ignore[arg-type]


def _literal(value: Any) -> Any:
    """Escape what OmegaConf would take for an interpolation of its own: ${HOME} is the shell's."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list) else value


def _with_engine(config: Config) -> Config:
    """Fill in what an API allows no choice of; raises ConfigError for what the engine cannot do."""
    model, server, search = config.model, config.server, config.search
    if model.engine != "openai":
        limits = {"requests_per_min": server.requests_per_min, "tokens_per_min": server.tokens_per_min}
        told = [f"server.{key}" for key, value in limits.items() if value is not None]
        told += ["model.top_logprobs"] if model.top_logprobs is not None else []
        if told:
            raise ConfigError(f"{', '.join(told)}: only for engine=openai, and this is engine={model.engine}")
        return config
    if search.scoring == "exact":
        raise ConfigError(
            "search.scoring=exact: engine=openai tells the likeliest tokens only, not every label's log-probability: leave"
            " it out, or use a vLLM server"
        )
    if server.replicas > 1:
        raise ConfigError(f"server.replicas={server.replicas}: engine=openai has no replicas to choose from")
    return dataclasses.replace(config, search=dataclasses.replace(search, scoring="top20"))


def _with_protocol(config: Config) -> Config:
    """Fill in what is left empty."""
    for dotted, value in PROTOCOLS[config.search.protocol].items():
        section, key = dotted.split(".")
        if not getattr(getattr(config, section), key):
            filled = dataclasses.replace(getattr(config, section), **{key: value})
            config = dataclasses.replace(config, **{section: filled})
    return config


def _wanted_type(kind: type, key: str) -> str:
    hint = typing.get_type_hints(kind).get(key.split(".")[0].split("[")[0])
    if hint is None:
        return ""
    name = str(hint) if isinstance(hint, types.UnionType) or typing.get_args(hint) else hint.__name__
    return f" (wanted: {name})"
