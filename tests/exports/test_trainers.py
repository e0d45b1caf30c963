"""TRL trains two steps on each of its formats, with the weights of model=tiny."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.config import loading
from icm_hpc.serving import weights
from tests.conftest import unavailable
from tests.exports.runs import exported, finished

CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def tiny() -> str:
    """The folder of the weights."""
    for name in ("torch", "trl"):
        if importlib.util.find_spec(name) is None:
            unavailable(f"{name} is not installed: make setup, or pip install -e '.[cpu,trainers]'")
    return str(weights.locate(loading.load(["model=tiny"]).model))


def trained(kind: str, tiny: str, path: Path, **options: Any) -> list[dict[str, Any]]:
    """Train two steps; return what was logged."""
    import trl
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, CHAT
    if kind == "Reward":
        model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
        model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model = AutoModelForCausalLM.from_pretrained(tiny)
    folder = path.parent
    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder / "trained"), max_steps=2, per_device_train_batch_size=4, use_cpu=True, bf16=False,
        report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True, gradient_checkpointing=False, **options,
    )  # fmt: skip
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    trainer = getattr(trl, f"{kind}Trainer")(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("chat", ["false", "true"])
@pytest.mark.parametrize(("to", "kind"), [("sft", "SFT"), ("dpo", "DPO"), ("reward", "Reward"), ("kto", "KTO")])
def test_a_trainer_takes_two_steps(tmp_path: Path, tiny: str, to: str, kind: str, chat: str) -> None:
    run_dir = finished(tmp_path, "task.limit=24")
    logged = trained(kind, tiny, exported(run_dir, to, f"chat={chat}"))
    assert len(logged) == 2
    assert all(math.isfinite(entry["loss"]) and math.isfinite(entry["grad_norm"]) for entry in logged)
