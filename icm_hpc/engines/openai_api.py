"""An OpenAI-compatible completions API, which others run: how it is asked for the likeliest first tokens, and read."""

import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import BadAnswer
from .vllm import ROUNDING

TOP = 5  # likeliest tokens: as many as OpenAI gives


def asking_for_top(n: int) -> dict[str, Any]:
    """Return the fields of POST /completions that ask for the `n` likeliest first tokens."""
    return {"max_tokens": 1, "temperature": 0, "logprobs": n}


def top_logprobs(body: Any, n: int) -> list[dict[str, float]]:
    """Return the likeliest first tokens after each of `n` prompts, text -> log-probability in nats.

    Whatever model the answer names: an API may know one by several names. Raises BadAnswer for anything else.
    """
    told = body.get("choices") if isinstance(body, Mapping) else None
    choices = [choice for choice in told if isinstance(choice, Mapping)] if isinstance(told, list) else []
    places = [choice.get("index") for choice in choices]
    if len(places) != n or set(places) != set(range(n)):
        raise BadAnswer(f"{n} prompts were asked, choices {places[:20]} came back", counter="choices")
    return [_first(choice) for choice in sorted(choices, key=lambda choice: int(choice["index"]))]


def is_out_of_quota(content: bytes) -> bool:
    """Return whether an answer 429 says that the account is used up, and not that requests come too fast."""
    try:
        error = json.loads(content)["error"]
        return "insufficient_quota" in (error.get("code"), error.get("type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _first(choice: Mapping[str, Any]) -> dict[str, float]:
    try:
        listed = {str(token): float(value) for token, value in choice["logprobs"]["top_logprobs"][0].items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadAnswer("the answer holds no log-probabilities", counter="logprobs") from error
    if not listed or not all(math.isfinite(value) and value <= ROUNDING for value in listed.values()):
        raise BadAnswer(f"the likeliest tokens came back as {listed!r}", counter="logprobs")
    return listed
