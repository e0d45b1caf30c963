"""What the server component says of an engine that could not start."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from icm_hpc.engines import exit_of, inherited, start_of, vllm_options
from icm_hpc.engines.vllm_symptoms import SYMPTOMS, remedy, root_cause
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.logs import written_since
from icm_hpc.serving import server
from tests.conftest import prepare_run, require_vllm, start_stub_by

PACKAGES = ("vllm", "transformers", "huggingface_hub", "torch")
OF_THE_SYSTEM = {  # words of CUDA, C libraries, Python and Slurm, not of these packages
    *("OutOfMemoryError", "CUDA out of memory", "HIP out of memory", "oom_kill", "oom-kill", "Cannot allocate memory"),
    *("MemoryError", "can't allocate memory", "bad_alloc", "No space left on device"),
    *("No module named 'vllm'", "No package metadata was found for vllm", vllm_options.REFUSED),
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
        (
            "model.env.VLLM_CPU_OMP_THREADS_BIND=garbage",
            "exited with code 1: ValueError: invalid literal for int() with",
        ),
    ],
)
def test_real_vllm_that_cannot_start_is_reported_with_the_remedy(tmp_path: Path, setting: str, told: str) -> None:
    require_vllm()
    _, run_dir = prepare_run(tmp_path, "model=tiny", setting)
    reason = reason_of(run_dir)
    assert told in reason, run_dir.server_log.read_text()[-2000:]


def test_a_node_without_a_compiler_is_named_with_what_to_install() -> None:
    said = "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')"
    assert "apt-get install g++" in (remedy(0, f"torch._inductor.exc.InductorError: {said}") or "")


def reason_of(run_dir: RunDir) -> str:
    """Run the server component, which must fail; return what it recorded."""
    argv = [sys.executable, "-m", "icm_hpc.serving.server", str(run_dir.path)]
    environment = {**os.environ, "ICM_ATTEMPT": "a1"}
    assert subprocess.run(argv, env=environment, check=False, capture_output=True).returncode == 1
    record = run_dir.read_server_exit("a1")
    assert record is not None
    return record.reason


STAMP = "ERROR 11-25 18:16:10 [core.py:1510] "
POINTER = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
)
API = ["Traceback (most recent call last):", '  File "entry.py", line 7, in main', "    raise RuntimeError(", POINTER]


def failed(process: str, exception: str, said: str = "EngineCore failed to start.") -> list[str]:
    """Return how a process of vLLM logs the exception of which it ends."""
    traceback = ["Traceback (most recent call last):", '  File "core.py", line 1, in run', "    raise", exception]
    return [f"({process} pid=7) {STAMP}{line}" for line in (said, *traceback)]


NO_ROOM = "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB"
WORKERS = [
    line
    for lines in zip(
        failed("Worker_TP1", NO_ROOM, "WorkerProc failed to start."),
        failed("Worker_TP0", "RuntimeError: [gloo] Connection closed by peer", "WorkerProc failed to start."),
        strict=True,
    )
    for line in lines
]
INITIALIZATION = "Exception: WorkerProc initialization failed in a background process. See stack trace for root cause."
CHAIN = [
    *("Traceback (most recent call last):", "  at hub", "requests.exceptions.HTTPError: 403 Client Error", ""),
    *("The above exception was the direct cause of the following exception:", ""),
    *("Traceback (most recent call last):", "  at hub", "OSError: You are trying to access a gated repo.", "", *API),
]


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ([*failed("EngineCore", "ValueError: no room"), "ValueError: no room", *API], "ValueError: no room"),
        (
            [*WORKERS, *failed("EngineCore_DP0", INITIALIZATION), *API],
            "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB",
        ),
        (CHAIN, "OSError: You are trying to access a gated repo."),
        (
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
                "  Value error, too long",
            ],
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig: Value error, too long",
        ),
        (
            [
                "(API pid=1) WARNING 11-25 18:16:10 [a.py:1] ImportError: none",
                *failed("EngineCore", "KeyError: 'x'"),
                *API,
            ],
            "KeyError: 'x'",
        ),
        (
            ["Traceback (most recent call last):", "  at import", "ModuleNotFoundError: No module named 'x'"],
            "ModuleNotFoundError: No module named 'x'",
        ),
        ([*failed("EngineCore", "RuntimeError: " + "x" * 900), *API], "RuntimeError: " + "x" * 486),
        (["vllm serve: error: unrecognized arguments: --x", "  ValueError: in a source line"], None),
        (["Segmentation fault (core dumped)"], None),
        (API, None),
    ],
)
def test_the_root_cause_is_that_of_the_process_that_failed_first(log: list[str], cause: str | None) -> None:
    assert root_cause("\n".join(["INFO 11-25 18:16:00 [a.py:1] begins", *log])) == cause


def test_how_an_engine_ended_has_its_cause_and_what_helps_however_far_above_the_end(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("\n".join(["ValueError: of an earlier start"] * 3) + "\n")
    begin = log.stat().st_size
    with log.open("a") as file:
        file.write(
            "\n".join([*WORKERS, *failed("EngineCore_DP0", INITIALIZATION), *["  a long traceback"] * 2000, *API])
        )
    how = exit_of(start_of("vllm"), 1, written_since(log, begin))
    assert how.startswith(f"exited with code 1: {NO_ROOM} (out of GPU memory: lower")
    assert "See root cause above" not in how
    assert exit_of(start_of("vllm"), 1, written_since(tmp_path / "nowhere", 0)) == "exited with code 1"


@pytest.mark.parametrize(
    "name",
    [
        *("VLLM_PORT", "VLLM_HOST_IP", "VLLM_RPC_BASE_PATH", "VLLM_DP_SIZE", "VLLM_DP_MASTER_IP", "VLLM_LOOPBACK_IP"),
        *("VLLM_API_KEY", "OPENAI_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    ],
)
def test_what_a_shell_sets_for_another_server_does_not_reach_ours(name: str) -> None:
    assert inherited.environment({name: "1", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_what_finds_weights_and_tunes_an_engine_reaches_it() -> None:
    kept = dict.fromkeys(
        ("HF_TOKEN", "HF_HOME", "CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME", "VLLM_CPU_KVCACHE_SPACE"), "1"
    )
    kept |= dict.fromkeys(("VLLM_ATTENTION_BACKEND", "VLLM_LOGGING_LEVEL", "VLLM_CACHE_ROOT", "LD_LIBRARY_PATH"), "1")
    assert inherited.environment(kept) == kept


def test_the_server_component_starts_its_engine_without_them_unless_the_model_sets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    code = f"import os; open({str(seen)!r}, 'w').write(' '.join(os.environ))"
    start_stub_by(monkeypatch, lambda *_, **__: [sys.executable, "-c", code])
    for name in ("VLLM_PORT", "MASTER_PORT", "VLLM_CPU_KVCACHE_SPACE", "RANK"):
        monkeypatch.setenv(name, "1")
    settings, run_dir = prepare_run(tmp_path, "model=stub", "model.env.RANK=0")
    server.serve(settings, run_dir, "a1", local=True)
    names = set(seen.read_text().split())
    assert {"VLLM_CPU_KVCACHE_SPACE", "RANK", "VLLM_API_KEY"} <= names
    assert not {"VLLM_PORT", "MASTER_PORT"} & names


def test_what_is_not_known_is_not_guessed() -> None:
    assert remedy(1, "something else") is None
    assert "if that was the kernel for want of memory" in str(remedy(-9, "something else"))
