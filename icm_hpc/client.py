"""The driver's only way to the server: aiohttp, one session, every wait with a deadline."""

import asyncio
import copy
import io
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import numpy as np
import numpy.typing as npt

from .engines import vllm
from .errors import IcmError, ScoringError, ServerError

R = TypeVar("R")
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
        self,
        session: aiohttp.ClientSession,
        *,
        url: str,
        model: str,
        request_mb: float,
        requests_in_flight: int,
    ) -> None:
        self._session, self._url = session, url
        self.model = model
        self._request_bytes = request_mb * 1e6
        self._slots = asyncio.Semaphore(requests_in_flight)
        self._salt: dict[str, str] = {}
        self.traffic = Traffic()

    def salted(self, salt: str) -> "Client":
        """Return a client for which the server computes everything anew, and keeps it from others."""
        other = copy.copy(self)
        other._salt, other.traffic = {"cache_salt": salt}, Traffic()
        return other

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

        async def tokens(body: dict[str, Any]) -> Any:
            async with self._slots:
                return await self._ask("POST", "/tokenize", json.dumps(body).encode())

        answers = await all_of(tokens(body) for body in bodies)
        return [[int(token) for token in answer["tokens"]] for answer in answers]

    async def label_logprobs(self, prompts: Iterable[bytes], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return f64[prompts, L]: log P(label | prompt) in nats. A prompt is JSON: a list of token ids, or a text.

        Raises ScoringError for an answer that is not exactly that, ServerError if the server cannot be reached.
        """

        def read(answer: Any, n: int) -> npt.NDArray[np.float64]:
            return vllm.label_logprobs(answer, self.model, n, label_ids)

        parts = await self._complete(prompts, vllm.asking_for_labels(label_ids), read)
        return np.concatenate([np.empty((0, len(label_ids))), *parts])

    async def top_logprobs(self, prompts: Iterable[bytes]) -> list[dict[str, float]]:
        """Return, for each prompt, the likeliest first tokens (text -> log-probability, nats); as above otherwise.

        Not to be mixed with `label_logprobs` on one server at one time: vLLM then corrupts answers.
        """
        parts = await self._complete(
            prompts, vllm.asking_for_top(), lambda answer, n: vllm.top_logprobs(answer, self.model, n)
        )
        return [answer for part in parts for answer in part]

    async def metrics(self) -> vllm.Metrics:
        """Return what the server counted since it started, and its cache."""
        return vllm.metrics((await self._ask("GET", "/metrics")).decode())

    async def _complete(
        self, prompts: Iterable[bytes], asking: dict[str, Any], read: Callable[[Any, int], R]
    ) -> list[R]:
        """Send prompts in order, in few large requests of which several are in flight; return what each request gave.

        Prompts are taken as there is room to send them: a long scoring is never in memory whole.
        """
        given = iter(prompts)
        sent: list[asyncio.Task[R]] = []
        body = {"model": self.model, **self._salt, **asking}

        async def send(batch: list[bytes]) -> R:
            try:
                answer = await self._ask("POST", "/v1/completions", vllm.with_prompts(body, batch))
            finally:
                self._slots.release()
            self.traffic.requests += 1
            self.traffic.prompts += len(batch)
            self.traffic.prompt_tokens += vllm.prompt_tokens(answer)
            return read(answer, len(batch))

        try:
            while batch := _next_batch(given, self._request_bytes):
                await self._slots.acquire()
                if any(task.done() and task.exception() for task in sent):
                    self._slots.release()
                    break
                sent.append(asyncio.ensure_future(send(batch)))
        except BaseException:
            await stop_all(sent)
            raise
        return await first_failure_stops(sent)

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Send one request, again after a failure that may pass: no connection, no answer in time, 5xx, 429."""
        for wait_s in (*RETRY_WAITS_S, None):
            try:
                return await self._send(method, path, body)
            except ServerError:  # noqa: PERF203
                if wait_s is None:
                    raise
                self.traffic.retries += 1
                await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    async def _send(self, method: str, path: str, body: bytes | None) -> Any:
        """Return the answer: of JSON what it says, of anything else its bytes."""
        url = f"{self._url}{path}"
        data = None if body is None else io.BytesIO(body)
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            async with self._session.request(method, url, data=data, headers=headers) as response:
                content = await response.read()
                if response.status == 200:
                    return json.loads(content) if response.content_type == "application/json" else content
                kind: type[IcmError] = ServerError if response.status >= 500 or response.status == 429 else ScoringError
                raise kind(f"{method} {url} answered {response.status}: {content[:500].decode(errors='replace')}")
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            raise ServerError(f"{method} {url}: {type(error).__name__}: {error}") from error


def _next_batch(prompts: Iterator[bytes], limit_bytes: float) -> list[bytes]:
    """Take prompts until a request is full; none if there are no more."""
    batch: list[bytes] = []
    size = 0
    while size < limit_bytes and (prompt := next(prompts, None)) is not None:
        batch.append(prompt)
        size += len(prompt)
    return batch


def open_session(key: str, timeout_s: float) -> aiohttp.ClientSession:
    """Return the session that all requests of a run share; `timeout_s` bounds each request."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"},
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=10),
        connector=aiohttp.TCPConnector(limit=0),
    )


async def all_of(coroutines: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """Return all results, in order; the first failure stops the others and is raised (TaskGroup needs Python 3.11)."""
    return await first_failure_stops([asyncio.ensure_future(coroutine) for coroutine in coroutines])


async def first_failure_stops(tasks: Sequence[asyncio.Task[R]]) -> list[R]:
    """Return all results, in order; the first failure stops the others and is raised.

    Cancelled, it stops all; a failure to stop, such as a state that cannot be saved, is raised instead.
    """
    try:
        return await asyncio.gather(*tasks)
    except BaseException as first:
        failures = await stop_all(tasks)
        if isinstance(first, asyncio.CancelledError) and failures:
            raise failures[0] from first
        raise


async def stop_all(tasks: Sequence[asyncio.Task[Any]]) -> list[Exception]:
    """Cancel tasks and wait for their ends; return the failures."""
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [end for end in ends if isinstance(end, Exception)]
