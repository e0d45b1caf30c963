"""Whether a run fits, and what it will cost: lines to read, figures for machines, misfits and what would repair them."""

import os
import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .. import tasks
from ..config import credentials, home, loading
from ..config.fingerprint import draw_the_same_examples, result_settings
from ..config.schema import Config
from ..driver import pools
from ..engines import ENGINES
from ..errors import FitError, IcmError
from ..rundir.folder import RunDir
from ..rundir.measured import Measured
from ..scoring import prompts
from ..serving import weights
from ..tasks import Task
from . import context, disks, executor, fit, reproducible, search_time, time_plan
from .demand import Demand, demand_of, hardware_of, model_of, serving_of
from .executor import EXAMPLE_URL
from .fit import Hardware, Model
from .forecast import GPUS
from .found import Plan

CPU_PROCESS_GB = 2.0  # of the engine's own on CPUs, beside weights and cache; an assumption
TRACE_BYTES = 400  # a step, at most, and beside it
LABELLED_BYTES = 400  # an example in the result, beside its text
CHANGE_BYTES = 12  # for each label that the step changes


def defaults_read() -> dict[str, str]:
    """Return the line that names the files of defaults which were read, if any was."""
    files = [str(one.path) for one in loading.defaults()]
    return {"defaults": ", ".join(files)} if files else {}


def plan(config: Config, task: Task, test: Task | None = None, measured: Measured | None = None) -> Plan:
    """Return what a run will need, and what of it cannot work, its held-out rows included.

    The forecast is from what its server was `measured` to do, where that is known.

    Raises TaskError for label words that cannot be told apart.
    """
    found = Plan()
    folder = weights.on_disk(config.model)
    found.notes.extend([*task.notes, *(test.notes if test else ())])
    demand = demand_of(config, task, folder, test)
    _plan_data(found, config, demand)
    found.misfits += executor.misfits(config)
    if found.misfits:
        found.remedies += executor.remedies(config)
    found.notes += reproducible.notes(config)
    for misfit in reproducible.misfits(config):
        found.misfits.append(misfit)
        found.remedies.append(reproducible.REMEDY)
    model = None
    if config.external_url is not None:
        found.lines["server"] = f"{config.external_url} runs already, none is started"
    elif ENGINES[config.model.engine].has_weights:
        model = _plan_weights(found, config, folder)
        _plan_serving(found, config, model, demand)
    clock = search_time.clock_of(config, model, measured)
    if clock and found.fits:
        time_plan.add(found, config, clock, demand)
    _plan_context(found, config, model, demand, task=task, folder=folder)
    _plan_disk(found, config, demand)
    return found


@dataclass(frozen=True, slots=True)
class Command:
    """What the user typed, so that a refusal can end in a command that works."""

    module: str  # submit, resume or apply
    words: tuple[str, ...]  # settings
    run_config: Path | None = None  # of the run that is resumed, or applied
    implied: tuple[str, ...] = ()  # settings that the command itself makes, under those of the user

    def settings(self) -> Config:
        """Return the settings that these words stand for, with their executor decided."""
        if self.run_config:  # a resume looks for no server but the run's own
            return executor.resolved(loading.load_file(self.run_config, (*self.implied, *self.words)))[0]
        return executor.resolved(credentials.addressed(loading.load(self.words))[0])[0]

    def with_(self, remedy: str) -> "Command":
        """Return this command with the settings of a remedy instead of its own."""
        return replace(self, words=tuple(executor.changed(self.words, remedy)))

    def __str__(self) -> str:
        return shlex.join(["python", "-m", f"icm_hpc.{self.module}", *self.words])


def require_fit(found: Plan, command: Command | None = None) -> None:
    """Raise FitError for a plan that cannot work, with the arithmetic, with what would fit, and with a command that does."""
    if found.fits:
        return
    told = "".join(f"\n  - {misfit}" for misfit in found.misfits)
    remedies = "".join(f"\n  fits: {remedy}" for remedy in (fitting(found, command) if command else found.remedies))
    works = working_command(found, command) if command else None
    remedies += f"\nthis works:\n  {works}" if works else ""
    raise FitError(f"this run cannot work, so it was not started:{told}{remedies}")


