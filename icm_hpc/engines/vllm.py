"""vLLM: how its OpenAI-compatible server is started. vllm_api is how it is asked and read, vllm_versions what is tested."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import vllm_api, vllm_options, vllm_symptoms, vllm_versions
from .engine import Advice, Engine, Rank, Start
from .vllm_options import REASONS

if TYPE_CHECKING:
    from ..config.schema import ModelConfig

KEY_VARIABLE = "VLLM_API_KEY"
READY_VARIABLE = "VLLM_ENGINE_READY_TIMEOUT_S"  # whole seconds
CPU_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"  # whole GiB
ANY_CONTEXT_VARIABLE = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
# Parts of the keys of config.json by which vLLM knows the longest context (model_arch_config_convertor.py of 0.32.0).
POSITIONS = ("position", "rope", "seq_len", "max_seq", "max_length", "max_sequence")
INVARIANT_VARIABLE = "VLLM_BATCH_INVARIANT"
INVARIANT_BACKEND = "FLASH_ATTN"  # with FLASHINFER, batch invariance turns the prefix cache off
MAX_READY_S = 2_000_000  # vLLM passes it on in milliseconds, to what takes 31 bits


def argv(
    model: "ModelConfig", weights: Path | str, *, host: str, port: int, replicas: int = 1, rank: Rank | None = None
) -> list[str]:
    """Return the command that serves `weights` under the model's name, or one node's rank of it."""
    options: dict[str, Any] = {
        "served-model-name": model.known_as,
        "dtype": model.dtype,
        "max-model-len": model.max_model_len,
        "tensor-parallel-size": model.tensor_parallel_size,
        "pipeline-parallel-size": model.pipeline_parallel_size,
        "gpu-memory-utilization": model.gpu_memory_utilization,
        "max-num-seqs": model.max_num_seqs,
        "max-num-batched-tokens": model.max_num_batched_tokens,
        "enable-prefix-caching": True,
        # Its own key check leaves /invocations, /tokenize and others open (measured with 0.32.0).
        "middleware": "icm_hpc.engines.require_key.RequireKey",
        "disable-uvicorn-access-log": True,
        **_placed(host, port, replicas, rank),
    }
    optional = ("revision", "quantization", "kv_cache_dtype", "block_size", "enforce_eager", "trust_remote_code")
    options.update({name.replace("_", "-"): getattr(model, name) for name in (*optional, "download_dir")})
    if model.front_ends is not None and replicas == 1:
        options["api-server-count"] = model.front_ends
    if model.reproducible:
        options["attention-backend"] = INVARIANT_BACKEND
    # vllm_options refuses what a run sets itself; a run of an older version may still hold it.
    own = {name.replace("_", "-"): value for name, value in model.vllm_args.items()}
    options.update({name: value for name, value in own.items() if name not in REASONS})
    if options.get("headless"):
        options.pop("api-server-count", None)  # it has none, and vLLM refuses to be told how many
    flags = [word for name, value in options.items() for word in _flag(name, value)]
    return [sys.executable, "-m", vllm_symptoms.COMMAND, "serve", str(weights), *flags]


def _placed(host: str, port: int, replicas: int, rank: Rank | None) -> dict[str, Any]:
    """Return the options by which an engine listens, replicates itself, and spreads over nodes."""
    placed: dict[str, Any] = {"data-parallel-size": replicas} if replicas > 1 else {}
    if rank is not None:
        placed |= {"nnodes": rank.nodes, "node-rank": rank.number}
        placed |= {"master-addr": rank.address, "master-port": rank.port}
        if replicas > 1:
            placed["data-parallel-rpc-port"] = rank.rpc_port
        if rank.number > 0:
            return {**placed, "headless": True}
    return {"host": host, "port": port, **placed}


def environment(
    model: "ModelConfig", key: str, *, address: str | None = None, start_timeout_s: float | None = None
) -> Mapping[str, str]:
    """Return the variables that the server is given: the key, no telemetry, its address, its patience, and the preset's own."""
    placed = {"VLLM_HOST_IP": address} if address else {}
    if start_timeout_s is not None:  # its API servers wait 600 s for its engines if not told otherwise
        placed[READY_VARIABLE] = str(min(math.ceil(start_timeout_s), MAX_READY_S))
    invariant = {INVARIANT_VARIABLE: "1"} if model.reproducible else {}
    return {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", **placed, **model.env, **invariant, KEY_VARIABLE: key}


def batch_dependence(_: "ModelConfig", gpus_per_node: int) -> str | None:
    """Return why vLLM's answers depend on the other prompts of a batch, even if it is told that they must not."""
    if gpus_per_node == 0:
        return (
            "vLLM's batch invariance requires NVIDIA GPUs of compute capability 8.0 or more, and the server has no GPU (its CPU"
            " build ends at the first request: measured with 0.32.0)"
        )
    return None


def allows_any_context(model: "ModelConfig") -> bool:
    """Return whether vLLM accepts a longer context than config.json states: a variable says so, or an option overrides it.

    The option rope-scaling is one of older versions.
    """
    overrides = " ".join(str(value) for name, value in model.vllm_args.items() if "overrides" in name)
    return (
        model.env.get(ANY_CONTEXT_VARIABLE) == "1"
        or any(key in overrides for key in POSITIONS)
        or any(name.startswith("rope") for name in model.vllm_args)
    )


def cpu_cache_gb(model: "ModelConfig") -> float | None:
    """Return the GB of a process's cache without GPUs, or None if vLLM chooses it."""
    told = model.env.get(CPU_CACHE_VARIABLE, "")
    return int(told) * 1.074 if told.isdecimal() else None


def _flag(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}"] if value else [f"--no-{name}"]
    return [f"--{name}", json.dumps(value) if isinstance(value, (dict, list)) else str(value)]


ENGINE = Engine(
    product="vLLM",
    key_variable=KEY_VARIABLE,
    url_variable="VLLM_BASE_URL",
    options=vllm_options.OPTIONS,
    advice=Advice(
        serve=f"serve the model with vLLM (tested: {vllm_versions.TESTED[0]} to {vllm_versions.TESTED[-1]})",
        labels=vllm_versions.REQUIRED,
        caching="start vLLM with --enable-prefix-caching (model.vllm_args of a run)",
        served_name="vLLM's --served-model-name",
        reproducible=f"{INVARIANT_VARIABLE}=1, --attention-backend {INVARIANT_BACKEND}",
    ),
    start=Start(argv, environment, vllm_symptoms.remedy, vllm_symptoms.root_cause, vllm_symptoms.left_out),
    allows_any_context=allows_any_context,
    cpu_cache_gb=cpu_cache_gb,
    batch_dependence=batch_dependence,
    is_checked=True,
    completions=vllm_api.COMPLETIONS,
    top=vllm_api.TOP_TOKENS,
    labels=vllm_api.LABELS,
    tokens=vllm_api.TOKENS,
    models=vllm_api.MODELS,
    version=vllm_api.VERSION,
    counters=vllm_api.COUNTERS,
    to_replica=vllm_api.to_replica,
)
