"""Every setting: frozen dataclasses with their defaults and ranges; OmegaConf stays inside this file.

Command line over presets over defaults: `model=405B task=claims search.steps=200 cluster.time_min=600`.
"""

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import ConfigError

PRESET_SECTIONS = ("model", "task", "cluster")
# What a setting left empty is, by search.protocol: the published search, and what we mend in it.
PROTOCOLS: dict[str, dict[str, str]] = {
    "default": {
        "search.layout": "trie",
        "search.scoring": "exact",
        "search.stalled_repair": "stop",
        "search.result": "best",
        "task.draw": "groups",
    },
    "reference": {
        "search.layout": "reference",
        "search.scoring": "top20",
        "search.stalled_repair": "repeat",
        "search.result": "last",
        "task.draw": "blocks",
    },
}


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


def _require_one_of(section: object, **choices: tuple[str, ...]) -> None:
    for key, allowed in choices.items():
        value = getattr(section, key)
        _require(value in allowed, f"{key}={value}: one of {', '.join(filter(None, allowed))}")


def _require_at_least(section: object, least: float, *keys: str) -> None:
    for key in keys:
        value = getattr(section, key)
        _require(value is None or value >= least, f"{key}={value}: {least} or more")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What is served, and the engine's options; a preset of configs/model/ sets them."""

    name: str = "smol"
    engine: str = "vllm"  # vllm, or stub: deterministic answers without a model
    path: str = ""  # a folder of weights, or a Hugging Face name
    embedded: str | None = None  # weights that need no download: a name in weights.EMBEDDED
    revision: str | None = None
    dtype: str = "auto"
    max_model_len: int = 8192  # tokens
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    vllm_args: dict[str, Any] = field(default_factory=dict)  # other vLLM options: {block-size: 32, enforce-eager: true}
    env: dict[str, str] = field(default_factory=dict)  # environment of the engine

    def __post_init__(self) -> None:
        _require_one_of(self, engine=("vllm", "stub"))
        _require(bool(self.path) != bool(self.embedded), "exactly one of path and embedded names the weights")
        _require(self.max_model_len >= 16, f"max_model_len={self.max_model_len}: at least 16 tokens")
        _require_at_least(
            self, 1, "tensor_parallel_size", "pipeline_parallel_size", "max_num_seqs", "max_num_batched_tokens"
        )
        share = self.gpu_memory_utilization
        _require(0 < share <= 1, f"gpu_memory_utilization={share}: over 0, at most 1")

    @property
    def gpus(self) -> int:
        """GPUs that one replica needs."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The server component: its resources, and how long the driver waits for it."""

    nodes: int = 1
    gpus_per_node: int | None = None  # default: what the model's parallel sizes ask for
    cpus: int | None = None  # per node; default: the whole node
    mem_gb: int | None = None  # per node; default: all of it
    start_timeout_s: float = 1800.0  # from the start of the component to the first scored completion
    request_timeout_s: float = 600.0  # a server that needs longer is taken to hang, and started anew
    max_restarts: int = 3  # of the engine, after it has served, in one start of the job
    request_mb: float = 4.0  # prompts are sent together in requests of about this size
    requests_in_flight: int = 16

    def __post_init__(self) -> None:
        _require_at_least(self, 1, "nodes", "cpus", "mem_gb", "requests_in_flight")
        _require_at_least(self, 0, "gpus_per_node", "max_restarts")
        for key in ("start_timeout_s", "request_timeout_s", "request_mb"):
            _require(getattr(self, key) > 0, f"{key}={getattr(self, key)}: over 0")
        _require(self.nodes == 1, f"nodes={self.nodes}: this version serves from one node")


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """The examples to label, and the words that the labels are."""

    name: str = "reviews"  # a name in tasks.TASKS
    data: str | None = None  # a .json or .jsonl file, or a Hugging Face data set name
    subset: str | None = None  # of a Hugging Face data set, as `multiple_choice`
    split: str = "train"  # of a Hugging Face data set
    limit: int | None = None  # label only this many examples, drawn by search.seed
    draw: str = (
        ""  # groups: whole groups in random order; blocks: as published, rows by position (search.protocol decides)
    )
    label_words: list[str] | None = None  # instead of the task's own; each one token, in the order of label 0, 1, ...

    def __post_init__(self) -> None:
        _require_at_least(self, 2, "limit")
        _require_one_of(self, draw=("", "groups", "blocks"))
        words = self.label_words
        _require(words is None or len(set(words)) == len(words) >= 2, "label_words: two or more, all different")


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """The simulated annealing (Wen et al. 2025, section 3)."""

    seed: int = 0
    steps: int = 200
    restarts: int = 1  # searches from so many seeds, seed, seed+1, ...; the best is the result
    pool_size: int | None = None  # examples searched together, at most; more are split into shards, by group
    parallel_searches: int = 4  # shards and restarts that share the server at one time
    ahead: int | None = None  # steps worked out at once, as if refused; default: as many as pay
    memo_mb: float = 16.0  # scores of each search that are remembered, and saved with its state
    protocol: str = "default"  # or reference, the published search: decides what is left empty
    layout: str = ""  # trie; grouped: as published for an evaluation; reference: as published, three orders
    scoring: str = ""  # exact: log P(label token); top20: as published, label names in the 20 likeliest tokens
    stalled_repair: str = ""  # stop, or repeat: as published, rounds that improve nothing are done again to the limit
    result: str = ""  # best labelling that was accepted, or last: as published
    objective: str = (
        "margin"  # nats: log P(label) - log P(the others), as published code; logprob: log P(label), the paper
    )
    alpha: float = 30.0  # weight of the objective's mean against one conflicting pair
    num_seeds: int = 8  # examples that start with a random label
    schedule: str = "log"
    initial_temperature: float = 10.0
    final_temperature: float = 0.01
    decay: float = 0.99  # of schedule=exp, per flip
    seed_repair_rounds: int = 10  # of the seeds' conflicts
    repair_rounds: int = 10  # of a proposal's
    linked_weight: float = 100.0  # draw weight of an unlabelled example with a labelled one in its group

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, f"seed={self.seed}: 0 to 4294967295")
        _require_at_least(self, 0, "steps", "alpha", "num_seeds", "seed_repair_rounds", "repair_rounds")
        _require_at_least(self, 0, "memo_mb")
        _require_at_least(self, 1, "restarts", "parallel_searches", "ahead")
        _require_at_least(self, 2, "pool_size")
        _require_one_of(
            self,
            protocol=tuple(PROTOCOLS),
            layout=("", "trie", "grouped", "reference"),
            scoring=("", "exact", "top20"),
            stalled_repair=("", "stop", "repeat"),
            result=("", "best", "last"),
            objective=("margin", "logprob"),
            schedule=("log", "exp", "constant"),
        )
        _require(0 < self.final_temperature <= self.initial_temperature, "0 < final_temperature <= initial_temperature")
        _require(0 < self.decay <= 1, f"decay={self.decay}: over 0, at most 1")
        _require(self.linked_weight > 0, f"linked_weight={self.linked_weight}: over 0")


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Where the run's two components run; a preset of configs/cluster/ that a site owns."""

    name: str = "local"
    executor: str = "local"  # local, or slurm
    driver_partition: str | None = None
    server_partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time_min: int = 1440
    driver_cpus: int = 2
    driver_mem_gb: int = 8
    signal_s: int = 120  # the driver is signalled this long before the time limit
    on_preempt: str = "requeue"  # told to stop, as by a preemption or the time limit, the job goes on in the same job;
    # resubmit: in a new job, for sites that forbid requeues; stop: when it is resumed by hand
    max_attempts: int = 100  # starts of the driver, by requeue or resubmission, until someone resumes the run by hand
    gpu_flag: str = "gres"  # gres: --gres=gpu:N; gpus: --gpus-per-node=N; none: no GPU flag
    driver_flags: list[str] = field(default_factory=list)  # further sbatch flags, such as --constraint=cpu
    server_flags: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)  # shell lines before the components start, such as module load cuda

    def __post_init__(self) -> None:
        _require_one_of(
            self,
            executor=("local", "slurm"),
            on_preempt=("requeue", "resubmit", "stop"),
            gpu_flag=("gres", "gpus", "none"),
        )
        _require_at_least(self, 1, "time_min", "driver_cpus", "driver_mem_gb", "signal_s", "max_attempts")
        _require(
            self.time_min * 60 > 2 * self.signal_s,
            f"time_min={self.time_min}: more than twice signal_s={self.signal_s}, which is kept for the end",
        )
        flags = (*self.driver_flags, *self.server_flags)
        _require(all(re.fullmatch(r"--\S+", flag) for flag in flags), "driver_flags, server_flags: each --name=value")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The run's folder and how often it is saved."""

    name: str = ""  # default: made of task, model and the time
    root: str = "runs"  # on Slurm: a file system that all nodes see
    save_interval_s: float = 30.0

    def __post_init__(self) -> None:
        legal = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*|", self.name)
        _require(legal is not None, f"name={self.name}: letters, digits, '.', '_', '-', no leading sign")
        _require_at_least(self, 0, "save_interval_s")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a run."""

    model: ModelConfig
    server: ServerConfig
    task: TaskConfig
    search: SearchConfig
    cluster: ClusterConfig
    run: RunConfig


SECTIONS: dict[str, type] = {str(name): kind for name, kind in typing.get_type_hints(Config).items()}


def load(arguments: Sequence[str], *, base: Mapping[str, Any] | None = None) -> Config:
    """Return the settings that command-line `arguments` (`key=value`) give over presets, or over `base`, over defaults.

    Raises ConfigError for a word without `=`, an unknown key or preset, a wrong type, a value out of range.
    """
    pairs = [_split(argument) for argument in arguments]
    chosen = {key: value for key, value in pairs if key in PRESET_SECTIONS}
    if base is None:
        layers = [_preset(section, chosen.get(section)) for section in PRESET_SECTIONS]
    else:
        layers = [dict(base), *(_preset(section, name) for section, name in chosen.items())]
    dotted = [(("run.name" if key == "run" else key), value) for key, value in pairs if key not in PRESET_SECTIONS]
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


def _preset(section: str, name: str | None) -> dict[str, dict[str, Any]]:
    """Read one preset: a file of this section in $ICM_CONFIGS or the package, or a path that ends in .yaml."""
    name = name or str(SECTIONS[section].__dataclass_fields__["name"].default)  # type: ignore[attr-defined]
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(f"{section}={name}: there is no such file")
        stem = path.stem
    else:
        folders = [Path(folder) / section for folder in (os.environ.get("ICM_CONFIGS"),) if folder]
        files = {f.stem: f for folder in (package_folder("configs") / section, *folders) for f in folder.glob("*.yaml")}
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
    return _with_protocol(Config(**sections))  # type: ignore[arg-type]


def _literal(value: Any) -> Any:
    """Escape what OmegaConf would take for an interpolation of its own: ${HOME} is the shell's."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list) else value


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
