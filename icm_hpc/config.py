"""From defaults files, presets and the command line to settings; OmegaConf stays inside this file.

`model=405B task=claims search.steps=200 cluster.time_min=600`: the command line over presets that are named, there or in a
defaults file; over the user's defaults file; over the site's; over the code's defaults.
"""

import dataclasses
import difflib
import os
import re
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
from .settings import PROTOCOLS, Config, RunConfig

PRESET_SECTIONS = ("model", "task", "cluster")

FORMAT = 2  # of a run's config.yaml

# What a layer that names weights replaces in the layers below it.
WEIGHTS = ("engine", "path", "embedded", "revision", "shape", "weights_gb")

NO_MAP = ""  # stands for the section of a file that holds none

FREE_FORM = ("model.vllm_args", "model.env")

ALIASES = {"run": "run.name", "engine": "model.engine", "replicas": "server.replicas"}

SECTIONS: dict[str, type] = {str(name): kind for name, kind in typing.get_type_hints(Config).items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Defaults:
    """What one file of defaults sets."""

    path: Path
    presets: dict[str, str]  # names, by section
    tree: dict[str, dict[str, Any]]


def load(arguments: Sequence[str], *, base: Mapping[str, Any] | None = None) -> Config:
    """Return the settings that command-line `arguments` (`key=value`) give over presets and defaults files, or over `base`.

    Raises ConfigError for a word without `=`, an unknown key or preset, a wrong type, a value out of range.
    """
    pairs = [_split(argument) for argument in arguments]
    chosen = {key: value for key, value in pairs if key in PRESET_SECTIONS}
    engine = dict(pairs).get("engine", "")
    if base is None and engine in presets("model"):
        chosen.setdefault("model", engine)  # openai, stub: what they serve has a preset of their own
    layers = _layers_of_defaults(chosen) if base is None else [dict(base)]
    layers += [_preset(section, chosen[section]) for section in PRESET_SECTIONS if section in chosen]
    dotted = [(ALIASES.get(key, key), value) for key, value in pairs if key not in PRESET_SECTIONS]
    for key, _ in dotted:
        _check_key(key, "the command line")
    tree: dict[str, Any] = {}
    for layer in layers:
        _overlay(tree, layer)
    try:
        return _build(tree, [f"{key}={value}" for key, value in dotted])
    except ConfigError as error:
        files = [file.path for file in defaults() if _sets(file.tree, str(error))] if base is None else []
        if not files or any(str(error).startswith(key) for key, _ in dotted):
            raise
        raise ConfigError(f"{error} (set in {files[-1]})") from error


def defaults() -> list[Defaults]:
    """Return the files of defaults that there are, the one that goes over the other last: the site's, the user's.

    The site's is the file that $ICM_DEFAULTS names; the user's is icm_hpc/defaults.yaml in the folder of settings. Raises
    ConfigError for one that cannot be used.
    """
    site = os.environ.get("ICM_DEFAULTS")
    if site and site.startswith("~/") and os.environ.get("HOME"):
        site = os.environ["HOME"] + site[1:]  # a module file expands no tilde
    if site and not Path(site).exists():
        raise ConfigError(f"ICM_DEFAULTS={site}: there is no such file")
    folder = _settings_folder()
    users = folder / "icm_hpc" / "defaults.yaml" if folder else None
    files = [Path(site)] if site else []
    files += [users] if users and users.exists() and users not in files else []
    return [_read_defaults(file) for file in files]


def run_folder(run: RunConfig) -> Path:
    """Return the absolute path of a run's folder; without a name, of the folder of all runs."""
    return home.expanded(run.root, instead="run.root without ~").absolute() / run.name


def load_file(path: Path, arguments: Sequence[str] = ()) -> Config:
    """Return the settings that `path` (a run's config.yaml) holds, with `arguments` over them."""
    tree = _read_mapping(path)
    written_as = tree.pop("format", 1)
    if written_as not in range(1, FORMAT + 1):
        raise ConfigError(f"{path}: is of format {written_as}, which a newer icm_hpc has written: use that one")
    _require_sections(tree, path)
    server = tree.get("server", {})
    if written_as == 1 and server.get("mem_gb", 0) is None:
        server["mem_gb"] = 0  # format 1 said null for all of the memory, which is 0 now
    return load(arguments, base=tree)


def to_yaml(config: Config) -> str:
    """Return every setting as YAML, in the form that `load_file` reads."""
    values = {"format": FORMAT, **dataclasses.asdict(config)}
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


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


def _layers_of_defaults(chosen: dict[str, str]) -> list[dict[str, dict[str, Any]]]:
    """Return the presets that nobody has named, and over them the files of defaults; add to `chosen` what those name."""
    files = defaults()
    for file in reversed(files):
        for section, name in file.presets.items():
            chosen.setdefault(section, name)
    unnamed = [section for section in PRESET_SECTIONS if section not in chosen]
    names = {section: str(SECTIONS[section].__dataclass_fields__["name"].default) for section in unnamed}  # type: ignore[attr-defined]
    return [*(_preset(section, name) for section, name in names.items()), *(file.tree for file in files)]


def _sets(tree: Mapping[str, Mapping[str, Any]], words: str) -> bool:
    """Return whether a tree has the key with which the words of an error begin."""
    return any(re.match(rf"{section}\.{key}\b", words) for section, values in tree.items() for key in values)


def _overlay(tree: dict[str, Any], layer: Mapping[str, Mapping[str, Any]]) -> None:
    """Put a layer of settings over a tree of them: by key, and in maps of any keys by those."""
    if any((layer.get("model") or {}).get(key) for key in ("engine", "path", "embedded")):
        tree["model"] = {key: value for key, value in tree.get("model", {}).items() if key not in WEIGHTS}
    for section, values in layer.items():
        below = tree.setdefault(section, {})
        for key, value in values.items():
            merges = f"{section}.{key}" in FREE_FORM and isinstance(value, dict) and isinstance(below.get(key), dict)
            below[key] = {**below[key], **value} if merges else value


def _read_defaults(path: Path) -> Defaults:
    """Read a file of defaults: sections as in a preset; `model: NAME` or `model: {preset: NAME, ...}` names a preset."""
    tree, names = _read_mapping(path), {}
    for section in [section for section in PRESET_SECTIONS if section in tree]:
        value = tree[section]
        name = value.pop("preset", None) if isinstance(value, dict) else value
        if not isinstance(value, dict | None):
            tree[section] = {}
        if name is None:
            continue
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}: {section}: {name!r} is neither the name of a preset nor a section with keys")
        if name.endswith((".yaml", ".yml")):
            name = str(path.absolute().parent / Path(name).expanduser())
        elif name not in presets(section):
            raise ConfigError(f"{path}: {_no_such_preset(section, name)}")
        names[section] = name
    for section, value in tree.items():
        tree[section] = {} if value is None else value
    _require_sections(tree, path)
    run = tree.get("run", {})
    if "root" in run:
        run["root"] = _with_variables(str(run["root"]), path)
    return Defaults(path, names, tree)


