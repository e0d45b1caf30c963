"""From defaults files, presets and the command line to settings; OmegaConf stays inside this file.

`model=405B task=claims search.steps=200 cluster.time_min=600`: the command line over presets that are named, there or in a
defaults file; over the user's defaults file; over the site's; over the code's defaults. Values are merged as they are
written (written.py), and get their types at the end (typed.py).
"""

import dataclasses
import os
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from . import engine_options, home, no_secrets, runs, written
from .filled import with_engine, with_protocol
from .keys import ALIASES, HINTS, SECTIONS, check_key, nearest, require_sections
from .place import RunConfig
from .schema import Config
from .typed import parts_of, place_of, value_of
from .written import Tree, Written

PRESET_SECTIONS = ("model", "task", "cluster")
SIZE = "preset"  # the size of an experiment: a preset of several sections, which goes over those of one

FORMAT = 4  # of a run's config.yaml; up to 2, every search was the published one; up to 3, blocks had no kicks

TASK_PLUGINS = "icm_hpc.tasks"  # entry points of other packages

# What a layer that names weights replaces in the layers below it.
WEIGHTS = ("engine", "path", "embedded", "revision", "shape", "weights_gb")

MERGED = ("model.vllm_args", "model.env")  # maps of any keys, where a later map goes over an earlier one by key

# Where a value that is no map stands for one: a list for its numbered items, one rule for {else: RULE}.
SHORT_FORMS = {"task.labels": list, "task.rule": Written}


@dataclasses.dataclass(frozen=True, slots=True)
class Defaults:
    """What one file of defaults sets."""

    path: Path
    presets: dict[str, str]  # names, by section
    tree: dict[str, dict[str, Any]]


def load(arguments: Sequence[str], *, base: Mapping[str, Any] | None = None, own: Iterable[str] = ()) -> Config:
    """Return the settings that command-line `arguments` (`key=value`) give over presets and defaults files, or over `base`.

    `own` are the arguments of the command that are no settings, as its help has them: one of them may have been meant.
    Raises ConfigError for a word without `=`, an unknown key or preset, a wrong type, a value out of range, an option of vLLM
    that is not the user's, a secret.
    """
    pairs = [_split(argument) for argument in arguments]
    chosen = {key: value for key, value in pairs if key in PRESET_SECTIONS}
    engine = dict(pairs).get("engine", "")
    if base is None and engine in presets("model"):
        chosen.setdefault("model", engine)  # openai, stub: what they serve has a preset of their own
    layers = _layers_of_defaults(chosen) if base is None else _layers_of_run(base, chosen)
    layers += [_preset(section, chosen[section]) for section in PRESET_SECTIONS if section in chosen]
    layers += [_size(value, is_new=base is None) for key, value in pairs if key == SIZE]
    dotted = [(ALIASES.get(key, key), value) for key, value in pairs if key not in (*PRESET_SECTIONS, SIZE)]
    for key, _ in dotted:
        check_key(key, "the command line", [name.partition("=")[0] for name in own])
    tree: dict[str, Any] = {}
    for layer in layers:
        _overlay(tree, layer)
    given = [(key, _read(key, value)) for key, value in dotted]
    _replace_weights(tree, dict(given), is_named=base is not None or "model" in chosen)
    for key, value in given:
        _put(tree, key.split("."), value)
    engine_options.require_allowed(tree.get("model", {}))
    no_secrets.require_none(tree)
    try:
        return with_protocol(with_engine(_build(tree)))
    except ConfigError as error:
        raise ConfigError(f"{error}{_set_in(tree, str(error))}") from error


def _read(key: str, text: str) -> Tree:
    """Return a value of the command line; a list or a map where one may stand."""
    section, name, *inner = key.split(".")
    hint = HINTS[section][name]
    for _ in inner:
        hint = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else Any
    kind, _ = parts_of(hint)
    return written.read_value(key, text, splits=kind is Any or typing.get_origin(kind) is not None)


