"""A client of an OpenAI-compatible completions API: of a model it tells the likeliest tokens, and nothing else."""

import json
from collections.abc import Iterable, Sequence

import aiohttp

from ..config.schema import Config
from ..engines import openai_api
from ..errors import ScoringError
from .client import Client
from .rate_limit import RateLimit
from .tokenizer import LocalTokenizer, estimate

REFUSALS = (400, 404, 405, 422)  # of what is asked for, whoever asks


class ApiClient(Client):
    """What it is not told it estimates, or takes from the settings: lengths, the context; search.scoring is top20."""

    completions = "/completions"
    exact = False

    def __init__(self, session: aiohttp.ClientSession, config: Config, url: str) -> None:
        model, limits = config.model, config.server
        super().__init__(
            session,
            url=url,
            model=model.served_name or model.name,
            request_mb=limits.request_mb,
            requests_in_flight=limits.requests_in_flight,
            rate_limit_s=limits.start_timeout_s,
        )
        self._context = model.max_model_len
        self._top = model.top_logprobs or openai_api.TOP
        self._tokenizer = LocalTokenizer(self.model, None)
        self._rate = RateLimit(requests_per_min=limits.requests_per_min, tokens_per_min=limits.tokens_per_min)

    async def max_model_len(self) -> int:
        """Return the context length in tokens, as the settings state it."""
        return self._context

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return as many tokens as each text may have: an estimate."""
        return await self._tokenizer.tokenize(texts, special=special)

    async def top_logprobs(self, prompts: Iterable[bytes]) -> list[dict[str, float]]:
        """Return, for each prompt, the likeliest first tokens (text -> log-probability, nats)."""
        parts = await self._complete(prompts, openai_api.asking_for_top(self._top), openai_api.top_logprobs)
        return [answer for part in parts for answer in part]

    async def prove(self) -> None:
        """Score one short prompt; raises ScoringError, with what would work, if this API does not give log-probabilities."""
        try:
            await self.top_logprobs([json.dumps("Is this claim true? Answer:").encode()])
        except ScoringError as error:
            if error.counter == "logprobs" or error.status in REFUSALS:
                raise ScoringError(
                    f"{self.url} gives no log-probabilities of completions by {self.model}, without which nothing can be"
                    f" scored ({error}). An API for chat only, or without logprobs, cannot be used. Choose another"
                    " model.served_name or provider, or a vLLM server (VLLM_BASE_URL, or model=NAME of your own)",
                    counter=error.counter,
                ) from error
            raise

    async def _send(self, method: str, path: str, body: bytes | None, within_s: float | None = None) -> object:
        prompts = json.loads(body)["prompt"] if body else ()  # the texts: their JSON has more characters than they
        await self._rate.wait(sum(map(estimate, prompts)))
        return await super()._send(method, path, body, within_s)
