"""The driver's only way to the server: aiohttp, one session, every wait with a deadline."""

import asyncio
import copy
import io
import json
import logging
import math
import urllib.request
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import aiohttp
import numpy as np
import numpy.typing as npt

from ..config.schema import require_url
from ..engines import openai_api, vllm
from ..errors import BadAnswer, ConfigError, NoAnswer, RateLimited, RequestError, ScoringError, TimedOut
from .rate_limit import Patience, retry_after_s

R = TypeVar("R")
log = logging.getLogger(__name__)
CONNECT_S = 10.0
RETRY_WAITS_S = (0.2, 1.0, 3.0)  # between the tries of one request
KEEPALIVE_S = 4.0  # of an idle connection: uvicorn, and so vLLM, closes it after 5 s, and a request may then be cut
METRICS_S = 15.0  # for GET /metrics, without which a run goes on
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
        rate_limit_s: float = 0.0,
        traffic: Traffic | None = None,
    ) -> None:
        """`rate_limit_s` is how long one request waits, in all, for a server that says that requests come too fast."""
        self._session, self.url, self._timeout_s = session, url, session.timeout.total or math.inf
        self.model = model
        self._retry_waits_s = RETRY_WAITS_S if retries else ()
        self._rate_limit_s = rate_limit_s
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

    async def served(self, *, within_s: float | None = None) -> dict[str, int | None]:
        """Return the models that the server lists, each with its context length in tokens, None if that is not stated."""
        return await self._ask("GET", "/v1/models", read=vllm.served, within_s=within_s)

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

        if len(label_ids) > vllm.MAX_LABEL_IDS:
            asked = list(prompts)
            head, rest = label_ids[: vllm.MAX_LABEL_IDS], label_ids[vllm.MAX_LABEL_IDS :]
            return np.hstack([await self.label_logprobs(asked, part) for part in (head, rest)])

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
        """Return what the server counted since it started, and its cache; a failure counts in no traffic."""
        asking = self.apart()
        asking._rate_limit_s = 0.0
        return await asking._ask(
            "GET", "/metrics", read=lambda content: vllm.metrics(_text(content)), within_s=METRICS_S
        )

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
            while batch := _next_batch(given, self._request_bytes, vllm.MAX_PROMPTS):
                await self._slots.acquire()
                if any(task.done() and task.exception() for task in sent):
                    self._slots.release()
                    break
                sent.append(asyncio.ensure_future(send(batch)))
        except BaseException:
            await stop_all(sent)
            raise
        return await first_failure_stops(sent)

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        read: Callable[[Any], R],
        within_s: float | None = None,
    ) -> R:
        """Send one request, again after a failure that may pass: no connection, 5xx, a rate limit, an answer that is none.

        A server that does not answer in time, `within_s` or the session's, is not asked again.
        """
        patience, waits_s = Patience(self._rate_limit_s), iter(self._retry_waits_s)
        while True:
            try:
                return read(await self._send(method, path, body, within_s))
            except RequestError as error:
                error.args = (_without_key(str(error), self._session),)
                self.traffic.failures[error.counter] += 1
                wait_s = self._wait_s(error, patience, waits_s)
                if wait_s is None:
                    raise
                self.traffic.retries += 1
            await asyncio.sleep(wait_s)

    def _wait_s(self, error: RequestError, patience: Patience, waits_s: Iterator[float]) -> float | None:
        """Return how long to wait until the next try, None if there is none."""
        if isinstance(error, RateLimited) and patience.limit_s:
            wait_s = patience.next_wait_s(error.retry_after_s)
            if wait_s is None:
                error.args = (f"{error}; waited for server.start_timeout_s={patience.limit_s:g} in all",)
            else:
                log.info("requests come too fast for the server (%s): next try in %.1f s", error.status, wait_s)
            return wait_s
        may_pass = isinstance(error, (NoAnswer, BadAnswer)) and not isinstance(error, TimedOut)
        return next(waits_s, None) if may_pass else None

    async def _send(self, method: str, path: str, body: bytes | None, within_s: float | None = None) -> Any:
        """Return the answer: of JSON what it says, of anything else its bytes."""
        timeout_s = within_s or self._timeout_s
        limits: dict[str, Any] = {}
        if within_s is not None:
            limits["timeout"] = aiohttp.ClientTimeout(total=within_s, sock_connect=CONNECT_S)
        url = f"{self.url}{path}"
        data = None if body is None else io.BytesIO(body)
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        try:
            async with self._session.request(method, url, data=data, headers=headers, **limits) as response:
                content = await response.read()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            if isinstance(error, asyncio.TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
                raise TimedOut(f"{method} {url}: no answer within {timeout_s:g} s", counter="timeout") from error
            raise NoAnswer(f"{method} {url}: {type(error).__name__}: {error}", counter="connection") from error
        if response.status != 200:
            said = _without_key(content.decode(errors="replace"), self._session)[:500]
            raise _refusal(f"{method} {url} answered {response.status}: {said}", response, content)
        if response.content_type != "application/json":
            return content
        try:
            return json.loads(content)
        except ValueError as error:
            said = _without_key(content.decode(errors="replace"), self._session)[:100]
            raise BadAnswer(
                f"{method} {url} answered what is not JSON: {said.encode()!r}", counter="not_json"
            ) from error


def _refusal(message: str, response: aiohttp.ClientResponse, content: bytes) -> RequestError:
    """Return the error for an answer that is no 200."""
    if response.status == 429 and openai_api.is_out_of_quota(content):
        remedy = "the account is used up: add to it, then resume the run, whose state is saved"
        return ScoringError(f"{message}; {remedy}", counter="http_429", status=429)
    asked_s = retry_after_s(response.headers)
    if response.status == 429:
        return RateLimited(message, counter="http_429", status=429, retry_after_s=asked_s)
    if response.status >= 500 and asked_s is not None:
        return RateLimited(message, counter="http_5xx", status=response.status, retry_after_s=asked_s)
    if response.status >= 500:
        return NoAnswer(message, counter="http_5xx", status=response.status)
    return ScoringError(message, counter="http_4xx", status=response.status)


def _without_key(text: str, session: aiohttp.ClientSession) -> str:
    """Return what a server says, in case that it quotes our key: we quote what it says."""
    key = session.headers.get("Authorization", "").removeprefix("Bearer ")
    return text.replace(key, "(the key)") if key else text


def _text(content: Any) -> str:
    if not isinstance(content, bytes):
        raise BadAnswer(f"the answer is no text: {str(content)[:100]}", counter="not_json")
    return content.decode(errors="replace")


def _next_batch(prompts: Iterator[bytes], limit_bytes: float, limit: int) -> list[bytes]:
    """Take prompts until a request is full; none if there are no more."""
    batch: list[bytes] = []
    size = 0
    while size < limit_bytes and len(batch) < limit and (prompt := next(prompts, None)) is not None:
        batch.append(prompt)
        size += len(prompt)
    return batch


def open_session(key: str | None, timeout_s: float, *, external_url: str | None = None) -> aiohttp.ClientSession:
    """Return the session that all requests of a run share; `timeout_s` bounds each request.

    A server that is not ours, at `external_url`, is reached by the environment's proxy where that passes requests on unread.
    """
    proxy, login = _proxy_of(external_url) if external_url else (None, None)
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        trust_env=False,  # or aiohttp sends the login of a netrc entry, and refuses to send our key beside one
        proxy=proxy,
        proxy_auth=login,
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
    )


def _proxy_of(url: str) -> tuple[str | None, aiohttp.BasicAuth | None]:
    """Return the environment's proxy for an https address, and its login: over http a proxy would read the key."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get("https")
    if parts.scheme != "https" or not proxy or urllib.request.proxy_bypass(parts.netloc):
        return None, None
    scheme, _, rest = proxy.rpartition("://")
    login, _, place = rest.rpartition("@")
    try:
        require_url(f"{scheme or 'http'}://{place}")
    except ValueError:
        said = "the proxy of $https_proxy: only http://HOST:PORT is supported; no_proxy=HOST goes without it"
        raise ConfigError(said) from None
    user, _, password = login.partition(":")
    # Apart from the address, which errors quote.
    return f"{scheme or 'http'}://{place}", aiohttp.BasicAuth(unquote(user), unquote(password)) if login else None


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
