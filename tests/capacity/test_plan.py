"""Plans, and that what cannot work is refused before anything is made or queued."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from icm_hpc import tasks
from icm_hpc.capacity import demand
from icm_hpc.capacity.found import Plan
from icm_hpc.capacity.plan import plan, require_fit
from icm_hpc.config import loading
from icm_hpc.config.fingerprint import differences, result_settings
from icm_hpc.errors import FitError
from tests.conftest import SHARED_DATA, require_vllm, unavailable

CLUSTER = ("cluster.executor=slurm", "cluster.gpu=H100", "search.steps=1500")


def run(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands."""
    argv = [sys.executable, "-m", f"icm_hpc.{module}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def planned(*arguments: str) -> Plan:
    """Return the plan of 256 real claims."""
    data = SHARED_DATA / "truthfulqa_train.json"
    if not data.exists():
        unavailable(f"{data} is not there")
    config = loading.load(["task=truthfulqa", f"task.data={data}", *CLUSTER, *arguments])
    return plan(config, tasks.load(config.task, seed=0))


def test_a_context_of_8192_is_too_short_for_256_claims() -> None:
    found = planned("model=8B", "model.max_model_len=8192")
    assert not found.fits
    assert "a prompt with all 256 examples is" in found.misfits[0]
    assert "model.max_model_len=11264" in found.remedies
    assert any(one.startswith("search.pool_size=") for one in found.remedies)


@pytest.mark.parametrize("name", ["8B", "70B", "405B", "405B-FP8"])
def test_each_preset_fits_its_own_claims_and_forecasts_their_hours(name: str) -> None:
    found = planned(f"model={name}", "cluster.gpu_hour_price=3")
    assert found.fits, found.misfits
    assert found.figures["forecast_hours"] > 0
    assert found.figures["forecast_cost"] == pytest.approx(3 * found.figures["forecast_gpu_hours"])
    assert "forecast" in found.lines["time"]


def test_tokens_are_counted_where_the_tokenizer_is_and_estimated_within_15_percent_where_not() -> None:
    require_vllm()
    counted = planned("model=smol", "model.max_model_len=8192")
    estimated = planned("model=8B")
    assert (counted.figures["tokens_counted"], estimated.figures["tokens_counted"]) == (True, False)
    real = counted.figures["longest_prompt_tokens"]
    assert real == 9720
    assert real / 1.15 <= estimated.figures["longest_prompt_tokens"] <= real


def test_submit_refuses_what_cannot_work_and_makes_nothing(tmp_path: Path) -> None:
    settings = ("model=stub", "model.max_model_len=100", f"run.root={tmp_path}/runs")
    refused = run("submit", *settings)
    assert refused.returncode == 1
    assert "this run cannot work, so it was not started" in refused.stderr
    assert "fits: search.pool_size=" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    config = loading.load(["model=8B", f"model.path={tmp_path}/none", "server.gpus_per_node=1"])
    with pytest.raises(FitError, match="there is no such folder"):
        require_fit(plan(config, tasks.load(config.task, seed=0)))


def test_several_nodes_want_a_cluster() -> None:
    config = loading.load(["model=stub", "server.nodes=2", "model.engine=vllm"])
    found = plan(config, tasks.load(config.task, seed=0))
    assert any(
        "2 nodes are asked for, and this machine (cluster.executor=local) is one" in one for one in found.misfits
    )


def test_the_command_prints_json_and_exits_1_for_what_does_not_fit() -> None:
    arguments = ("model=405B", "task=reviews", *CLUSTER, "cluster.max_nodes=1")
    done = run("plan", *arguments, "json=true")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["fits"] is False
    assert "cluster.max_nodes=1" in told["misfits"][0]
    assert told["remedies"][0] == "model=405B-FP8"
    assert told["works"].endswith("cluster.max_nodes=1 model=405B-FP8")
    assert run("plan", "model=8B", "task=reviews", *CLUSTER).returncode == 0


def test_a_gpu_that_is_not_known_is_noted_and_its_memory_not_checked() -> None:
    found = planned("model=8B", "cluster.gpu=L40S")
    assert found.fits
    assert any("cluster.gpu=L40S is unknown; known: A100-40, A100-80, H100, H200" in note for note in found.notes)


@pytest.mark.parametrize("words", ['[" 1"," 2"]', '[" non-toxic"," toxic"]'])
def test_of_an_estimate_no_label_word_is_refused(words: str) -> None:
    assert planned("model=70B", f"task.label_words={words}").fits


def test_of_a_folder_without_a_known_shape_nothing_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_local_experts": 8}')
    found = planned("model=70B", f"model.path={tmp_path}")
    assert found.fits
    assert "its size is not known" in found.lines["model"]


def test_weights_that_were_quantised_are_weighed_as_they_are(tmp_path: Path) -> None:
    preset = loading.load(["model=70B"]).model
    (tmp_path / "config.json").write_text(json.dumps(preset.shape))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(39_000_000_000)  # holes take no room
    found = planned("model=70B", f"model.path={tmp_path}", "model.quantization=awq", "model.tensor_parallel_size=1")
    assert found.figures["weights_gb"] == 39
    assert found.fits, found.misfits


def test_a_float32_head_and_no_numerically_neutral_option_is_in_the_fingerprint() -> None:
    def settings(*arguments: str) -> dict[str, object]:
        return result_settings(loading.load(["model=8B", *arguments]))

    plain = settings()
    assert plain["model.vllm_args"] == {"hf-overrides": {"head_dtype": "float32"}}
    head = settings("model.vllm_args.hf-overrides.head_dtype=model")
    assert "head_dtype" in differences(head, plain)
    for neutral in ("model.block_size=16", "model.max_num_seqs=64", "model.max_num_batched_tokens=8192"):
        assert differences(settings(neutral), plain) == "", neutral


@pytest.mark.parametrize(
    ("options", "checked"),
    [
        ({}, True),
        ({"hf-overrides": {"head_dtype": "float32"}}, True),
        ({"hf_overrides": '{"head_dtype": "float32"}'}, True),
        ({"max_seq_len_to_capture": 8192, "max-num-seqs": 4, "position-ids": 1}, True),
        ({"hf-overrides": {"max_position_embeddings": 262144}}, False),
        ({"hf_overrides": '{"max_position_embeddings": 262144, "head_dtype": "float32"}'}, False),
        ({"hf-overrides": {"text_config": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}}}, False),
        ({"hf-overrides": {"head_dtype": "float32", "rope_scaling": {"type": "linear"}}}, False),
        ({"rope-scaling": {"type": "linear"}}, False),
    ],
)
def test_only_an_override_of_the_context_switches_its_check_off(options: dict[str, object], *, checked: bool) -> None:
    model = replace(loading.load(["model=8B"]).model, vllm_args=options)
    found = demand.model_of(model, None)
    assert found is not None
    assert found.shape.max_positions == (131072 if checked else None)