def _with_variables(value: str, path: Path) -> str:
    """Return a path of a site's file, in which $USER is each user's."""
    whole = os.path.expandvars(value)
    if "$" in whole:
        raise ConfigError(f"{path}: run.root={value}: a variable in it is not set")
    return whole


def _settings_folder() -> Path | None:
    """Return the user's folder of settings, or None if there is no home."""
    for variable, below in (("XDG_CONFIG_HOME", ""), ("HOME", ".config")):
        value = os.environ.get(variable, "")
        if Path(value).is_absolute():
            return Path(value) / below
    return None


def _preset(section: str, name: str) -> dict[str, dict[str, Any]]:
    """Read one preset: a file of this section in $ICM_CONFIGS or the package, or a path that ends in .yaml."""
    if name.endswith((".yaml", ".yml")):
        path = home.expanded(name, instead="a path without ~")
        if not path.is_file():
            raise ConfigError(f"{section}={name}: there is no such file")
        stem = path.stem
    else:
        files = presets(section)
        if name not in files:
            raise ConfigError(_no_such_preset(section, name))
        path, stem = files[name], name
    tree = _read_yaml(path)
    tree[section] = {"name": stem, **tree.get(section, {})} if section != "task" else tree.get(section, {})
    return tree


def _no_such_preset(section: str, name: str) -> str:
    files = presets(section)
    return f"{section}={name}: no such preset{_nearest(name, list(files))}; there are {', '.join(sorted(files))}"


def _read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    tree = _read_mapping(path)
    _require_sections(tree, path)
    return tree


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}  # noqa: S506  a SafeLoader
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    return tree if isinstance(tree, dict) else {NO_MAP: tree}


def _require_sections(tree: Mapping[str, Any], path: Path) -> None:
    for section, values in tree.items():
        if section not in SECTIONS and section != NO_MAP:
            near = _nearest(str(ALIASES.get(section, section)), [*SECTIONS, *ALIASES.values()])
            raise ConfigError(f"{path}: {section}: no such section{near}; sections: {', '.join(SECTIONS)}")
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must hold sections ({', '.join(SECTIONS)}), each with its keys")
        for key in values:
            _check_key(f"{section!s}.{key!s}", str(path))


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that stands twice in one map, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return the map; raises ConstructorError for a key that is there already."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key, str):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", key_node.start_mark)
                seen.add(key)
        return dict(super().construct_mapping(node, deep))


def _keys_of(section: str) -> list[str]:
    return [f.name for f in dataclasses.fields(SECTIONS[section])]


def _check_key(dotted: str, where: str) -> None:
    """Refuse a key that no section has, with the nearest one that exists."""
    section, _, rest = dotted.partition(".")
    known = [f"{s}.{k}" for s in SECTIONS for k in _keys_of(s)]
    key = rest.split(".", 1)[0]
    free_form = f"{section}.{key}" in FREE_FORM
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
