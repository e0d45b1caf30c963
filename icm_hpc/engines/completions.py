"""What OpenAI-compatible completions APIs have in common: the body of a request, and what of an answer they all write alike."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ..core.json_values import from_json, shown
from ..errors import BadAnswer
from .engine import Fields

GREEDY: Fields = {"max_tokens": 1, "temperature": 0}
MAX_PROMPTS = (
    1024  # of a request: vLLM's VLLM_MAX_COMPLETION_PROMPTS (0.26 to 0.33), OpenAI's own limit is not published
)
ROUNDING = 1e-3  # by which a log-probability may exceed 0
MINUS_INFINITY = -9999.0  # how vLLM writes -inf into JSON, and OpenAI a token that is not among the top ones
LARGEST = 2**53  # of a count


def asking_for_top(k: int) -> Fields:
    """Return the fields that ask for the top-k first tokens."""
    return {**GREEDY, "logprobs": k}


def with_prompts(fields: Mapping[str, Any], prompts: Sequence[bytes]) -> bytes:
    """Return the body of a request; each prompt is JSON already."""
    return b"".join([json.dumps(fields).encode()[:-1], b', "prompt": [', b",".join(prompts), b"]}"])


def in_order(body: Any, n: int) -> list[Mapping[str, Any]]:
    """Return the choices of an answer in the order of its `n` prompts; raises BadAnswer unless there is one for each."""
    told = body.get("choices") if isinstance(body, Mapping) else None
    choices = told if isinstance(told, list) else []
    places = [choice.get("index") if isinstance(choice, Mapping) else None for choice in choices]
    known = [place for place in places if is_count(place)]
    if len(places) != n or sorted(known) != list(range(n)):
        raise BadAnswer(f"{n} prompts were asked, choices {shown(places)} came back", counter="choices")
    return sorted(choices, key=lambda choice: choice["index"])


def prompt_tokens(body: Any) -> int:
    """Return the tokens of all prompts of a request, cached ones included, as the answer states them."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    tokens = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    if not is_count(tokens):
        raise BadAnswer("the answer does not say how many tokens its prompts had", counter="usage")
    return tokens


def is_count(value: Any) -> TypeGuard[int]:
    """Return whether a value is a number of things."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def is_logprob(value: Any) -> TypeGuard[float]:
    """Return whether a value is a log-probability, or what stands for -inf."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return MINUS_INFINITY <= value <= ROUNDING and math.isfinite(value)


def is_out_of_quota(content: bytes) -> bool:
    """Return whether an answer 429 says that the account is used up, and not that requests come too fast."""
    try:
        error = from_json(content)["error"]
        return "insufficient_quota" in (error.get("code"), error.get("type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
