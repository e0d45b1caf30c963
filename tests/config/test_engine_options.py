"""Options of vLLM that a run sets itself are refused where they are given, with the setting that has them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.engines import vllm, vllm_options
from icm_hpc.errors import ConfigError
from tests.conftest import require_vllm


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("max-model-len", "set model.max_model_len instead"),
        ("max_model_len", "set model.max_model_len instead"),
        ("max-model", "(vLLM's --max-model-len): set model.max_model_len instead"),
        ("served-model-name", "set model.served_name instead"),
        ("tp", "(vLLM's --tensor-parallel-size): set model.tensor_parallel_size instead"),
        ("-tp", "set model.tensor_parallel_size instead"),
        ("--tensor_parallel_size", "set model.tensor_parallel_size instead"),
        ("dp", "set server.replicas instead"),
        ("nnodes", "set server.nodes instead"),
        ("dtype", "set model.dtype instead"),
        ("kv-cache-dtype", "set model.kv_cache_dtype instead"),
        ("kv_cache_dtype", "set model.kv_cache_dtype instead"),
        ("no-enforce-eager", "set model.enforce_eager instead"),
        ("model", "set model.path instead"),
        ("port", "cannot be set: the run chooses the address of its server"),
        ("por", "(vLLM's --port): cannot be set"),
        ("host", "cannot be set: the run chooses the address"),
        ("uds", "cannot be set: the run chooses the address"),
        ("root_path", "cannot be set: the run chooses the address"),
        ("ssl-keyfile", "cannot be set: the run chooses the address"),
        ("api-key", "cannot be set: the run makes a key of its own"),
        ("middleware", "cannot be set: the run makes a key of its own"),
        ("node-rank", "cannot be set: the run places the ranks"),
        ("master_addr", "cannot be set: the run places the ranks"),
        ("headless", "cannot be set: the run places the ranks"),
        ("data-parallel-size-local", "cannot be set: the run sends requests to each replica itself"),
        ("data-parallel-backend", "cannot be set"),
        ("config", "cannot be set: its file could set any of the options"),
        ("speculative-config", "cannot be set: no prompt is answered with more than one token"),
        ("speculative_config.method", "cannot be set: no prompt"),
        ("hf-token", "run `hf auth login`"),
        ("logprobs-mode", "cannot be set: scores must be"),
    ],
)
def test_an_option_that_a_run_sets_itself_is_refused_in_every_spelling(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"model: {{path: x, vllm_args: {{{name}: s3cret}}}}\n")
    for words in (
        [f"model.vllm_args.{name}=s3cret"],
        [f"model.vllm_args={{{name}: s3cret}}"],
        [f"model={tmp_path / 'mine.yaml'}"],
    ):
        with pytest.raises(ConfigError) as refused:
            loading.load(words)
        assert f"model.vllm_args.{name.split('.')[0]}" in str(refused.value)
        assert said in str(refused.value)
        assert "s3cret" not in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port=5 --host", "1", "is not the name of an option"),
        ("-max-logprobs", "1", "write it without leading -"),
        ("max-logprobs", "--port=5", "its value begins with -"),
        ("disable-log-stats", "-dp", "its value begins with -"),
    ],
)
def test_no_option_is_hidden_in_a_name_or_a_value(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loading.load([f"model.vllm_args={{'{name}': '{value}'}}"])


def test_options_without_a_key_of_their_own_are_passed_on() -> None:
    names = (
        "api-server-count",
        "num-gpu-blocks-override",
        "max-logprobs",
        "delay-ms",
        "seed",
        "swap_space",
        "cpu_offload_gb",
    )
    given = loading.load(
        ["model=8B", *(f"model.vllm_args.{name}=1" for name in names), "model.vllm_args.seed=-1"]
    ).model
    assert set(given.vllm_args) == {*names, "hf-overrides"}
    words = vllm.argv(given, "w", host="h", port=9)
    assert words[words.index("--api-server-count") + 1] == "1"
    assert words[words.index("--seed") + 1] == "-1"
    eager = loading.load(["model.vllm_args.enable-prefix-caching=false"]).model
    assert "--no-enable-prefix-caching" in vllm.argv(eager, "w", host="h", port=9)


def test_an_older_run_that_holds_such_an_option_is_served_where_its_driver_connects(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    saved.write_text("format: 2\nmodel: {path: x, vllm_args: {port: 5, kv-cache-dtype: fp8}}\n")
    words = vllm.argv(loading.load_file(saved).model, "w", host="h", port=9)
    assert words[words.index("--port") + 1] == "9"
    assert words[words.index("--kv-cache-dtype") + 1] == "fp8"


OPTIONS = """
import json
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
print(json.dumps([action.option_strings for action in make_arg_parser(FlexibleArgumentParser())._actions]))
"""


@pytest.mark.vllm
def test_what_is_reserved_is_what_vllm_has_and_no_other_option_is_taken_for_it() -> None:
    require_vllm()
    done = subprocess.run([sys.executable, "-c", OPTIONS], capture_output=True, text=True, check=True)
    actions = json.loads(done.stdout.splitlines()[-1])
    known = {word[2:] for words in actions for word in words if word.startswith("--")}
    ours = {*vllm_options.SETTINGS, *vllm_options.REASONS}
    assert ours - known <= {"model-tag"}
    others = {word for word in known - ours if word.removeprefix("no-") not in ours}
    assert {word: option for word in sorted(others) if (option := vllm_options.OPTIONS.reserved(word))} == {}
    for words in actions:
        short = [word[1:] for word in words if not word.startswith("--")]
        assert all(vllm_options.SHORT.get(word) in (None, *(w[2:] for w in words)) for word in short)
        if short and ours & {word[2:] for word in words}:
            assert all(word in vllm_options.SHORT for word in short)