def fitting(found: Plan, command: Command) -> list[str]:
    """Return the remedies each of which alone makes the user's command fit, by the plan of that command."""
    return [remedy for remedy in found.remedies if (planned := _planned(command.with_(remedy))) and planned.fits]


def working_command(found: Plan, command: Command, changes: int = 3) -> Command | None:
    """Return a command whose plan fits: the user's, with at most so many remedies of plans on it; None if none is found."""
    for remedy in found.remedies if changes else []:
        other = command.with_(remedy)
        planned = None if EXAMPLE_URL in remedy else _planned(other)
        if planned is not None:
            works = other if planned.fits else working_command(planned, other, changes - 1)
            if works:
                return works
    return None


def _planned(command: Command) -> Plan | None:
    """Return the plan of a command, or None if its settings are refused."""
    try:
        config, copy = command.settings(), None
        if command.module == "resume" and command.run_config and _would_be_refused(config, command.run_config):
            return None
        if command.run_config and draw_the_same_examples(config, loading.load_file(command.run_config)):
            copy = RunDir(command.run_config.parent).data
        task = tasks.load(config.task, seed=config.search.seed, copy=copy, least=pools.least(config))
        return plan(config, task, tasks.load_test(config.task, task, seed=config.search.seed))
    except IcmError:
        return None


def _would_be_refused(config: Config, run_config: Path) -> bool:
    """Return whether a run with saved state cannot be resumed with these settings."""
    saved = result_settings(loading.load_file(run_config))
    return RunDir(run_config.parent).has_state() and result_settings(config) != saved


def _plan_data(found: Plan, config: Config, demand: Demand) -> None:
    context, longest = config.model.max_model_len, demand.longest
    examples, shards = sum(len(part.examples) for part, _ in demand.every), len(demand.parts)
    split = f"{shards} shard{'s' if shards > 1 else ''}"
    if demand.beyond:
        pool, beyond = len(demand.parts[0][0].examples), len(demand.beyond[0].examples)
        split = f"a pool of {pool}, and {beyond:,} beyond it"
        if demand.pool_is_given:
            split = f"no search, behind the pool of {pool} of {config.search.pool_run}"
        found.figures["beyond"] = beyond
    how = "counted with the model's tokenizer" if demand.counted else "estimated: its tokenizer is not on this disk"
    found.lines["data"] = (
        f"{config.task.name}: {examples} examples in {split}; prompts of up to"
        f" {longest:,} tokens ({how}), model.max_model_len={context:,}"
    )
    found.figures |= {"examples": examples, "shards": shards, "longest_prompt_tokens": longest}
    found.figures["tokens_counted"] = demand.counted
    if prior := search_time.prior_cost(config, demand):
        found.lines["prior"] = f"estimated by {prior.prompts:,} prompts of one example ({prior.prompt_tokens:,} tokens)"
        found.figures |= {"prior_prompts": prior.prompts, "prior_tokens": prior.prompt_tokens}
    found.notes += dict.fromkeys(
        caution for _, tokens in demand.every for caution in prompts.cautions(tokens, config.search.scoring)
    )


def _plan_context(
    found: Plan, config: Config, model: Model | None, demand: Demand, *, task: Task, folder: Path | None
) -> None:
    """Check that the longest prompt fits; what lacks certainty is no misfit."""
    most = config.model.max_model_len
    if demand.at_least <= most < demand.at_most:
        found.notes.append(
            f"the longest prompt may be {demand.at_most:,} tokens, for it is estimated: then it does not fit"
        )
    if demand.at_least <= most:
        return
    alone = found.fits
    found.misfits.append(context.misfit(demand, config))
    hardware = hardware_of(config)
    if not alone and hardware is None:
        found.remedies = executor.remedies(config) if executor.misfits(config) else []  # no other repairs any of it
    if not alone:
        return  # what would fit the rest holds this prompt too
    size = context.pool_size(demand, config, task, folder)
    if size is not None:
        found.remedies.append(f"search.pool_size={size}")
    elif (one := context.longest(demand)) and one.tokens <= most:
        found.notes.append(f"no search.pool_size helps: the longest example is {one.id!r}, {one.tokens:,} tokens")
    if model and hardware:
        found.remedies += _remedies(config, model, hardware, demand)
    elif model is None or model.shape.max_positions is None or demand.context <= model.shape.max_positions:
        found.remedies.append(f"model.max_model_len={demand.context}")


