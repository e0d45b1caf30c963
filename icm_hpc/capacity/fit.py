"""Whether a model fits the GPUs that are to serve it: arithmetic, a forecast and not a measurement."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..config.place import nodes_for
from .forecast import ModelShape

# Of each GPU, beside weights, activations and cache: CUDA's context, NCCL's buffers, CUDA graphs. An assumption.
RESERVED_GB = 2.5
SPARE = 2  # longest prompts for which what is proposed has room: the forecast is not exact
SMALLER_BATCH = 8192  # tokens a step, which every GPU has room for


@dataclass(frozen=True, slots=True)
class Model:
    """What is loaded."""

    shape: ModelShape
    weights_bytes: float
    value_bytes: float  # of an activation
    kv_value_bytes: float  # of a key's or value's component


@dataclass(frozen=True, slots=True)
class Serving:
    """How it is served."""

    tensor: int  # GPUs that share each layer
    pipeline: int  # groups of GPUs, each with a part of the layers
    replicas: int
    nodes: int
    context: int  # max_model_len, tokens
    batch_tokens: int  # max_num_batched_tokens
    sequences: int  # max_num_seqs
    memory_share: float  # gpu_memory_utilization
    asked_per_node: int | None = None  # GPUs that the settings ask for on each node, where they do

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.tensor * self.pipeline * self.replicas


@dataclass(frozen=True, slots=True)
class Hardware:
    """On what."""

    gpu_memory_gb: float
    node_gpus: int
    max_nodes: int | None


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """What one GPU's memory is used for, GB (1e9 bytes)."""

    usable: float
    weights: float
    activations: float
    cache: float  # what is left for keys and values; below 0 if there is nothing
    cache_tokens: int  # that one replica can hold


def gpu_memory(model: Model, serving: Serving, memory_gb: float) -> GpuMemory:
    """Return how one GPU's memory is shared out.

    Activations are of one step of `batch_tokens`: the residual stream four times, the feed-forward layer three times, and
    two copies of the logits of `sequences` in float32.
    """
    shape = model.shape
    usable = memory_gb * serving.memory_share
    weights = model.weights_bytes / (serving.tensor * serving.pipeline) / 1e9
    streams = 4 * shape.hidden + 3 * shape.intermediate / serving.tensor
    logits = 2 * serving.sequences * shape.vocabulary * 4
    activations = (serving.batch_tokens * streams * model.value_bytes + logits) / 1e9
    cache = usable - weights - activations - RESERVED_GB
    heads, layers = math.ceil(shape.kv_heads / serving.tensor), math.ceil(shape.layers / serving.pipeline)
    token_bytes = 2 * layers * heads * shape.head_dim * model.kv_value_bytes
    return GpuMemory(usable, weights, activations, cache, max(0, int(cache * 1e9 / token_bytes)))


def misfits(model: Model, serving: Serving, hardware: Hardware | None) -> list[str]:
    """Return what of a configuration cannot work, each with its arithmetic; memory is not checked without `hardware`."""
    found = [*spreading_misfits(serving), *_splitting_misfits(model.shape, serving)]
    positions = model.shape.max_positions
    if positions is not None and serving.context > positions:
        found.append(
            f"model.max_model_len={serving.context}, but the model was trained for contexts of {positions} tokens"
        )
    if hardware is None:
        return found
    each = serving.gpus / serving.nodes
    if each > hardware.node_gpus:
        found.append(
            f"{serving.gpus} GPUs (tensor {serving.tensor} x pipeline {serving.pipeline} x {serving.replicas} replicas) on"
            f" {serving.nodes} nodes are {each:g} a node, which has {hardware.node_gpus}"
        )
    if hardware.max_nodes is not None and serving.nodes > hardware.max_nodes:
        gpus = hardware.max_nodes * hardware.node_gpus
        usable = gpus * hardware.gpu_memory_gb * serving.memory_share
        found.append(
            f"{serving.nodes} nodes are asked for, and cluster.max_nodes={hardware.max_nodes}: {usable:.0f} GB usable of its"
            f" {gpus} GPUs, for {model.weights_bytes / 1e9:.0f} GB of weights and the rest"
        )
    return [*found, *_memory_misfits(model, serving, hardware)]


def _splitting_misfits(shape: ModelShape, serving: Serving) -> Iterator[str]:
    tensor, kv_heads = serving.tensor, shape.kv_heads
    if shape.heads % tensor:
        yield f"model.tensor_parallel_size={tensor} does not divide the model's {shape.heads} attention heads"
    if max(kv_heads, tensor) % min(kv_heads, tensor):
        yield f"model.tensor_parallel_size={tensor} and the model's {kv_heads} key heads: one must be a multiple of the other"
    if shape.intermediate % tensor:
        yield f"model.tensor_parallel_size={tensor} does not divide the model's feed-forward width {shape.intermediate}"
    if serving.pipeline > shape.layers:
        yield f"model.pipeline_parallel_size={serving.pipeline} is more than the model's {shape.layers} layers"


