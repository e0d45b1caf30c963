"""What an engine inherits of the environment of the shell or the job that started us."""

import re
from collections.abc import Mapping

from . import ENGINES

# What is not handed on, and why; model.env sets any of it on purpose. All else is: HF_*, CUDA_*, NCCL_*, what tunes vLLM.
KEPT_OUT = {
    r"VLLM_(HOST_IP|PORT|LOOPBACK_IP|RPC_.*|DP_.*|RAY_.*|NIXL_.*|EC_SIDE_.*|MOONCAKE_.*)": "places its ranks, which we do",
    r"(MASTER_ADDR|MASTER_PORT|RANK|WORLD_SIZE|(LOCAL|NODE|GROUP|ROLE)_(RANK|WORLD_SIZE)|TORCHELASTIC_.*)": "of a launcher"
    " of torch.distributed, in which the engine would believe itself to be",
    r"VLLM_(SERVER_DEV_MODE|ALLOW_RUNTIME_LORA_UPDATING|TORCH_PROFILER_.*)": "opens routes that put the server to sleep,"
    " change its weights or write files",
    r"VLLM_ALLOW_INSECURE_SERIALIZATION": "lets its processes unpickle what they are sent",
    r"VLLM_(CONFIGURE_LOGGING|LOGGING_CONFIG_PATH|LOGGING_STREAM|LOGGING_PREFIX|DEBUG_LOG_API_SERVER_RESPONSE)": "changes"
    " the log, in which the cause of a failure is looked for, and prompts would be written",
    r"VLLM_(USE_RUST_FRONTEND|RUST_FRONTEND_PATH)": "another API server, without our check of the key",
    r"VLLM_(KEEP_ALIVE_ON_ENGINE_DEATH|TEST_FORCE_LOAD_FORMAT|MODEL_REDIRECT_PATH|SKIP_MODEL_NAME_VALIDATION)": "serves"
    " after the engine has died, or other weights than those that the run names",
}
_KEPT_OUT = re.compile("|".join(KEPT_OUT))
# Of the user's own servers: ours has a key of its own.
_KEYS_AND_URLS = {name for engine in ENGINES.values() for name in (engine.key_variable, engine.url_variable)}


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of our environment that an engine may have."""
    return {name: value for name, value in ours.items() if name not in _KEYS_AND_URLS and not _KEPT_OUT.fullmatch(name)}