def _plan_weights(found: Plan, config: Config, folder: Path | None) -> Model | None:
    """Return what is loaded, or None if that is not known."""
    configured = config.model
    model = model_of(configured, folder)
    name = configured.embedded or configured.path
    if configured.embedded is None and folder is None and weights.is_folder_name(configured.path):
        _of_the_servers_disk(found, config).append(f"model.path={configured.path}: there is no such folder here")
    if model is None:
        found.lines["model"] = f"{name}: its size is not known"
        found.notes.append(
            "neither the model's config.json is on this disk nor model.shape is set: memory is not checked"
        )
        return None
    source = "of its files" if folder and weights.weights_bytes(folder) else "of model.weights_gb or model.shape"
    found.lines["model"] = (
        f"{name}: {model.shape.parameters / 1e9:.1f} G parameters, {model.weights_bytes / 1e9:,.1f} GB of weights ({source})"
    )
    found.figures |= {"parameters": model.shape.parameters, "weights_gb": model.weights_bytes / 1e9}
    return model


def _plan_serving(found: Plan, config: Config, model: Model | None, demand: Demand) -> None:
    found.lines["server"] = _nodes_line(config)
    found.figures |= {"nodes": config.nodes, "gpus": config.nodes * config.gpus_per_node}
    serving, hardware = serving_of(config), hardware_of(config)
    if config.gpus_per_node and hardware is None:
        kind = config.cluster.gpu
        why = " is not set" if kind is None else f"={kind} is unknown; known: {', '.join(GPUS)}"
        found.notes.append(f"cluster.gpu{why}; GPU memory and time are not forecast")
    if model is None:
        found.misfits += fit.spreading_misfits(serving)
        return
    misfits = fit.misfits(model, serving, hardware)
    found.misfits += misfits
    if hardware is None:
        _plan_host_memory(found, config, model)
    elif misfits:
        found.remedies += _remedies(config, model, hardware, demand)
    else:
        _plan_memory(found, config, model, hardware, demand)


def _nodes_line(config: Config) -> str:
    model, server = config.model, config.server
    split = (
        f"tensor {model.tensor_parallel_size} x pipeline {model.pipeline_parallel_size} x {server.replicas} replicas"
    )
    nodes = f"{config.nodes} node{'s' if config.nodes > 1 else ''}"
    if config.gpus_per_node == 0:
        return f"{nodes}, no GPU ({split})"
    return f"{nodes} with {config.gpus_per_node} x {config.cluster.gpu or 'GPU'} ({split})"


def _remedies(config: Config, model: Model, hardware: Hardware, demand: Demand) -> list[str]:
    """Return settings that would fit, of this model or of its FP8 preset."""
    name = f"{config.model.name}-FP8"
    others = {}
    if name in loading.presets("model"):
        sibling = loading.load([f"model={name}", f"cluster.gpu={config.cluster.gpu}"])
        loaded = model_of(sibling.model, weights.on_disk(sibling.model))
        if loaded is not None:
            others[name] = (loaded, serving_of(sibling))
    return fit.nearest(model, serving_of(config), hardware, demand.context, others)


def _plan_memory(found: Plan, config: Config, model: Model, hardware: Hardware, demand: Demand) -> None:
    has = fit.gpu_memory(model, serving_of(config), hardware.gpu_memory_gb)
    cost = max(
        (search_time.cost(config, part, tokens) for part, tokens in demand.parts), key=lambda one: one.held_tokens
    )
    together = min(config.search.parallel_searches, len(demand.parts) * config.search.restarts)
    wanted, holds = cost.held_tokens * together, has.cache_tokens * config.server.replicas
    found.lines["GPU memory"] = (
        f"{has.usable:.1f} GB usable: {has.weights:.1f} weights, {has.activations:.1f} activations,"
        f" {fit.RESERVED_GB:g} CUDA and NCCL, {has.cache:.1f} cache"
    )
    found.lines["cache"] = f"{holds:,} tokens; scorings that run together want {wanted:,}"
    found.figures |= {"gpu_memory_gb": asdict(has), "cache_tokens": holds, "cache_tokens_wanted": wanted}
    if wanted > holds:
        found.notes.append(
            "the cache cannot keep what scorings share: each is computed again; lower search.parallel_searches or"
            " search.pool_size, or set model.kv_cache_dtype=fp8"
        )