def spreading_misfits(serving: Serving) -> Iterator[str]:
    """Yield why GPUs and replicas cannot be spread over the nodes; no model need be known."""
    asked = serving.asked_per_node
    if asked is not None and asked * serving.nodes < serving.gpus:
        yield (
            f"the model requires {serving.gpus} GPUs, and server.nodes={serving.nodes} x server.gpus_per_node={asked} are"
            f" {asked * serving.nodes}"
        )
    if serving.gpus % serving.nodes:
        yield f"{serving.gpus} GPUs cannot be spread evenly over {serving.nodes} nodes"
    if serving.replicas % serving.nodes and serving.nodes % serving.replicas:
        yield f"{serving.replicas} replicas and {serving.nodes} nodes: one must be a multiple of the other"


def _memory_misfits(model: Model, serving: Serving, hardware: Hardware) -> Iterator[str]:
    has = gpu_memory(model, serving, hardware.gpu_memory_gb)
    parts = (
        f"{has.usable:.1f} GB usable of a GPU ({hardware.gpu_memory_gb:g} x {serving.memory_share:g}):"
        f" {has.weights:.1f} for weights ({model.weights_bytes / 1e9:.0f} GB / {serving.tensor * serving.pipeline} GPUs),"
        f" {has.activations:.1f} for activations and {RESERVED_GB:g} for CUDA and NCCL"
    )
    if has.cache <= 0:
        yield f"the weights do not fit: {parts} leave {has.cache:.1f}"
    elif has.cache_tokens < serving.context:
        yield (
            f"the cache cannot hold one prompt of model.max_model_len={serving.context} tokens: {parts} leave"
            f" {has.cache:.1f} GB, keys and values of {has.cache_tokens} tokens"
        )


def nearest(
    model: Model, serving: Serving, hardware: Hardware, needed_context: int, others: Mapping[str, tuple[Model, Serving]]
) -> list[str]:
    """Return settings under which the model, or one of `others` (by preset), fits: at most one on this hardware and one on
    more nodes of it, each as few GPUs as will do.
    """
    found = _first_fit(model, serving, hardware, needed_context)
    if found is not None:
        changes = _changes(serving, found)
        return [changes] if changes else []
    answers = []
    for preset, (other, others_serving) in others.items():
        fitting = _first_fit(other, others_serving, hardware, needed_context)
        if fitting is not None:
            answers.append(f"model={preset} {_changes(others_serving, fitting)}".strip())
            break
    larger = _first_fit(model, serving, replace(hardware, max_nodes=None), needed_context)
    if larger is not None:
        answers.append(f"cluster.max_nodes={larger.nodes} {_changes(serving, larger)}".strip())
    return answers


def _first_fit(model: Model, serving: Serving, hardware: Hardware, needed_context: int) -> Serving | None:
    """Return the first that fits, as few changes and GPUs as there are, or None."""
    for candidate in _candidates(model.shape, serving, hardware, needed_context):
        has = gpu_memory(model, candidate, hardware.gpu_memory_gb)
        if has.cache_tokens >= SPARE * candidate.context and not misfits(model, candidate, hardware):
            return candidate
    return None


def _candidates(shape: ModelShape, serving: Serving, hardware: Hardware, needed_context: int) -> Iterator[Serving]:
    contexts = dict.fromkeys((max(serving.context, needed_context), needed_context))
    batches = dict.fromkeys((serving.batch_tokens, min(serving.batch_tokens, SMALLER_BATCH)))
    smaller = [replace(serving, context=context, batch_tokens=batch) for context in contexts for batch in batches]
    yield from smaller
    splits = [
        (tensor, pipeline)
        for tensor in range(1, hardware.node_gpus + 1)
        for pipeline in range(1, 9)
        if shape.heads % tensor == 0 and (pipeline == 1 or tensor == hardware.node_gpus)
    ]
    for tensor, pipeline in sorted(splits, key=math.prod):
        gpus = tensor * pipeline * serving.replicas
        nodes = nodes_for(gpus, serving.replicas, hardware.node_gpus)
        asked = None if serving.asked_per_node is None else gpus // nodes
        for one in smaller:
            yield replace(one, tensor=tensor, pipeline=pipeline, nodes=nodes, asked_per_node=asked)


def _changes(before: Serving, after: Serving) -> str:
    settings = {
        "model.tensor_parallel_size": (before.tensor, after.tensor),
        "model.pipeline_parallel_size": (before.pipeline, after.pipeline),
        "server.nodes": (before.nodes, after.nodes),
        "server.gpus_per_node": (before.asked_per_node, after.asked_per_node),
        "model.max_model_len": (before.context, after.context),
        "model.max_num_batched_tokens": (before.batch_tokens, after.batch_tokens),
    }
    return " ".join(f"{key}={new}" for key, (old, new) in settings.items() if old != new)
