"""The driver's only way to the server: aiohttp, one session, every wait with a deadline."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import aiohttp
import numpy as np
import numpy.typing as npt

from .engines import vllm
from .errors import IcmError, ScoringError, ServerError

R = TypeVar("R")
Prompt: TypeAlias = list[int] | str  # token ids, or text
RETRY_WAITS_S = (0.2, 1.0, 3.0)  # between the tries of one request


@dataclass(slots=True)
class Traffic:
    """What this client has sent to be scored."""

    requests: int = 0
    prompts: int = 0
    prompt_tokens: int = 0  # as the server counted them
    retries: int = 0


class Client:
    """A served model: tokens of a text, log-probabilities of label tokens."""

    def __init__(
        self, session: aiohttp.ClientSession, *, url: str, model: str, prompts_per_request: int, requests_in_flight: int
    ) -> None:
        self._session, self._url = session, url
        self.model = model
        self._prompts_per_request = prompts_per_request
        self._slots = asyncio.Semaphore(requests_in_flight)
        self.traffic = Traffic()

    async def trouble(self) -> str | None:
        """Return None if GET /health answers 200, else what is wrong."""
        try:
            async with self._session.get(f"{self._url}/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                if response.status == 401:
                    return f"{self._url} refuses this run's key: another server listens there"
                return None if response.status == 200 else f"{self._url}/health answered {response.status}"
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return f"{self._url}: {type(error).__name__}: {error}"

    async def max_model_len(self) -> int:
        """Return the served context length in tokens."""
        return vllm.max_model_len(await self._ask("GET", "/v1/models"), self.model)

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text, by the server's own tokenizer; `special` adds what starts a sequence."""
        bodies = [{"model": self.model, "prompt": text, "add_special_tokens": special} for text in texts]
        answers = await all_of([self._ask("POST", "/tokenize", body) for body in bodies])
        return [[int(token) for token in answer["tokens"]] for answer in answers]

    async def label_logprobs(self, prompts: Sequence[Prompt], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return f64[len(prompts), L]: log P(label | prompt) in nats; all requests are in flight together.

        Raises ScoringError for an answer that is not exactly that, ServerError if the server cannot be reached.
        """

        async def score(batch: Sequence[Prompt]) -> npt.NDArray[np.float64]:
            answer = await self._complete(vllm.label_payload(self.model, batch, label_ids))
            return vllm.label_logprobs(answer, self.model, len(batch), label_ids)

        parts = await all_of([score(batch) for batch in self._batches(prompts)])
        return np.concatenate([np.empty((0, len(label_ids))), *parts])

    async def top_logprobs(self, prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        """Return, for each prompt, the likeliest first tokens (text -> log-probability, nats); errors as above.

        Not to be mixed with `label_logprobs` on one server at one time: vLLM then corrupts answers.
        """

        async def score(batch: Sequence[Prompt]) -> list[dict[str, float]]:
            answer = await self._complete(vllm.top_payload(self.model, batch))
            return vllm.top_logprobs(answer, self.model, len(batch))

        parts = await all_of([score(batch) for batch in self._batches(prompts)])
        return [answer for part in parts for answer in part]

    async def counters(self) -> dict[str, float]:
        """Return the server's own counts since it started."""
        return vllm.counters(await self._ask("GET", "/metrics", text=True))

    def _batches(self, prompts: Sequence[Prompt]) -> list[Sequence[Prompt]]:
        size = self._prompts_per_request
        return [prompts[start : start + size] for start in range(0, len(prompts), size)]

    async def _complete(self, body: dict[str, Any]) -> Any:
        answer = await self._ask("POST", "/v1/completions", body)
        self.traffic.requests += 1
        self.traffic.prompts += len(body["prompt"])
        self.traffic.prompt_tokens += vllm.prompt_tokens(answer)
        return answer

    async def _ask(self, method: str, path: str, body: Any = None, *, text: bool = False) -> Any:
        """Send one request, again after a failure that may pass: no connection, no answer in time, 5xx, 429."""
        for wait_s in (*RETRY_WAITS_S, None):
            try:
                async with self._slots:
                    return await self._send(method, path, body, text=text)
            except ServerError:  # noqa: PERF203
                if wait_s is None:
                    raise
                self.traffic.retries += 1
                await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    async def _send(self, method: str, path: str, body: Any, *, text: bool) -> Any:
        url = f"{self._url}{path}"
        try:
            async with self._session.request(method, url, json=body) as response:
                if response.status == 200:
                    return await (response.text() if text else response.json())
                detail = (await response.text())[:500]
                kind: type[IcmError] = ServerError if response.status >= 500 or response.status == 429 else ScoringError
                raise kind(f"{method} {url} answered {response.status}: {detail}")
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            raise ServerError(f"{method} {url}: {type(error).__name__}: {error}") from error


def open_session(key: str, timeout_s: float) -> aiohttp.ClientSession:
    """Return the session that all requests of a run share; `timeout_s` bounds each request."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"},
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=10),
        connector=aiohttp.TCPConnector(limit=0),
    )


async def all_of(coroutines: Sequence[Coroutine[Any, Any, R]]) -> list[R]:
    """Return all results, in order; the first failure stops the others and is raised (TaskGroup needs Python 3.11).

    Cancelled, it stops all; a failure to stop, such as a state that cannot be saved, is raised instead.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException as first:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [end for end in ends if isinstance(end, Exception)]
        if isinstance(first, asyncio.CancelledError) and failures:
            raise failures[0] from first
        raise
