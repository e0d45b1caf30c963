"""Seconds of a scoring: a forecast, by a roofline or from a server's measured speed; and what a model's shape says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.cost import Cost
from ..rundir.measured import Measured, Sharing, Speed


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a dense transformer decides its memory and its cost."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # one matrix for the tokens that go in and those that come out
    max_positions: int | None  # tokens of context that it was trained for

    @property
    def parameters(self) -> int:
        """Weights of attention, of the gated feed-forward layers, and of the embeddings; norms are left out."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + embeddings

    def kv_bytes(self, bytes_per_value: float) -> float:
        """Return the bytes of keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value


TRAINED_SCALINGS = ("llama3", "yarn", "longrope", "su")  # of positions, counted in max_position_embeddings already


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """Return the shape that a Hugging Face config.json tells, or None of one that is no dense transformer.

    How far a context may be stretched is vLLM's to say: positions are told only of models that are not.
    """
    if any("expert" in key for key in config):
        return None
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        scaled = dict(config.get("rope_scaling") or {})
        trained_so = scaled.get("rope_type", scaled.get("type", "llama3")) in TRAINED_SCALINGS
        positions = config.get("max_position_embeddings") if trained_so else None
        return ModelShape(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", True)),  # as transformers takes it
            max_positions=None if positions is None else int(positions),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its data sheet (dense rates, no sparsity), and the memory that nvidia-smi reports of it."""

    memory_gb: float  # 1e9 bytes
    bandwidth_tb_s: float
    bf16_tflops: float
    fp8_tflops: float  # that of BF16 where the hardware has no FP8: weights are then converted


# NVIDIA's data sheets (SXM versions).
GPUS: dict[str, Gpu] = {
    "A100-40": Gpu(42.9, 1.56, 312, 312),
    "A100-80": Gpu(85.9, 2.04, 312, 312),
    "H100": Gpu(85.5, 3.35, 989, 1979),
    "H200": Gpu(150.8, 4.8, 989, 1979),
}
# Share of the peak that prefill reaches in large batches, with the communication of tensor parallelism in it. An
# assumption: no GPU was at hand to measure it.
UTILISATION = {"bf16": 0.5, "fp8": 0.4}
STEP_OVERHEAD_S = 0.01  # of the server, a step; an assumption too


def operations(shape: ModelShape | None, computed_tokens: int, context_tokens: int) -> float:
    """Return the operations of prompt tokens: 2 * parameters a token, and 4 * layers * heads * head_dim a pair of tokens in
    attention. Without a shape, the number of tokens.
    """
    if shape is None:
        return computed_tokens
    return 2 * shape.parameters * computed_tokens + 4 * shape.layers * shape.heads * shape.head_dim * context_tokens


def seconds(
    work: Cost, shape: ModelShape, gpu: Gpu, n_gpus: int, dtype: str, *, batch_tokens: int, replicas: int = 1
) -> float:
    """Forecast the seconds of a scoring: the greater of arithmetic and of reading the weights once a step, plus overhead.

    `dtype` is bf16 or fp8.
    """
    peak = {"bf16": gpu.bf16_tflops, "fp8": gpu.fp8_tflops}[dtype] * 1e12 * UTILISATION[dtype] * n_gpus
    arithmetic = operations(shape, work.computed_tokens, work.context_tokens)
    steps = math.ceil(work.computed_tokens / batch_tokens / replicas)
    weights = shape.parameters * {"bf16": 2, "fp8": 1}[dtype]
    reading = steps * weights / (gpu.bandwidth_tb_s * 1e12 * n_gpus / replicas)
    return max(arithmetic / peak, reading) + steps * STEP_OVERHEAD_S


def measured_operations_per_s(shape: ModelShape | None, measured: Measured) -> float | None:
    """Return how fast one replica is, as measured: operations a second, or without a shape computed tokens; None if that is
    not known.

    Prompts that share demonstrations come nearest to a scoring; else prompts that share none.
    """
    samples: list[Sharing | Speed | None] = [measured.sharing, measured.speed]
    for sample in (one for one in samples if one):
        tokens = sample.computed_tokens if isinstance(sample, Sharing) else sample.tokens
        if tokens > 0 and 0 < sample.seconds < math.inf:
            return operations(shape, tokens, sample.context_tokens) / sample.seconds
    return None
