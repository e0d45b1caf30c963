"""The arithmetic of what fits."""

from dataclasses import replace

import pytest

from icm_hpc.capacity import fit
from icm_hpc.capacity.demand import model_of, serving_of
from icm_hpc.capacity.fit import Hardware, Model, Serving
from icm_hpc.config import loading

H100, H200 = Hardware(85.5, 8, None), Hardware(150.8, 8, None)


def preset(name: str) -> tuple[Model, Serving]:
    """Return what a preset of configs/model loads, and how it serves it."""
    config = loading.load([f"model={name}"])
    model = model_of(config.model, None)
    assert model is not None
    return model, serving_of(config)


@pytest.mark.parametrize("name", ["8B", "70B", "405B", "405B-FP8"])
def test_every_preset_fits_h100s_with_room_for_two_of_its_longest_prompts(name: str) -> None:
    model, serving = preset(name)
    assert fit.misfits(model, serving, H100) == []
    assert fit.gpu_memory(model, serving, H100.gpu_memory_gb).cache_tokens > 2 * serving.context


def test_the_published_405b_in_bfloat16_on_one_node_of_80_gb_is_refused_with_its_arithmetic() -> None:
    model, serving = preset("405B")
    (told,) = fit.misfits(model, replace(serving, pipeline=1, nodes=1), H100)
    assert "101.5 for weights (812 GB / 8 GPUs)" in told
    assert "77.0 GB usable" in told


def test_on_eight_h200s_it_fits_without_a_pipeline() -> None:
    model, serving = preset("405B")
    one_node = replace(H200, max_nodes=1)
    assert fit.nearest(model, serving, one_node, 11264, {}) == ["model.pipeline_parallel_size=1 server.nodes=1"]


def test_of_one_node_of_80_gb_the_fp8_preset_is_named_and_a_second_node() -> None:
    model, serving = preset("405B")
    others = {"405B-FP8": preset("405B-FP8")}
    told = fit.nearest(model, replace(serving, pipeline=1, nodes=1), replace(H100, max_nodes=1), 11264, others)
    assert told == ["model=405B-FP8", "cluster.max_nodes=2 model.pipeline_parallel_size=2 server.nodes=2"]


def test_fp8_weights_hold_attention_and_embeddings_in_bfloat16() -> None:
    model, _ = preset("405B-FP8")
    shape = model.shape
    in_fp8 = (shape.layers - 2) * 3 * shape.hidden * shape.intermediate
    assert model.weights_bytes == pytest.approx(in_fp8 + 2 * (shape.parameters - in_fp8), rel=0.001)


def test_keys_and_values_are_not_split_further_than_heads() -> None:
    model, serving = preset("8B")
    few, many = (fit.gpu_memory(model, replace(serving, tensor=n), 85.5) for n in (8, 16))
    assert few.cache_tokens / few.cache == pytest.approx(many.cache_tokens / many.cache, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tensor": 3}, "does not divide the model's 32 attention heads"),
        ({"tensor": 3}, "8 key heads: one must be a multiple of the other"),
        ({"asked_per_node": 1, "tensor": 2}, "server.gpus_per_node=1 are 1"),
        ({"pipeline": 40}, "more than the model's 32 layers"),
        ({"replicas": 3, "nodes": 2}, "one must be a multiple of the other"),
        ({"nodes": 2, "replicas": 2}, "2 nodes are asked for, and cluster.max_nodes=1: 616 GB usable of its 8 GPUs"),
        ({"replicas": 9}, "9 a node, which has 8"),
        ({"context": 200_000}, "trained for contexts of 131072"),
        ({"context": 131_072, "memory_share": 0.35}, "cannot hold one prompt"),
    ],
)
def test_what_cannot_work_is_named(changes: dict[str, float], told: str) -> None:
    model, serving = preset("8B")
    assert any(told in one for one in fit.misfits(model, replace(serving, **changes), replace(H100, max_nodes=1)))  # type: ignore[arg-type]