def _put(tree: dict[str, Any], path: Sequence[str], value: Tree) -> None:
    """Set one value in a tree; a map goes over the map that is there, by key."""
    name, *inner = path
    below = tree.get(name)
    if inner:
        tree[name] = dict(below) if isinstance(below, dict) else {}
        _put(tree[name], inner, value)
    elif isinstance(value, dict) and isinstance(below, dict):
        for key, item in value.items():
            tree[name] = dict(tree[name])
            _put(tree[name], [key], item)
    else:
        tree[name] = value


def _replace_weights(tree: dict[str, Any], given: Mapping[str, Tree], *, is_named: bool) -> None:
    """Drop the weights that those of the command line replace; without a preset, the model is called like its folder."""
    path, embedded = given.get("model.path"), given.get("model.embedded")
    model = tree["model"] = dict(tree.get("model", {}))
    if path and not embedded:
        model.pop("embedded", None)
        if not is_named and isinstance(path, Written):
            model["name"] = Written(path.text.rstrip("/").rsplit("/", 1)[-1] or "model", quoted=True)
    elif embedded and not path:
        for key in ("path", "revision", "shape", "weights_gb"):
            model.pop(key, None)


def _set_in(tree: Mapping[str, Any], words: str) -> str:
    """Return the place that sets the key with which the words of an error begin, unless they have it."""
    found = re.match(r"(\w+)\.(\w+)\b", words)
    if found is None or "(set in " in words:
        return ""
    return place_of(tree.get(found[1], {}).get(found[2]))


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
    folder = home.settings_folder()
    users = folder / "icm_hpc" / "defaults.yaml" if folder else None
    files = [Path(site)] if site else []
    files += [users] if users and users.exists() and users not in files else []
    return [_read_defaults(file) for file in files]


def run_folder(run: RunConfig) -> Path:
    """Return the absolute path of a run's folder; without a name, of the folder of all runs."""
    return home.expanded(run.root, instead="run.root without ~").absolute() / run.name


def existing_run(run: RunConfig) -> Path:
    """Return a run's folder; raises ConfigError if none is named, or if it is no run's; FolderError if it cannot be read."""
    if not run.name:
        raise ConfigError("which run? Write run=NAME; python -m icm_hpc.status lists them")
    folder = run_folder(run)
    if not runs.is_run(folder):
        raise ConfigError(f"there is no run {run.name} in {folder.parent}: name one with run=NAME")
    return folder


def load_file(path: Path, arguments: Sequence[str] = ()) -> Config:
    """Return the settings that `path` (a run's config.yaml) holds, with `arguments` over them.

    A cluster preset replaces the whole section, and the preset of another model replaces model and server.
    """
    tree = written.read_yaml(path, saved=True)
    told = tree.pop("format", Written("1"))
    written_as = int(told.text) if isinstance(told, Written) and re.fullmatch("[0-9]{1,4}", told.text) else 0
    if written_as not in range(1, FORMAT + 1):
        shown = told.shown if isinstance(told, Written) else "unknown"
        raise ConfigError(f"{path}: is of format {shown}, which a newer icm_hpc has written: use that one")
    require_sections(tree, path)
    server = tree.get("server", {})
    if written_as == 1 and "mem_gb" in server and not server["mem_gb"]:
        server["mem_gb"] = Written("0", saved=True)  # format 1 said null for all of the memory, which is 0 now
    if written_as <= 2:
        tree.setdefault("search", {})["method"] = Written("single")
    if written_as <= 3:
        tree.setdefault("search", {})["kicks"] = Written("0")
    return load(arguments, base=tree)


def to_yaml(config: Config) -> str:
    """Return every setting as YAML, in the form that `load_file` reads."""
    return written.to_yaml({"format": FORMAT, **dataclasses.asdict(config)})


