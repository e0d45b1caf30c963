"""An OpenAI-compatible completions API, which others run: of a model it tells the top-k tokens, and nothing else."""

from collections.abc import Mapping
from typing import Any

from ..core.json_values import shown
from ..errors import BadAnswer
from . import completions, vllm_options
from .completions import is_logprob
from .engine import Advice, Completions, Engine, TopTokens

TOP = 5  # top-k tokens: as many as OpenAI gives


def top_logprobs(body: Any, _model: str, n: int) -> list[dict[str, float]]:
    """Return the top-k first tokens after each of `n` prompts, text -> log-probability in nats.

    Whatever model the answer names: an API may know one by several names. Raises BadAnswer for anything else.
    """
    return [_first(choice) for choice in completions.in_order(body, n)]


def _first(choice: Mapping[str, Any]) -> dict[str, float]:
    try:
        listed = {str(token): value for token, value in choice["logprobs"]["top_logprobs"][0].items()}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadAnswer("the answer holds no log-probabilities", counter="logprobs") from error
    if not listed or not all(map(is_logprob, listed.values())):
        raise BadAnswer(f"the top-k tokens came back as {shown(listed)}", counter="logprobs")
    return listed


ENGINE = Engine(
    product="OpenAI",
    key_variable="OPENAI_API_KEY",
    url_variable="OPENAI_BASE_URL",
    default_url="https://api.openai.com/v1",
    needs_key=True,
    options=vllm_options.OPTIONS,  # none is sent; the same are refused as if the model were served
    advice=Advice(
        "choose another model.served_name or provider, or a vLLM server (VLLM_BASE_URL, or model=NAME of your own)"
    ),
    completions=Completions(
        base_url=lambda url: url.rstrip("/"),  # it ends in the API's /v1
        path="/completions",
        max_prompts=completions.MAX_PROMPTS,
        greedy=completions.GREEDY,
        with_prompts=completions.with_prompts,
        choices=lambda body, _model, n: completions.in_order(body, n),
        prompt_tokens=completions.prompt_tokens,
        is_out_of_quota=completions.is_out_of_quota,
    ),
    top=TopTokens(TOP, completions.asking_for_top, top_logprobs),
)
