"""vLLM: how its OpenAI-compatible server is started, asked for label log-probabilities, and read. Tested with 0.32.0."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from ..config.schema import ModelConfig
from ..config.vllm_options import REASONS
from ..errors import BadAnswer, NoAnswer, ScoringError
from . import vllm_symptoms
from .engine import Rank

TESTED = "0.32.0"
KEY_VARIABLE = "VLLM_API_KEY"
READY_VARIABLE = "VLLM_ENGINE_READY_TIMEOUT_S"  # whole seconds
MAX_READY_S = 2_000_000  # vLLM passes it on in milliseconds, to what takes 31 bits
MINUS_INFINITY = -9999.0  # how vLLM writes -inf into JSON
MAX_PROMPTS = (
    1024  # of a request: vLLM's VLLM_MAX_COMPLETION_PROMPTS (0.26 to 0.33), OpenAI's own limit is not published
)
MAX_LABEL_IDS = 128  # of a request: vLLM's MAX_LOGPROB_TOKEN_IDS (sampling_params.py of 0.32.0)
OLDEST = (0, 26)  # whose /v1/completions heeds logprob_token_ids; older ones ignore the field
NEEDS_OLDEST = "vLLM 0.26 or newer is required: older ones ignore logprob_token_ids"
ROUNDING = 1e-3  # by which a log-probability may exceed 0
TOP = 20  # likeliest tokens; a server gives no more unless told so at its start
GREEDY = {"max_tokens": 1, "temperature": 0}

# Options that published configurations hold and vLLM 0.32.0 no longer has: not sent.
GONE = {
    "swap-space",
    "num-scheduler-steps",
    "use-v2-block-manager",
    "disable-log-requests",
    "disable-frontend-multiprocessing",
    "preemption-mode",
    "max-seq-len-to-capture",
    "worker-use-ray",
    "engine-use-ray",
}


def argv(
    model: ModelConfig, weights: Path | str, *, host: str, port: int, replicas: int = 1, rank: Rank | None = None
) -> list[str]:
    """Return the command that serves `weights` under the model's name, or one node's rank of it."""
    options: dict[str, Any] = {
        "served-model-name": model.known_as,
        "dtype": model.dtype,
        "max-model-len": model.max_model_len,
        "tensor-parallel-size": model.tensor_parallel_size,
        "pipeline-parallel-size": model.pipeline_parallel_size,
        "gpu-memory-utilization": model.gpu_memory_utilization,
        "max-num-seqs": model.max_num_seqs,
        "max-num-batched-tokens": model.max_num_batched_tokens,
        "enable-prefix-caching": True,
        # Its own key check leaves /invocations, /tokenize and others open (measured with 0.32.0).
        "middleware": "icm_hpc.engines.require_key.RequireKey",
        "disable-uvicorn-access-log": True,
        **_placed(host, port, replicas, rank),
    }
    optional = ("revision", "quantization", "kv_cache_dtype", "block_size", "enforce_eager", "trust_remote_code")
    options.update({name.replace("_", "-"): getattr(model, name) for name in (*optional, "download_dir")})
    # vllm_options refuses what a run sets itself; a run of an older version may still hold it.
    own = {name.replace("_", "-"): value for name, value in model.vllm_args.items()}
    options.update({name: value for name, value in own.items() if name not in REASONS})
    if options.get("headless"):
        options.pop("api-server-count", None)  # it has none, and vLLM refuses to be told how many
    flags = [word for name, value in options.items() if name not in GONE for word in _flag(name, value)]
    return [sys.executable, "-m", "icm_hpc.engines.vllm_serve", "serve", str(weights), *flags]


def _placed(host: str, port: int, replicas: int, rank: Rank | None) -> dict[str, Any]:
    """Return the options by which an engine listens, replicates itself, and spreads over nodes."""
    placed: dict[str, Any] = {"data-parallel-size": replicas} if replicas > 1 else {}
    if rank is not None:
        placed |= {"nnodes": rank.nodes, "node-rank": rank.number}
        placed |= {"master-addr": rank.address, "master-port": rank.port}
        if replicas > 1:
            placed["data-parallel-rpc-port"] = rank.rpc_port
        if rank.number > 0:
            return {**placed, "headless": True}
    return {"host": host, "port": port, **placed}


def environment(
    model: ModelConfig, key: str, *, address: str | None = None, start_timeout_s: float | None = None
) -> Mapping[str, str]:
    """Return the variables that the server is given: the key, no telemetry, its address, its patience, and the preset's own."""
    placed = {"VLLM_HOST_IP": address} if address else {}
    if start_timeout_s is not None:  # its API servers wait 600 s for its engines if not told otherwise
        placed[READY_VARIABLE] = str(min(math.ceil(start_timeout_s), MAX_READY_S))
    return {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", **placed, **model.env, KEY_VARIABLE: key}


def remedy(code: int, last_words: str) -> str | None:
    """Return what an engine died of and what to do, if its exit code and the end of its log tell."""
    return vllm_symptoms.remedy(code, last_words)


def root_cause(log: str) -> str | None:
    """Return the exception of which an engine died, by the log of its start, or None if there is none."""
    return vllm_symptoms.root_cause(log)


def asking_for_labels(label_ids: Sequence[int]) -> dict[str, Any]:
    """Return the fields of POST /v1/completions that ask for log P(label | prompt), exact whatever is sampled."""
    asked = {"logprobs": len(label_ids), "logprob_token_ids": list(label_ids), "return_tokens_as_token_ids": True}
    return {**GREEDY, **asked}


def asking_for_top() -> dict[str, Any]:
    """Return the fields of POST /v1/completions that ask for the likeliest first tokens."""
    return {**GREEDY, "logprobs": TOP}


def asking_for_top_ids() -> dict[str, Any]:
    """Return the same, for the tokens' ids instead of their texts."""
    return {**asking_for_top(), "return_tokens_as_token_ids": True}


def to_replica(number: int) -> dict[str, str]:
    """Return the header that sends a request to one of the data-parallel engines."""
    return {"X-data-parallel-rank": str(number)}


def with_prompts(fields: Mapping[str, Any], prompts: Sequence[bytes]) -> bytes:
    """Return the body of POST /v1/completions; each prompt is JSON already."""
    return b"".join([json.dumps(fields).encode()[:-1], b', "prompt": [', b",".join(prompts), b"]}"])


def label_logprobs(body: Mapping[str, Any], model: str, n: int, label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return f64[n, L], the log-probability of each label after each prompt, in nats.

    Raises ScoringError unless the answer is of `model`, BadAnswer unless it has n choices, each with a finite value for
    every label.
    """
    values = [_label_values(listed, label_ids) for listed in _listed(body, model, n)]
    return np.array(values).reshape(n, len(label_ids))


def top_logprobs(body: Mapping[str, Any], model: str, n: int) -> list[dict[str, float]]:
    """Return the likeliest first tokens after each prompt, text -> log-probability in nats; errors as above."""
    answers = [{str(token): value for token, value in listed.items()} for listed in _listed(body, model, n)]
    for answer in answers:
        # -9999 beside the token 0 is what an answer corrupted by a request of the other kind looks like.
        if not answer or not all(_is_logprob(value) for value in answer.values()):
            raise BadAnswer(f"the likeliest tokens came back as {answer!r}", counter="logprobs")
    return answers


def top_ids(body: Mapping[str, Any], model: str) -> dict[int, float]:
    """Return the likeliest first tokens after the only prompt, id -> log-probability in nats; errors as above."""
    (listed,) = top_logprobs(body, model, 1)
    try:
        return {int(name.removeprefix("token_id:")): value for name, value in listed.items()}
    except ValueError as error:
        said = f"the likeliest tokens came back by their texts ({list(listed)[:3]}...), not by their ids"
        raise BadAnswer(said, counter="logprobs") from error


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Return the tokens of all prompts of a request, cached ones included, as the answer states them."""
    try:
        return int(body["usage"]["prompt_tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer("the answer does not say how many tokens its prompts had", counter="usage") from error


def tokens(body: Mapping[str, Any]) -> list[int]:
    """Return what POST /tokenize answers."""
    try:
        return [int(token) for token in body["tokens"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer("the answer holds no tokens", counter="choices") from error


def served(models: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the context length, in tokens, of each model that GET /v1/models lists; None if it is not stated."""
    try:
        return {str(card["id"]): _length(card.get("max_model_len")) for card in models["data"]}
    except (AttributeError, KeyError, TypeError) as error:
        raise BadAnswer(f"the answer lists no models: {str(models)[:100]}", counter="not_json") from error


def root(models: Any, name: str) -> str | None:
    """Return the path or hub name that GET /v1/models states of `name`, or None."""
    listed = models.get("data") if isinstance(models, Mapping) else None
    cards = [card for card in listed if isinstance(card, Mapping)] if isinstance(listed, list) else []
    found = next((card.get("root") for card in cards if card.get("id") == name), None)
    return found if isinstance(found, str) and found else None


def _length(told: Any) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 1 else None


def max_model_len(models: Mapping[str, Any], name: str) -> int:
    """Return the context length, in tokens, that GET /v1/models states of `name`; raises ScoringError if it is not served."""
    lengths = served(models)
    if name not in lengths:
        raise ScoringError(f"the server serves {sorted(lengths)}, not {name!r}", counter="other_model")
    length = lengths[name]
    if length is None:
        raise ScoringError(f"the server does not state the context length of {name!r}", counter="other_model")
    return length


def version(body: Mapping[str, Any]) -> str:
    """Return what GET /version answers."""
    try:
        return str(body["version"])
    except (KeyError, TypeError) as error:
        raise BadAnswer(f"the answer states no version: {str(body)[:100]}", counter="not_json") from error


# Of prompt tokens: those looked up in the prefix cache, of these the ones found there, and all.
COUNTERS = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total", "vllm:prompt_tokens_total")


def is_too_old(version: str) -> bool:
    """Return whether a version is known to ignore what we ask for; a build between releases may state any number."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return found is not None and ".dev" not in version and tuple(map(int, found.groups())) < OLDEST


@dataclass(frozen=True, slots=True)
class Metrics:
    """What GET /metrics tells, summed over the engines of a server."""

    prompt_tokens: int  # of all requests so far
    cached_tokens: int  # of these, found in the prefix cache
    block_size: int | None  # tokens; None if the server does not say
    cache_tokens: int | None  # that the cache holds at most

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that had to be computed."""
        return self.prompt_tokens - self.cached_tokens


def metrics(text: str) -> Metrics:
    """Read GET /metrics; raises BadAnswer if there are no counters of a prefix cache, or one that is no number."""
    try:
        return _metrics(text)
    except (IndexError, OverflowError, ValueError) as error:
        raise BadAnswer(f"GET /metrics has a counter that is no number: {error}", counter="not_json") from error


def _metrics(text: str) -> Metrics:
    looked_up, hits, prompts = COUNTERS
    totals = dict.fromkeys(COUNTERS, 0.0)
    found: set[str] = set()
    blocks: list[tuple[int, int]] = []
    for line in text.splitlines():
        name = re.split(r"[{ ]", line, maxsplit=1)[0]
        if name in totals:
            found.add(name)
            totals[name] += float(line.rsplit(" ", 1)[1])
        elif name == "vllm:cache_config_info":
            told = dict(re.findall(r'(block_size|num_gpu_blocks)="(\d+)"', line))
            if len(told) == 2:
                blocks.append((int(told["block_size"]), int(told["num_gpu_blocks"])))
    if not {looked_up, hits} <= found:
        raise BadAnswer("GET /metrics has no counters of a prefix cache", counter="not_json")
    queried, hit = (
        int(totals[looked_up] or totals[prompts]),
        int(totals[hits]),
    )  # none is looked up where the cache is off
    size = blocks[0][0] if blocks else None
    return Metrics(queried, hit, size, sum(a * b for a, b in blocks) if blocks else None)


def choices(body: Mapping[str, Any], model: str, n: int) -> list[Mapping[str, Any]]:
    """Return what was generated after each prompt, in the order of the prompts; errors as of `label_logprobs`."""
    if not isinstance(body, Mapping):
        raise BadAnswer(f"the answer is no object: {str(body)[:100]}", counter="not_json")
    if body.get("model") != model:
        raise ScoringError(f"the answer is of model {body.get('model')!r}, not {model!r}", counter="other_model")
    told = body.get("choices")
    given = [choice for choice in told if isinstance(choice, Mapping)] if isinstance(told, list) else []
    found = [choice.get("index") for choice in given]
    if len(found) != n or set(found) != set(range(n)):
        raise BadAnswer(f"{n} prompts were asked, choices {found[:20]} came back", counter="choices")
    if any(choice.get("finish_reason") == "abort" for choice in given):
        raise NoAnswer("the server gave up a request, as it does when it is told to stop", counter="aborted")
    return sorted(given, key=lambda choice: int(choice["index"]))


def _listed(body: Mapping[str, Any], model: str, n: int) -> list[Mapping[str, Any]]:
    """Return what is listed for the first token after each prompt, in the order of the prompts."""
    try:
        return [dict(choice["logprobs"]["top_logprobs"][0]) for choice in choices(body, model, n)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        said = "the answer holds no log-probabilities, as one of vLLM does"
        raise BadAnswer(said, counter="logprobs") from error


def _label_values(listed: Mapping[str, Any], label_ids: Sequence[int]) -> list[float]:
    values = []
    for token in label_ids:
        value = listed.get(f"token_id:{token}")
        if value is None:
            said = f"label token {token}: its log-probability is not in the answer ({NEEDS_OLDEST})"
            raise BadAnswer(said, counter="logprobs")
        # A request with plain logprobs in the same engine step corrupts answers without an error (measured with 0.32.0).
        if not _is_logprob(value):
            raise BadAnswer(f"label token {token}: its log-probability came back as {value!r}", counter="logprobs")
        values.append(float(value))
    return values


def _is_logprob(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value) and MINUS_INFINITY < value <= ROUNDING


def _flag(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}"] if value else [f"--no-{name}"]
    return [f"--{name}", json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