def _plan_host_memory(found: Plan, config: Config, model: Model) -> None:
    """Check the memory of a server without GPUs, whose weights and cache are in it."""
    engine, mem_gb = ENGINES[config.model.engine], config.server.mem_gb
    cache_gb = engine.cpu_cache_gb(config.model) if engine.cpu_cache_gb else None
    if config.gpus_per_node or not mem_gb or config.cluster.executor != "slurm" or cache_gb is None:
        return
    each = config.workers / config.nodes
    split = config.model.tensor_parallel_size * config.model.pipeline_parallel_size
    weights_gb = model.shape.parameters * model.value_bytes / split / 1e9
    wanted = each * (weights_gb + cache_gb + CPU_PROCESS_GB)
    found.lines["memory"] = (
        f"{wanted:.1f} GB a node: {each:g} x ({weights_gb:.1f} weights, {cache_gb:.1f} cache, {CPU_PROCESS_GB:g}"
        f" {engine.product}); server.mem_gb={mem_gb}"
    )
    if wanted > mem_gb:
        found.misfits.append(f"the server requires {wanted:.1f} GB of memory a node, and server.mem_gb={mem_gb}")
        found.remedies.append(f"server.mem_gb={-(-wanted // 1):.0f}")


def _plan_disk(found: Plan, config: Config, demand: Demand) -> None:
    root = home.expanded(config.run.root, instead="run.root without ~").absolute()
    local = disks.of_this_machine_only(root) if config.cluster.executor == "slurm" else None
    if local:
        found.notes.append(
            f"run.root={config.run.root} is on {local}, which each machine has for itself: the job's nodes may not see the"
            " run's folder; set run.root to a folder that all nodes see"
        )
    searches = len(demand.searched) * config.search.restarts
    steps = max((len(search_time.scorings(config, part)) for part, _ in demand.searched), default=0)
    line_bytes = TRACE_BYTES + CHANGE_BYTES * max(len(part.examples) for part, _ in demand.parts)
    run_mb = searches * (4 * config.search.memo_mb + steps * line_bytes / 1e6 + 1)
    run_mb += (
        sum(LABELLED_BYTES + len(example.text.encode()) for part, _ in demand.every for example in part.examples) / 1e6
    )
    free_mb = shutil.disk_usage(_existing(Path(config.run.root))).free / 1e6
    found.lines["disk"] = f"up to {run_mb:,.0f} MB for the run in {config.run.root} ({free_mb / 1e3:,.0f} GB free)"
    if run_mb > free_mb:
        found.notes.append(
            f"the run may take {run_mb:,.0f} MB, and {config.run.root} has {free_mb:,.0f}: choose another run.root"
        )
    wanted_gb = found.figures.get("weights_gb")
    if config.model.embedded or weights.on_disk(config.model) or wanted_gb is None:
        return
    cache = weights.hub_cache(config.model)
    free_gb = shutil.disk_usage(_existing(cache)).free / 1e9
    found.lines["download"] = f"{wanted_gb:,.0f} GB of weights to {cache} ({free_gb:,.0f} GB free)"
    told = _of_the_servers_disk(found, config)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        told.append(f"the weights are not on this disk, and HF_HUB_OFFLINE=1: fetch {config.model.path} first")
    elif wanted_gb > free_gb:
        told.append(
            f"the weights are {wanted_gb:,.0f} GB, and {cache} has {free_gb:,.0f} free: set HF_HOME, or model.path=FOLDER"
        )


def _of_the_servers_disk(found: Plan, config: Config) -> list[str]:
    """Return where to report what this machine's disks lack: the nodes of a cluster may have it."""
    return found.notes if config.cluster.executor == "slurm" else found.misfits


def _existing(path: Path) -> Path:
    """Return the nearest folder above `path` that exists."""
    path = home.expanded(path, instead="a folder without ~").absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