def package_folder(name: str) -> Path:
    """Return the folder `configs` or `slurm`: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parents[1]
    return here / name if (here / name).is_dir() else here.parent / name


def _split(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    dashed = key.startswith("--") and len(key) > 2
    if not equals or not key or dashed:
        near = f"; did you mean {key[2:].replace('-', '_')}={value or 'true'}?" if dashed else ""
        example = "such as model=smol or search.steps=200"
        near = f"; did you mean task={argument}?" if argument.endswith((".yaml", ".yml")) else near
        raise ConfigError(f"{argument!r} is not a setting: write key=value, {example}{near}")
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


def _layers_of_run(base: Mapping[str, Any], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a run's settings without the sections that chosen presets replace, and the defaults files' settings of those."""
    before = base.get("model", {}).get("name")
    other_model = "model" in chosen and not (isinstance(before, Written) and before.text == chosen["model"])
    replaced = [*(["cluster"] if "cluster" in chosen else []), *(["model", "server"] if other_model else [])]
    kept = {section: values for section, values in base.items() if section not in replaced}
    if "server" in replaced and base.get("server", {}).get("url"):
        kept["server"] = {"url": base["server"]["url"]}
    files = defaults() if replaced else []
    return [
        kept,
        *({section: values for section, values in file.tree.items() if section in replaced} for file in files),
    ]


def _overlay(tree: dict[str, Any], layer: Mapping[str, Mapping[str, Any]]) -> None:
    """Put a layer of settings over a tree of them: by key, and in maps of any keys by those."""
    if any((layer.get("model") or {}).get(key) for key in ("engine", "path", "embedded")):
        tree["model"] = {key: value for key, value in tree.get("model", {}).items() if key not in WEIGHTS}
    for section, values in layer.items():
        below = tree.setdefault(section, {})
        for key, value in values.items():
            merges = f"{section}.{key}" in MERGED and isinstance(value, dict) and isinstance(below.get(key), dict)
            below[key] = {**below[key], **value} if merges else value


def _read_defaults(path: Path) -> Defaults:
    """Read a file of defaults: sections as in a preset; `model: NAME` or `model: {preset: NAME, ...}` names a preset."""
    tree, names = written.read_yaml(path), {}
    for section in [section for section in PRESET_SECTIONS if section in tree]:
        value = tree[section]
        name = value.pop("preset", None) if isinstance(value, dict) else value
        if isinstance(value, Written):
            tree[section] = {}
        if name is None or isinstance(name, list) or (isinstance(name, Written) and not name):
            continue
        if not isinstance(name, Written) or not name.text or (name.tag != written.TEXT and not name.quoted):
            shown = name.text if isinstance(name, Written) else "preset"
            raise ConfigError(f"{path}: {section}: {shown} is neither the name of a preset nor a section with keys")
        names[section] = name.text
        if name.text.endswith((".yaml", ".yml")):
            names[section] = str(path.absolute().parent / Path(name.text).expanduser())
        elif name.text not in presets(section):
            raise ConfigError(f"{path}: {_no_such_preset(section, name.text)}")
    require_sections(tree, path)
    root = tree.get("run", {}).get("root")
    if isinstance(root, Written):
        tree["run"]["root"] = dataclasses.replace(root, text=_with_shell_variables(_with_variables(root), path))
    return Defaults(path, names, tree)


def _with_shell_variables(value: str, path: Path) -> str:
    """Return a path of a site's file, in which $USER is each user's."""
    whole = os.path.expandvars(value)
    if "$" in whole:
        raise ConfigError(f"{path}: run.root={value}: a variable in it is not set")
    return whole


def _with_variables(root: Written) -> str:
    """Return run.root with its ${oc.env:NAME} replaced; any other ${...} stays as it is."""
    if "${oc.env:" not in root.text:
        return root.text
    literal = re.sub(r"\$\{(?!oc\.env:)", r"\\${", root.text)
    try:
        return str(OmegaConf.to_container(OmegaConf.create({"root": literal}), resolve=True)["root"])  # type: ignore[index, call-overload]
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0].rsplit(": ", 1)[-1].strip('"')
        raise ConfigError(f"run.root={root.shown}: {said}{place_of(root)}") from error


