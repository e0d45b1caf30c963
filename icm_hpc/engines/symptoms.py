"""What vLLM dies of, told by its exit code and the end of its log, and what then helps."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symptom:
    """What an engine's last words say, and what then helps."""

    signs: tuple[str, ...]  # any of them; taken from the sources of vLLM 0.32.0, transformers and PyTorch
    remedy: str


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
    Symptom(("unrecognized arguments",), "this vLLM has no such option: see model.vllm_args"),
    Symptom(
        ("Failed to infer device type", "No CUDA GPUs are available"),
        "the server sees no GPU: see server.gpus_per_node, cluster.gpu_flag and the CUDA module in cluster.setup",
    ),
    Symptom(
        ("NCCL error",),
        "the GPUs cannot talk to each other: name the network in model.env (NCCL_SOCKET_IFNAME, NCCL_IB_HCA), and see"
        " NCCL_DEBUG=INFO there",
    ),
    Symptom(("No space left on device",), "a disk is full: see run.root, HF_HOME and the node's /tmp"),
)


def remedy(code: int, last_words: str) -> str | None:
    """Return what an engine died of and what to do, if its exit code and the end of its log tell."""
    for symptom in SYMPTOMS:
        if any(sign in last_words for sign in symptom.signs):
            return symptom.remedy
    return f"killed from outside; if that was the kernel for want of memory: {HOST_MEMORY}" if code == -9 else None
