"""What OpenAI-compatible completions APIs have in common: the body of a request, and what of an answer they all write alike."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadAnswer
from .engine import Fields

GREEDY: Fields = {"max_tokens": 1, "temperature": 0}
MAX_PROMPTS = (
    1024  # of a request: vLLM's VLLM_MAX_COMPLETION_PROMPTS (0.26 to 0.33), OpenAI's own limit is not published
)
ROUNDING = 1e-3  # by which a log-probability may exceed 0


def asking_for_top(k: int) -> Fields:
    """Return the fields that ask for the top-k first tokens."""
    return {**GREEDY, "logprobs": k}


def with_prompts(fields: Mapping[str, Any], prompts: Sequence[bytes]) -> bytes:
    """Return the body of a request; each prompt is JSON already."""
    return b"".join([json.dumps(fields).encode()[:-1], b', "prompt": [', b",".join(prompts), b"]}"])


def in_order(body: Any, n: int) -> list[Mapping[str, Any]]:
    """Return the choices of an answer in the order of its `n` prompts; raises BadAnswer unless there is one for each."""
    told = body.get("choices") if isinstance(body, Mapping) else None
    choices = [choice for choice in told if isinstance(choice, Mapping)] if isinstance(told, list) else []
    places = [choice.get("index") for choice in choices]
    if len(places) != n or set(places) != set(range(n)):
        raise BadAnswer(f"{n} prompts were asked, choices {places[:20]} came back", counter="choices")
    return sorted(choices, key=lambda choice: int(choice["index"]))


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Return the tokens of all prompts of a request, cached ones included, as the answer states them."""
    try:
        return int(body["usage"]["prompt_tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer("the answer does not say how many tokens its prompts had", counter="usage") from error


def is_out_of_quota(content: bytes) -> bool:
    """Return whether an answer 429 says that the account is used up, and not that requests come too fast."""
    try:
        error = json.loads(content)["error"]
        return "insufficient_quota" in (error.get("code"), error.get("type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