def test_a_preset_whose_context_is_too_long_for_its_model_is_refused() -> None:
    found = planned("model=70B", "model.max_model_len=200000")
    assert any("was trained for contexts of 131072 tokens" in misfit for misfit in found.misfits)


def test_an_example_that_no_prompt_can_hold_is_named_and_no_pool_size_proposed(tmp_path: Path) -> None:
    rows = [
        {"question": "Q?", "choice": "word " * 9000},
        *({"question": f"Q{i}?", "choice": f"c{i}"} for i in range(20)),
    ]
    data = tmp_path / "long.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    done = run("plan", "model=stub", "model.max_model_len=8192", "task=claims", f"task.data={data}", "json=true")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    (misfit,) = told["misfits"]
    assert "the example 'row-0' is " in misfit
    assert misfit.endswith("by itself, and model.max_model_len=8,192: shorten or remove it")
    (remedy,) = told["remedies"]
    assert remedy.startswith("model.max_model_len=")
    assert run("plan", "model=stub", "task=claims", f"task.data={data}", remedy).returncode == 0


@pytest.mark.parametrize("long", [1, 5])
def test_each_setting_that_is_said_to_fit_does(tmp_path: Path, long: int) -> None:
    rows = [{"question": f"Q{i}?", "choice": "word " * (700 if i < long else 3)} for i in range(40)]
    data = tmp_path / "mixed.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    words = ("model=stub", "model.max_model_len=900", "task=claims", f"task.data={data}")
    remedies = json.loads(run("plan", *words, "json=true").stdout)["remedies"]
    assert remedies
    for remedy in remedies:
        assert run("plan", *words, remedy).returncode == 0, remedy


def test_a_plan_counts_what_is_labelled_beyond_the_pool() -> None:
    words = ("task=reviews", "task.limit=192", "search.pool_size=32")
    shards, applied, small = (
        plan(config, tasks.load(config.task, seed=0))
        for config in (
            loading.load(["model=8B", *CLUSTER, *words]),
            loading.load(["model=8B", *CLUSTER, *words, "search.beyond=apply"]),
            loading.load(["model=8B", *CLUSTER, *words, "search.beyond=apply", "model.max_model_len=512"]),
        )
    )
    assert (applied.figures["examples"], applied.figures["shards"], applied.figures["beyond"]) == (192, 1, 160)
    assert "a pool of 32, and 160 beyond it" in applied.lines["data"]
    assert applied.figures["forecast_scorings"] == pytest.approx(shards.figures["forecast_scorings"] / 6, abs=1)
    assert 160 * 10 < applied.figures["forecast_beyond_tokens"] < 160 * 64, "each its own tokens, and the pool once"
    assert applied.figures["forecast_hours"] < shards.figures["forecast_hours"]
    assert not small.fits
    assert any(remedy.startswith("search.pool_size=") for remedy in small.remedies)
