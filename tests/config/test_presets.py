"""The presets of configs/model against the option parser of the vLLM that is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.config.loading import package_folder
from icm_hpc.config.schema import ModelConfig
from icm_hpc.engines import vllm
from icm_hpc.engines.engine import Rank
from tests.conftest import require_vllm

pytestmark = pytest.mark.vllm

PRESETS = sorted(file.stem for file in (package_folder("configs") / "model").glob("*.yaml"))
Parsed = dict[str, dict[str, object]]  # by command line, option -> value
ARGS = "model.vllm_args.api-server-count"
SECOND = Rank(1, 2, "10.0.0.1", 29501, 29550)
PARSE = """
import json, sys
from vllm.entrypoints.cli.serve import FlexibleArgumentParser, make_arg_parser, validate_parsed_serve_args
from icm_hpc.engines import vllm_options, vllm_serve
parser = make_arg_parser(FlexibleArgumentParser())
known = vllm_serve.known_options()
parsed = []
for argv in json.load(sys.stdin):
    assert vllm_options.known_to(argv, known) == (argv, []), argv
    options = parser.parse_args(["--model", *argv])
    validate_parsed_serve_args(options)
    parsed.append({key: value for key, value in vars(options).items() if isinstance(value, (str, int, float, bool, dict))})
print(json.dumps(parsed))
"""
"""Prints the values that the parser gives each command line; it must know every option."""


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    """Return what vLLM's parser makes of each preset, by name."""
    require_vllm()
    models = {name: loading.load([f"model={name}"]).model for name in PRESETS}
    argvs = {name: argv_of(model) for name, model in models.items() if model.engine == "vllm"}
    argvs |= {f"405B rank {n}": argv_of(models["405B"], rank=Rank(n, 2, "10.0.0.1", 29501, 29550)) for n in (0, 1)}
    argvs["headless"] = argv_of(loading.load(["model=8B", "model.vllm_args.api-server-count=4"]).model, rank=SECOND)
    argvs["8B replicas"] = argv_of(models["8B"], replicas=8)
    given = json.dumps([words[words.index("serve") + 1 :] for words in argvs.values()])
    done = subprocess.run([sys.executable, "-c", PARSE], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(argvs, json.loads(done.stdout.splitlines()[-1]), strict=True))


def argv_of(model: ModelConfig, *, replicas: int = 1, rank: Rank | None = None) -> list[str]:
    """Return the command of a preset."""
    return vllm.argv(model, Path("weights"), host="127.0.0.1", port=1, replicas=replicas, rank=rank)


def test_vllms_own_parser_accepts_every_preset(parsed: Parsed) -> None:
    assert {"8B", "70B", "405B", "405B-FP8", "smol", "tiny"} <= set(parsed)
    big = parsed["405B"]
    assert (big["tensor_parallel_size"], big["pipeline_parallel_size"], big["max_num_seqs"]) == (8, 2, 256)
    assert all(value["enable_prefix_caching"] is True for value in parsed.values())


def test_a_pipeline_over_two_nodes_is_one_rank_a_node_of_which_the_second_has_no_api(
    parsed: Parsed,
) -> None:
    first, second = parsed["405B rank 0"], parsed["405B rank 1"]
    for number, rank in enumerate((first, second)):
        assert (rank["nnodes"], rank["node_rank"], rank["master_addr"]) == (2, number, "10.0.0.1")
        assert (rank["tensor_parallel_size"], rank["pipeline_parallel_size"]) == (8, 2)
    assert (first["headless"], second["headless"]) == (False, True)
    assert "api_server_count" not in parsed["headless"]
    assert parsed["8B replicas"]["data_parallel_size"] == 8


BIG = ("8B", "70B", "405B", "405B-FP8")


@pytest.mark.parametrize("name", BIG)
def test_the_head_of_a_bfloat16_model_is_float32_to_vllm_and_in_the_fingerprint(parsed: Parsed, name: str) -> None:
    assert parsed[name]["hf_overrides"] == {"head_dtype": "float32"}
    assert (parsed[name]["dtype"], parsed[name]["block_size"]) == ("bfloat16", 32)


def test_what_fills_the_steps_of_a_small_model_reaches_vllm(
    parsed: Parsed,
) -> None:
    for name in ("8B", "70B"):
        assert (parsed[name]["max_num_seqs"], parsed[name]["max_num_batched_tokens"]) == (512, 16384)


def test_one_replica_of_a_small_model_has_two_front_ends_and_several_have_one_each(parsed: Parsed) -> None:
    assert parsed["8B"]["api_server_count"] == 2
    assert "api_server_count" not in parsed["8B replicas"]
    assert "api_server_count" not in parsed["70B"]
    own, passed_on = (loading.load(["model=8B", word]).model for word in ("model.front_ends=4", ARGS + "=4"))
    assert argv_of(own) == argv_of(passed_on)
    assert argv_of(passed_on, replicas=2).count("--api-server-count") == 1


HEAD = """
import sys
from types import SimpleNamespace
from transformers import LlamaConfig
from vllm.config.model import _get_head_dtype
from vllm.model_executor.layers.quantization.fbgemm_fp8 import FBGEMMFp8Config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
config = LlamaConfig(head_dtype="float32")
quantised = object.__new__(FBGEMMFp8Config)
print(_get_head_dtype(config, "bfloat16", "generate"), quantised.get_quant_method(object.__new__(ParallelLMHead), "lm_head"))
"""


def test_vllm_takes_a_float32_head_and_leaves_that_of_the_fp8_checkpoint_unquantised() -> None:
    require_vllm()
    done = subprocess.run([sys.executable, "-c", HEAD], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["torch.float32 None"], done.stderr[-2000:]
