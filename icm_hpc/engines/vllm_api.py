"""vLLM: how its OpenAI-compatible server is asked for label log-probabilities, and read."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from ..core.json_values import shown
from ..errors import BadAnswer, NoAnswer, ScoringError
from . import completions, vllm_versions
from .completions import GREEDY, LARGEST, MINUS_INFINITY, is_count, is_logprob
from .engine import Completions, Counters, Fields, Labels, Metrics, Models, Tokens, TopTokens, Version

MAX_ID = 2**32  # of a token
MAX_LABEL_IDS = 128  # of a request: vLLM's MAX_LOGPROB_TOKEN_IDS (sampling_params.py of 0.32.0)
TOP = 20  # top-k tokens; a server gives no more unless told so at its start
# Of prompt tokens: those looked up in the prefix cache, of these the ones found there, and all.
COUNTED = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total", "vllm:prompt_tokens_total")


def asking_for_labels(label_ids: Sequence[int]) -> Fields:
    """Return the fields that ask for log P(label | prompt), exact whatever is sampled."""
    asked = {"logprobs": len(label_ids), "logprob_token_ids": list(label_ids), "return_tokens_as_token_ids": True}
    return {**GREEDY, **asked}


def asking_for_top_ids() -> Fields:
    """Return the fields that ask for the top-k first tokens, by their ids instead of their texts."""
    return {**completions.asking_for_top(TOP), "return_tokens_as_token_ids": True}


def base_url(url: str) -> str:
    """Return a server's address without /v1, which is a part of the paths."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def to_replica(number: int) -> dict[str, str]:
    """Return the header that sends a request to one of the data-parallel engines."""
    return {"X-data-parallel-rank": str(number)}


