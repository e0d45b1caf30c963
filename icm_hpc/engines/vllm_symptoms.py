"""What vLLM dies of, by its exit code and its log, and what then helps."""

import re
from dataclasses import dataclass

from . import vllm_options, vllm_versions


@dataclass(frozen=True, slots=True)
class Symptom:
    """What an engine's last words say, and what then helps."""

    signs: tuple[str, ...]  # any of them; taken from the sources of vLLM 0.32.0, transformers and PyTorch
    remedy: str


COMMAND = "icm_hpc.engines.vllm_serve"  # the module, which begins each start in the log
HOST_MEMORY = "out of host memory: raise server.mem_gb"
SYMPTOMS = (
    Symptom(
        ("OutOfMemoryError", "CUDA out of memory", "HIP out of memory"),
        "out of GPU memory: lower model.gpu_memory_utilization, max_num_batched_tokens or max_num_seqs, or spread the"
        " weights over more GPUs (model.tensor_parallel_size)",
    ),
    Symptom(
        ("No available memory for the cache blocks", "which is larger than the available KV cache"),
        "no memory for the KV cache of one prompt: lower model.max_model_len, raise model.gpu_memory_utilization (on"
        " CPUs VLLM_CPU_KVCACHE_SPACE in model.env), or use more GPUs (model.tensor_parallel_size)",
    ),
    Symptom(
        ("is less than requested memory for kv", "is less than desired GPU memory utilization"),
        "less memory is free than it is to take: lower model.gpu_memory_utilization (on CPUs VLLM_CPU_KVCACHE_SPACE in"
        " model.env), or keep other processes off its node",
    ),
    Symptom(
        ("oom_kill", "oom-kill", "Cannot allocate memory", "MemoryError", "can't allocate memory", "bad_alloc"),
        HOST_MEMORY,
    ),
    Symptom(
        ("gated repo",),
        "the hub gives these weights only to who has accepted their licence: do so on the model's page, and set HF_TOKEN",
    ),
    Symptom(
        ("offline mode is enabled", "couldn't connect to", "We couldn't connect"),
        "the weights are not on this node and the hub is out of reach: fetch them first, on a node with internet, and set"
        " HF_HOME or model.path to where they are",
    ),
    Symptom(
        ("is not a local folder and is not a valid model identifier", "Cannot find any model weights"),
        "model.path names no weights: neither a folder that this node sees nor a model of the hub",
    ),
    Symptom(
        ("User-specified max_model_len",),
        "model.max_model_len is more than the model was trained for: lower it, and search.pool_size with it",
    ),
    Symptom(
        ("must be divisible by tensor parallel size",),
        "model.tensor_parallel_size must divide the model's attention heads",
    ),
    Symptom(
        ("does not recognize this architecture", "are not supported for now"),
        "this vLLM does not know the model's architecture: install a newer one",
    ),
    Symptom(
        (vllm_options.REFUSED, "No module named 'vllm'", "No package metadata was found for vllm"),
        f"install another vLLM into the environment of the server's node: {vllm_versions.INSTALL}",
    ),
    Symptom(
        ("Failed to infer device type", "No CUDA GPUs are available"),
        "the server sees no GPU: see server.gpus_per_node, cluster.gpu_flag and the CUDA module in cluster.setup",
    ),
    Symptom(
        ("NCCL error",),
        "the GPUs cannot talk to each other: name the network in model.env (NCCL_SOCKET_IFNAME, NCCL_IB_HCA), and see"
        " NCCL_DEBUG=INFO there",
    ),
    Symptom(
        ("InvalidCxxCompiler",),
        "vLLM's CPU build compiles what it runs: install g++ and Python's headers on its node (apt-get install g++"
        " python3-dev)",
    ),
    Symptom(("No space left on device",), "a disk is full: see run.root, HF_HOME and the node's /tmp"),
)


def remedy(code: int, last_words: str) -> str | None:
    """Return what an engine died of and what to do, if its exit code and the end of its log tell."""
    for symptom in SYMPTOMS:
        if any(sign in last_words for sign in symptom.signs):
            return symptom.remedy
    return f"killed from outside; if that was the kernel for want of memory: {HOST_MEMORY}" if code == -9 else None


def left_out(log: str) -> str | None:
    """Return what the last start in a log says of options that this vLLM does not have, or None."""
    last = log.rpartition(COMMAND)[2]
    said = [line for line in last.splitlines() if line.startswith(vllm_options.LEFT_OUT)]
    return said[-1] if said else None


LONGEST = 500  # letters of a cause that is shown
_PREFIX = re.compile(r"\((?P<process>[^()]*)\) ?")  # (EngineCore_DP0 pid=7)
_RECORD = re.compile(r"(?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?")
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Failure|Timeout|Refused)(?::.*)?")
_UNFINISHED = re.compile(r"validation errors? for \w+$")  # pydantic says which on the next line
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_FATAL = ("failed to start", "encountered a fatal error", "hit an exception", "got error")
# Exceptions that only say that another process, or a line above, has the cause.
_POINTERS = ("root cause", "Engine core initialization failed", "EngineDeadError", "EngineCore encountered an issue")


@dataclass(slots=True)
class _Traceback:
    process: str
    exception: str
    line: int  # on which it ends
    fatal: bool  # its process says that it ends of it


def root_cause(log: str) -> str | None:
    """Return the exception of which an engine died, by the log of its start: that of the process that failed first.

    The API server's own exception ends the log, and says only that there is a root cause above. Before vLLM itself, ours may
    have refused.
    """
    refused = [line for line in log.splitlines() if line.startswith(vllm_options.REFUSED)]
    if refused:
        return refused[-1].removeprefix(vllm_options.REFUSED).strip()
    found = _tracebacks(log.splitlines())
    causes = [one for one in found if not any(pointer in one.exception for pointer in _POINTERS)]
    pointed = min((one.line for one in found if one not in causes), default=None)
    before = [one for one in causes if pointed is None or one.line < pointed]
    fatal = [one for one in before if one.fatal]
    for cause in (*fatal[:1], *before[-1:], *causes[-1:]):
        return cause.exception[:LONGEST]
    return None


def _tracebacks(lines: list[str]) -> list[_Traceback]:
    """Return the exceptions in a log, each the last of its chain; processes write into each other's tracebacks."""
    found: list[_Traceback] = []
    last: dict[str, _Traceback] = {}  # by process
    said: dict[str, str] = {}  # by process, the line before its traceback
    chained: set[str] = set()  # processes whose next exception belongs to the one before
    for number, line in enumerate(lines):
        prefix = _PREFIX.match(line)
        process, text = (prefix["process"], line[prefix.end() :]) if prefix else ("", line)
        record = _RECORD.match(text)
        if record and record["level"] not in ("ERROR", "CRITICAL", "FATAL"):
            continue
        text = text[record.end() :] if record else text
        one = last.get(process)
        if text.startswith(_CHAINED):
            chained.add(process)
        elif _EXCEPTION.fullmatch(text) and one and process in chained:
            one.exception, one.line = text, number
            chained.discard(process)
        elif _EXCEPTION.fullmatch(text):
            fatal = any(sign in said.get(process, "") for sign in _FATAL)
            last[process] = _Traceback(process, text, number, fatal)
            found.append(last[process])
        elif one and _UNFINISHED.search(one.exception) and text.strip():
            one.exception += f": {text.strip()}"
        elif text.strip() and not text.startswith((" ", "Traceback (most recent call last)")):
            said[process] = text
    return found
