"""Options of vLLM: those that model.vllm_args may not hold, because a setting of ours has each or because the job depends on
it; and which of a command line the installed vLLM knows.
"""

from collections.abc import Collection, Sequence

from .options import Options, written_plainly

# By option, the setting that has it.
SETTINGS = {
    "model": "model.path",
    "model-tag": "model.path",
    "served-model-name": "model.served_name",
    "dtype": "model.dtype",
    "revision": "model.revision",
    "quantization": "model.quantization",
    "kv-cache-dtype": "model.kv_cache_dtype",
    "max-model-len": "model.max_model_len",
    "tensor-parallel-size": "model.tensor_parallel_size",
    "pipeline-parallel-size": "model.pipeline_parallel_size",
    "gpu-memory-utilization": "model.gpu_memory_utilization",
    "device-memory-utilization": "model.gpu_memory_utilization",
    "max-num-seqs": "model.max_num_seqs",
    "max-num-batched-tokens": "model.max_num_batched_tokens",
    "block-size": "model.block_size",
    "enforce-eager": "model.enforce_eager",
    "trust-remote-code": "model.trust_remote_code",
    "download-dir": "model.download_dir",
    "data-parallel-size": "server.replicas",
    "nnodes": "server.nodes",
}

_ADDRESS = "the run chooses the address of its server, and the driver connects to that one"
_KEY = "the run makes a key of its own for its server"
_RANKS = "the run places the ranks of its server on the nodes of the job"
_REPLICAS = "the run sends requests to each replica itself: server.replicas is how many"
_SCORES = "scores must be the model's own log-probabilities, and it changes what the server returns"

# By option, why it has no setting.
REASONS = {
    "host": _ADDRESS,
    "port": _ADDRESS,
    "uds": _ADDRESS,
    "root-path": _ADDRESS,
    "grpc": _ADDRESS,
    "grpc-port": _ADDRESS,
    "ssl-keyfile": _ADDRESS,
    "ssl-certfile": _ADDRESS,
    "ssl-ca-certs": _ADDRESS,
    "ssl-cert-reqs": _ADDRESS,
    "ssl-ciphers": _ADDRESS,
    "enable-ssl-refresh": _ADDRESS,
    "api-key": _KEY,
    "middleware": _KEY,
    "hf-token": "a secret would stand in config.yaml and on a command line: run `hf auth login` where the nodes see it",
    "node-rank": _RANKS,
    "master-addr": _RANKS,
    "master-port": _RANKS,
    "headless": _RANKS,
    "prefill-context-parallel-size": "it takes GPUs that the job does not ask for",
    **{
        f"data-parallel-{name}": _REPLICAS
        for name in (
            "rank", "start-rank", "size-local", "address", "rpc-port", "backend", "hybrid-lb", "external-lb",
            "multi-port-external-lb", "supervisor-port",
        )
    },
    "config": "its file could set any of the options that a run sets itself: write them into model.vllm_args",
    "help": "vLLM would print its options and exit",
    "runner": _SCORES,
    "convert": _SCORES,
    "logprobs-mode": _SCORES,
    "skip-tokenizer-init": "the run asks its server for the tokens of its prompts",
    "tokens-only": "the run asks its server for the tokens of its prompts",
    **dict.fromkeys(
        ("speculative-config", "spec-method", "spec-model", "spec-tokens"),
        "no prompt is answered with more than one token, so it saves nothing, and it changes what the server returns",
    ),
}  # fmt: skip

SHORT = {
    "tp": "tensor-parallel-size", "pp": "pipeline-parallel-size", "q": "quantization", "n": "nnodes", "r": "node-rank",
    "dp": "data-parallel-size", "dpn": "data-parallel-rank", "dpr": "data-parallel-start-rank",
    "dpl": "data-parallel-size-local", "dpa": "data-parallel-address", "dpp": "data-parallel-rpc-port",
    "dpb": "data-parallel-backend", "dph": "data-parallel-hybrid-lb", "dpe": "data-parallel-external-lb",
    "dpm": "data-parallel-multi-port-external-lb", "pcp": "prefill-context-parallel-size", "sc": "speculative-config",
    "h": "help",
}  # fmt: skip

# delay-ms is the stub's, which takes vLLM's other options.
NEUTRAL = frozenset({
    "block-size", "enforce-eager", "enable-scale-out", "num-gpu-blocks-override", "api-server-count", "swap-space",
    "data-parallel-size", "disable-log-stats", "distributed-executor-backend", "delay-ms",
})  # fmt: skip

OPTIONS = Options("vLLM", SETTINGS, REASONS, SHORT, NEUTRAL)

# Without one of these a run has no server, one that others can ask, or one that answers something else: it is not left out.
NEEDED = frozenset({
    "host", "port", "middleware", "served-model-name", "headless", "nnodes", "node-rank", "master-addr", "master-port",
    "data-parallel-size", "data-parallel-rpc-port", "tensor-parallel-size", "pipeline-parallel-size", "max-model-len",
    "dtype", "revision", "quantization", "kv-cache-dtype", "trust-remote-code", "hf-overrides", "rope-scaling", "rope-theta",
})  # fmt: skip
LEFT_OUT = "icm_hpc: not sent to vLLM:"  # begins a line of the server's log
REFUSED = "icm_hpc: vLLM is not started:"  # the same


def known_to(words: Sequence[str], options: Collection[str]) -> tuple[list[str], list[str]]:
    """Return a command line without the options that vLLM's parser does not have, and the names of those, with dashes.

    The parser takes beginnings of its options, too, and inner keys (`--hf-overrides.head_dtype`).
    """
    kept: list[str] = []
    unknown: list[str] = []
    is_known = True
    for word in words:
        if word.startswith("--"):  # what follows it up to the next option is its value
            begun = f"--{written_plainly(word)}"
            is_known = any(option.startswith(begun) for option in options)
            unknown += [] if is_known else [word]
        kept += [word] if is_known else []
    return kept, unknown


def is_needed(name: str) -> bool:
    """Return whether a run cannot do without an option."""
    return written_plainly(name).removeprefix("no-") in NEEDED