def label_logprobs(body: Mapping[str, Any], model: str, n: int, label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return f64[n, L], the log-probability of each label after each prompt, in nats.

    Raises ScoringError unless the answer is of `model`, BadAnswer unless it has n choices, each with a finite value for
    every label.
    """
    values = [_label_values(listed, label_ids) for listed in _listed(body, model, n)]
    return np.array(values).reshape(n, len(label_ids))


def top_logprobs(body: Mapping[str, Any], model: str, n: int) -> list[dict[str, float]]:
    """Return the top-k first tokens after each prompt, text -> log-probability in nats; errors as above."""
    answers = [{str(token): value for token, value in listed.items()} for listed in _listed(body, model, n)]
    for answer in answers:
        # -9999 beside the token 0 is what an answer corrupted by a request of the other kind looks like.
        if not answer or not all(_is_logprob(value) for value in answer.values()):
            raise BadAnswer(f"the top-k tokens came back as {shown(answer)}", counter="logprobs")
    return answers


def top_ids(body: Mapping[str, Any], model: str) -> dict[int, float]:
    """Return the top-k first tokens after the only prompt, id -> log-probability in nats; errors as above."""
    (listed,) = top_logprobs(body, model, 1)
    found = {name: re.fullmatch(r"token_id:([0-9]{1,10})", name) for name in listed}
    if not all(found.values()):
        said = f"the top-k tokens came back by their texts ({shown(list(listed)[:3])}...), not by their ids"
        raise BadAnswer(said, counter="logprobs")
    return {int(id_[1]): listed[name] for name, id_ in found.items() if id_}


def asking_for_tokens(model: str, text: str, *, special: bool) -> Fields:
    """Return the body of POST /tokenize; `special` adds what starts a sequence."""
    return {"model": model, "prompt": text, "add_special_tokens": special}


def tokens(body: Any) -> list[int]:
    """Return what POST /tokenize answers."""
    told = body.get("tokens") if isinstance(body, Mapping) else None
    if not isinstance(told, list) or not all(is_count(token) and token < MAX_ID for token in told):
        raise BadAnswer("the answer holds no tokens", counter="choices")
    return told


def served(models: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the context length, in tokens, of each model that GET /v1/models lists; None if it is not stated."""
    try:
        return {str(card["id"]): _length(card.get("max_model_len")) for card in models["data"]}
    except (AttributeError, KeyError, TypeError) as error:
        raise BadAnswer(f"the answer lists no models: {shown(models)}", counter="not_json") from error


def root(models: Any, name: str) -> str | None:
    """Return the path or hub name that GET /v1/models states of `name`, or None."""
    listed = models.get("data") if isinstance(models, Mapping) else None
    cards = [card for card in listed if isinstance(card, Mapping)] if isinstance(listed, list) else []
    found = next((card.get("root") for card in cards if card.get("id") == name), None)
    return found if isinstance(found, str) and found else None


def _length(told: Any) -> int | None:
    return told if is_count(told) and told > 1 else None


def max_model_len(models: Mapping[str, Any], name: str) -> int:
    """Return the context length, in tokens, that GET /v1/models states of `name`; raises ScoringError if it is not served."""
    lengths = served(models)
    if name not in lengths:
        raise ScoringError(f"the server serves {shown(sorted(lengths))}, not {name!r}", counter="other_model")
    length = lengths[name]
    if length is None:
        raise ScoringError(f"the server does not state the context length of {name!r}", counter="other_model")
    return length


def version(body: Mapping[str, Any]) -> str:
    """Return what GET /version answers."""
    try:
        told = body["version"]
    except (KeyError, TypeError) as error:
        raise BadAnswer(f"the answer states no version: {shown(body)}", counter="not_json") from error
    if not isinstance(told, str) or not re.fullmatch(r"[\x21-\x7e]{1,100}", told):
        raise BadAnswer(f"the answer states no version: {shown(told)}", counter="not_json")
    return told


def counted(content: Any) -> Metrics:
    """Return what GET /metrics answers; errors as of `metrics`."""
    if not isinstance(content, bytes):
        raise BadAnswer(f"the answer is no text: {shown(content)}", counter="not_json")
    return metrics(content.decode(errors="replace"))


def metrics(text: str) -> Metrics:
    """Read GET /metrics; raises BadAnswer if there are no counters of a prefix cache, or one that is no number."""
    try:
        return _metrics(text)
    except (IndexError, OverflowError, ValueError) as error:
        said = f"GET /metrics has a counter that is no number: {shown(str(error))}"
        raise BadAnswer(said, counter="not_json") from error


def _metrics(text: str) -> Metrics:
    looked_up, hits, prompts = COUNTED
    totals = dict.fromkeys(COUNTED, 0.0)
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
    if not 0 <= hit <= max(queried, hit) < LARGEST or queried < 0:
        raise ValueError(f"{queried} tokens looked up, {hit} found")
    size = blocks[0][0] if blocks else None
    return Metrics(queried, hit, size, sum(a * b for a, b in blocks) if blocks else None)


def choices(body: Mapping[str, Any], model: str, n: int) -> list[Mapping[str, Any]]:
    """Return what was generated after each prompt, in the order of the prompts; errors as of `label_logprobs`."""
    if not isinstance(body, Mapping):
        raise BadAnswer(f"the answer is no object: {shown(body)}", counter="not_json")
    if body.get("model") != model:
        raise ScoringError(f"the answer is of model {shown(body.get('model'))}, not {model!r}", counter="other_model")
    given = completions.in_order(body, n)
    if any(choice.get("finish_reason") == "abort" for choice in given):
        raise NoAnswer("the server gave up a request, as it does when it is told to stop", counter="aborted")
    return given


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
            said = f"label token {token}: its log-probability is not in the answer ({vllm_versions.REQUIRED})"
            raise BadAnswer(said, counter="logprobs")
        # A request with plain logprobs in the same engine step corrupts answers without an error (measured with 0.32.0).
        if not _is_logprob(value):
            raise BadAnswer(f"label token {token}: its log-probability came back as {shown(value)}", counter="logprobs")
        values.append(float(value))
    return values


def _is_logprob(value: Any) -> TypeGuard[float]:
    return is_logprob(value) and value > MINUS_INFINITY


COMPLETIONS = Completions(
    base_url=base_url,
    path="/v1/completions",
    max_prompts=completions.MAX_PROMPTS,
    greedy=GREEDY,
    with_prompts=completions.with_prompts,
    choices=choices,
    prompt_tokens=completions.prompt_tokens,
    is_out_of_quota=completions.is_out_of_quota,
    salt_field="cache_salt",
)
TOP_TOKENS = TopTokens(TOP, completions.asking_for_top, top_logprobs)
LABELS = Labels(MAX_LABEL_IDS, asking_for_labels, label_logprobs, asking_for_top_ids, top_ids)
TOKENS = Tokens("/tokenize", asking_for_tokens, tokens)
MODELS = Models("/v1/models", served, root, max_model_len)
VERSION = Version("/version", version, vllm_versions.is_too_old, vllm_versions.standing)
COUNTERS = Counters("/metrics", counted)
