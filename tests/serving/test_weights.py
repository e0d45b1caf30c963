"""Which weights are on the disk, and how much they weigh."""

import json
from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.config.schema import ModelConfig
from icm_hpc.serving import weights


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """A model of the hub, whose cache is empty."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return loading.load(["model=70B"]).model


def download(model: ModelConfig, *files: str) -> Path:
    """Put files into the hub's cache, as its client does, with an index that names two."""
    cached = weights.hub_cache(model) / "models--meta-llama--Llama-3.1-70B"
    snapshot = cached / "snapshots" / "abc"
    for folder in (cached / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (cached / "refs" / "main").write_text("abc")
    named = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    for name in files:
        (snapshot / name).write_bytes(bytes(100))
    return snapshot


def test_a_download_that_was_cut_off_is_none(model: ModelConfig) -> None:
    assert weights.on_disk(model) is None
    snapshot = download(model, "model-1.safetensors")
    assert weights.on_disk(model) is None
    download(model, "model-2.safetensors")
    assert weights.on_disk(model) == snapshot


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', "[" * 100_000, "\xff"]
)
def test_a_damaged_index_names_no_whole_download(model: ModelConfig, content: str) -> None:
    snapshot = download(model, "model-1.safetensors", "model-2.safetensors")
    (snapshot / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
    assert weights.on_disk(model) is None


def test_the_same_weights_in_another_form_weigh_nothing_more(model: ModelConfig) -> None:
    files = ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors", "pytorch_model.bin")
    assert weights.weights_bytes(download(model, *files)) == 200


@pytest.mark.parametrize(
    ("path", "is_folder"), [("/a/b", True), ("./a/b", True), ("models", True), ("owner/name", False)]
)
def test_names_of_the_hub_are_told_from_folders(path: str, *, is_folder: bool) -> None:
    assert weights.is_folder_name(path) is is_folder
