"""The driver's only way to the server: aiohttp, one session, every wait with a deadline."""

import asyncio
import copy
import io
import json
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import numpy as np
import numpy.typing as npt

from .engines import openai, vllm
from .errors import BadAnswer, NoAnswer, RequestError, ScoringError, TimedOut

R = TypeVar("R")
RETRY_WAITS_S = (0.2, 1.0, 3.0)  # between the tries of one request
MOST_ASKED_S = 60.0  # of a wait that the server asks for (Retry-After)
# Why a request gave no score; each failed try counts once.
FAILURES = (
    *("connection", "timeout", "http_429", "http_5xx", "aborted"),  # of the server
    *("not_json", "choices", "logprobs", "usage"),  # of an answer
    *("http_4xx", "other_model"),  # what no further try mends
)


@dataclass(slots=True)
class Traffic:
    """What this client has sent to be scored."""

    requests: int = 0
    prompts: int = 0
    prompt_tokens: int = 0  # as the server counted them
    retries: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAILURES, 0))


class Client:
    """A served model: tokens of a text, log-probabilities of label tokens."""

    exact = True  # the tokens are the model's own

    completions = "/v1/completions"  # under the URL

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        url: str,
        model: str,
        request_mb: float,
        requests_in_flight: int,
        replicas: int = 1,
        retries: bool = True,
        traffic: Traffic | None = None,
    ) -> None:
        self._session, self.url, self._timeout_s = session, url, session.timeout.total or math.inf
        self.model = model
        self._retry_waits_s = RETRY_WAITS_S if retries else ()
        self._request_bytes = request_mb * 1e6
        self._slots = asyncio.Semaphore(requests_in_flight)
        self._slots_of = [asyncio.Semaphore(requests_in_flight) for _ in range(replicas)]
        self._headers: dict[str, str] = {}
        self._salt: dict[str, str] = {}
        self.traffic = traffic or Traffic()

    def apart(self, *, model: str | None = None) -> "Client":
        """Return a client that counts by itself what it sends, and may ask for another model."""
        other = copy.copy(self)
        other.model, other.traffic = model or self.model, Traffic()
        return other

    def salted(self, salt: str) -> "Client":
        """Return a client for which the server computes everything anew, and keeps it from others."""
        other = self.apart()
        other._salt = {"cache_salt": salt}
        return other

    @property
    def replicas(self) -> int:
        """Replicas of the model behind the server, each with a prefix cache of its own."""
        return len(self._slots_of)

    def replica(self, number: int) -> "Client":
        """Return a client whose prompts are all scored by one replica; it counts into the same traffic."""
        if self.replicas == 1:
            return self
        other = copy.copy(self)
        other._headers, other._slots = vllm.to_replica(number), self._slots_of[number]
        return other

    async def trouble(self) -> str | None:
        """Return None if GET /health answers 200, else what is wrong."""
        try:
            async with self._session.get(f"{self.url}/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                if response.status == 401:
                    return f"{self.url} refuses this run's key: another server listens there"
                return None if response.status == 200 else f"{self.url}/health answered {response.status}"
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return f"{self.url}: {type(error).__name__}: {error}"

    async def served(self) -> dict[str, int | None]:
        """Return the models that the server lists, each with its context length in tokens, None if that is not told."""
        return await self._ask("GET", "/v1/models", read=vllm.served)

    async def root(self) -> str | None:
        """Return what the server loaded as our model, or None if it does not say."""
        return await self._ask("GET", "/v1/models", read=lambda told: vllm.root(told, self.model))

    async def version(self) -> str:
        """Return the version of vLLM."""
        return await self._ask("GET", "/version", read=vllm.version)

    async def max_model_len(self) -> int:
        """Return the served context length in tokens."""
        return int(await self._ask("GET", "/v1/models", read=lambda told: vllm.max_model_len(told, self.model)))

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text, by the server's own tokenizer; `special` adds what starts a sequence."""
        bodies = [{"model": self.model, "prompt": text, "add_special_tokens": special} for text in texts]

        async def tokens(body: dict[str, Any]) -> list[int]:
            async with self._slots:
                return await self._ask("POST", "/tokenize", json.dumps(body).encode(), read=vllm.tokens)

        return list(await all_of(tokens(body) for body in bodies))

    async def label_logprobs(self, prompts: Iterable[bytes], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return f64[prompts, L]: log P(label | prompt) in nats. A prompt is JSON: a list of token ids, or a text.

        Raises BadAnswer if what is answered is not exactly that, again and again; ScoringError for what no further try
        mends; NoAnswer if the server cannot be reached.
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

    async def top_ids(self, prompt: bytes) -> dict[int, float]:
        """Return the likeliest first tokens after one prompt (id -> log-probability, nats); as above otherwise."""
        (answer,) = await self._complete(
            [prompt], vllm.asking_for_top_ids(), lambda answer, _: vllm.top_ids(answer, self.model)
        )
        return answer

    async def complete(self, prompt: bytes) -> None:
        """Have one token generated after a prompt, and ask for no log-probability; errors as above."""
        await self._complete([prompt], vllm.GREEDY, lambda answer, n: vllm.choices(answer, self.model, n))

    async def prove(self) -> None:
        """Score one short prompt with each replica: a server that says it is healthy can still give no answer, or none that
        is a score.
        """
        (tokens,) = await self.tokenize(["Is this claim true?"])
        prompt, labels = json.dumps(tokens).encode(), [tokens[0], tokens[-1]]
        await all_of(self.replica(number).label_logprobs([prompt], labels) for number in range(self.replicas))

    async def metrics(self) -> vllm.Metrics:
        """Return what the server counted since it started, and its cache."""
        return await self._ask("GET", "/metrics", read=lambda content: vllm.metrics(_text(content)))

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
            def checked(answer: Any) -> tuple[R, int]:
                return read(answer, len(batch)), vllm.prompt_tokens(answer)

            try:
                result, tokens = await self._ask("POST", self.completions, vllm.with_prompts(body, batch), read=checked)
            finally:
                self._slots.release()
            self.traffic.requests += 1
            self.traffic.prompts += len(batch)
            self.traffic.prompt_tokens += tokens
            return result

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

    async def _ask(self, method: str, path: str, body: bytes | None = None, *, read: Callable[[Any], R]) -> R:
        """Send one request, again after a failure that may pass: no connection, 5xx, 429, an answer that is none.

        A server that does not answer in time is not asked again.
        """
        for wait_s in (*self._retry_waits_s, None):
            try:
                return read(await self._send(method, path, body))
            except RequestError as error:
                error.args = (_without_key(str(error).encode(), self._session).decode(),)
                self.traffic.failures[error.counter] += 1
                may_pass = isinstance(error, (NoAnswer, BadAnswer)) and not isinstance(error, TimedOut)
                if wait_s is None or not may_pass:
                    raise
                self.traffic.retries += 1
                await asyncio.sleep(max(wait_s, error.retry_after_s))
        raise AssertionError("the last try returns or raises")

    async def _send(self, method: str, path: str, body: bytes | None) -> Any:
        """Return the answer: of JSON what it says, of anything else its bytes."""
        url = f"{self.url}{path}"
        data = None if body is None else io.BytesIO(body)
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        try:
            async with self._session.request(method, url, data=data, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            if isinstance(error, asyncio.TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
                raise TimedOut(f"{method} {url}: no answer within {self._timeout_s:g} s", counter="timeout") from error
            raise NoAnswer(f"{method} {url}: {type(error).__name__}: {error}", counter="connection") from error
        if response.status != 200:
            said = _without_key(content, self._session)[:500].decode(errors="replace")
            raise _refusal(f"{method} {url} answered {response.status}: {said}", response, content)
        if response.content_type != "application/json":
            return content
        try:
            return json.loads(content)
        except ValueError as error:
            raise BadAnswer(
                f"{method} {url} answered what is not JSON: {_without_key(content, self._session)[:100]!r}",
                counter="not_json",
            ) from error


def _refusal(message: str, response: aiohttp.ClientResponse, content: bytes) -> RequestError:
    """Return the error for an answer that is no 200."""
    if response.status == 429 and openai.is_out_of_quota(content):
        remedy = "the account is used up: add to it, then resume the run, whose state is saved"
        return ScoringError(f"{message}; {remedy}", counter="http_429", status=429)
    if response.status == 429:
        asked = response.headers.get("Retry-After", "")
        wait_s = min(float(asked), MOST_ASKED_S) if asked.isdigit() else 0.0
        return NoAnswer(message, counter="http_429", status=429, retry_after_s=wait_s)
    if response.status >= 500:
        return NoAnswer(message, counter="http_5xx", status=response.status)
    return ScoringError(message, counter="http_4xx", status=response.status)


def _without_key(content: bytes, session: aiohttp.ClientSession) -> bytes:
    """Return what a server says, in case that it quotes our key: we quote what it says."""
    key = session.headers.get("Authorization", "").removeprefix("Bearer ").encode()
    return content.replace(key, b"(the key)") if key else content


def _text(content: Any) -> str:
    if not isinstance(content, bytes):
        raise BadAnswer(f"the answer is no text: {str(content)[:100]}", counter="not_json")
    return content.decode(errors="replace")


def _next_batch(prompts: Iterator[bytes], limit_bytes: float) -> list[bytes]:
    """Take prompts until a request is full; none if there are no more."""
    batch: list[bytes] = []
    size = 0
    while size < limit_bytes and (prompt := next(prompts, None)) is not None:
        batch.append(prompt)
        size += len(prompt)
    return batch


def open_session(key: str | None, timeout_s: float, *, through_proxy: bool = False) -> aiohttp.ClientSession:
    """Return the session that all requests of a run share; `timeout_s` bounds each request.

    `through_proxy` is whether the environment's proxy, such as $https_proxy, is used.
    """
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        trust_env=through_proxy,
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
