"""What the server component says of an engine that could not start."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from icm_hpc.engines.symptoms import SYMPTOMS, remedy
from icm_hpc.rundir import RunDir
from tests.conftest import prepare_run, require_vllm

PACKAGES = ("vllm", "transformers", "huggingface_hub", "torch")
OF_THE_SYSTEM = {  # words of CUDA, C libraries, Python and Slurm, not of these packages
    *("OutOfMemoryError", "CUDA out of memory", "HIP out of memory", "oom_kill", "oom-kill", "Cannot allocate memory"),
    *("MemoryError", "can't allocate memory", "bad_alloc", "No space left on device"),
}


@pytest.mark.vllm
def test_signs_are_what_the_installed_packages_say() -> None:
    require_vllm()
    signs = {sign for symptom in SYMPTOMS for sign in symptom.signs} - OF_THE_SYSTEM
    found = [importlib.util.find_spec(name) for name in PACKAGES]
    folders = [str(Path(spec.origin).parent) for spec in found if spec and spec.origin]
    unsaid = [sign for sign in sorted(signs) if not _said(sign, folders)]
    assert unsaid == []


def _said(sign: str, folders: list[str]) -> bool:
    grep = ["grep", "--recursive", "--quiet", "--fixed-strings", "--include=*.py", sign, *folders]
    return subprocess.run(grep, check=False).returncode == 0


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.max_model_len=1000000", "model.max_model_len is more than the model was trained for"),
        ("model.vllm_args.no-such-option=1", "this vLLM has no such option: see model.vllm_args"),
    ],
)
def test_real_vllm_that_cannot_start_is_told_of_with_the_remedy(tmp_path: Path, setting: str, told: str) -> None:
    require_vllm()
    _, run_dir = prepare_run(tmp_path, "model=tiny", setting)
    reason = reason_of(run_dir)
    assert told in reason, run_dir.server_log.read_text()[-2000:]


def reason_of(run_dir: RunDir) -> str:
    """Run the server component, which must fail; return what it recorded."""
    argv = [sys.executable, "-m", "icm_hpc.server", str(run_dir.path)]
    environment = {**os.environ, "ICM_ATTEMPT": "a1"}
    assert subprocess.run(argv, env=environment, check=False, capture_output=True).returncode == 1
    record = run_dir.read_server_exit("a1")
    assert record is not None
    return record.reason


def test_what_is_not_known_is_not_guessed() -> None:
    assert remedy(1, "something else") is None
    assert "if that was the kernel for want of memory" in str(remedy(-9, "something else"))