def _preset(section: str, name: str) -> dict[str, dict[str, Any]]:
    """Read one preset: a file of this section in $ICM_CONFIGS or the package, or a path that ends in .yaml.

    A task may also be a .py file, or what another package brings.
    """
    if section == "task" and name.endswith(".py"):
        path = home.expanded(name, instead="a path without ~").absolute()
        return {section: {"name": Written(str(path), quoted=True)}}
    if section == "task" and name not in presets(section) and metadata.entry_points(group=TASK_PLUGINS, name=name):
        return {section: {"name": Written(name, quoted=True)}}
    if name.endswith((".yaml", ".yml")):
        path = home.expanded(name, instead="a path without ~")
        if not home.holds(path):
            raise ConfigError(f"{section}={name}: there is no such file")
        stem = path.stem
    else:
        files = presets(section)
        if name not in files:
            raise ConfigError(_no_such_preset(section, name))
        path, stem = files[name], name
    tree = written.read_yaml(path)
    require_sections(tree, path)
    values = tree.get(section, {})
    if section == "task" and not values:
        raise ConfigError(f"{path}: has no section task: write task.prompt and task.labels (docs/your-data.md)")
    named = {} if section == "task" and "prompt" not in values else {"name": Written(stem, quoted=True)}
    tree[section] = {**named, **values}
    for key in ("data", "test") if section == "task" else ():
        rows = values.get(key)
        if isinstance(rows, Written) and rows and home.holds(path.parent / rows.text):  # else as from the command line
            tree[section][key] = dataclasses.replace(rows, text=str((path.parent / rows.text).absolute()))
    return tree


def _size(name: str, *, is_new: bool) -> dict[str, dict[str, Any]]:
    """Read the preset of the size of an experiment."""
    if not is_new:
        raise ConfigError(f"{SIZE}={name}: is for a new run; give the settings themselves")
    files = presets(SIZE)
    if name not in files:
        raise ConfigError(_no_such_preset(SIZE, name))
    tree: dict[str, dict[str, Any]] = written.read_yaml(files[name])
    require_sections(tree, files[name])
    return tree


def _no_such_preset(section: str, name: str) -> str:
    files = presets(section)
    if section == "task" and home.holds(Path(name)) and Path(name).is_file():
        return f"task={name}: is no YAML file: describe it in one, by task.data, prompt and labels (docs/your-data.md)"
    return f"{section}={name}: no such preset{nearest(name, list(files))}; there are {', '.join(sorted(files))}"


def _build(tree: Mapping[str, Any]) -> Config:
    sections = {}
    for section, kind in SECTIONS.items():
        given = dict(tree.get(section, {}))
        root = given.get("root") if section == "run" else None
        if isinstance(root, Written) and not root.saved:
            given["root"] = dataclasses.replace(root, text=_with_variables(root))
        for key in given:
            given[key] = _in_full(f"{section}.{key}", given[key])
        times = [field.name for field in dataclasses.fields(kind) if field.metadata.get("is_time")]
        hints = HINTS[section]
        values = {
            key: value_of(value, hints[key], f"{section}.{key}", is_time=key in times) for key, value in given.items()
        }
        try:
            sections[section] = kind(**values)
        except ValueError as error:
            said = str(error).replace("\n", "\\n")  # of a value
            raise ConfigError(f"{section}.{said}") from error
    return Config(**sections)


def _in_full(dotted: str, tree: Tree) -> Tree:
    """Return a map for the short form of one."""
    if isinstance(tree, list) and SHORT_FORMS.get(dotted) is list:
        return {str(number): item for number, item in enumerate(tree)}
    if isinstance(tree, Written) and SHORT_FORMS.get(dotted) is Written and tree:
        return {"else": tree}
    return tree
