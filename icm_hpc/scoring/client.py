"""The driver's only way to the server: aiohttp, one session, every wait with a deadline."""

import asyncio
import copy
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import numpy as np
import numpy.typing as npt

from ..config.schema import Config
from ..engines import ENGINES
from ..engines.engine import Engine, Metrics
from ..errors import BadAnswer, NoAnswer, RateLimited, RequestError, ScoringError, TimedOut
from .quoting import without_key
from .rate_limit import Patience, RateLimit
from .session import exchange, key_of
from .tokenizer import LocalTokenizer, estimate

R = TypeVar("R")
Part = TypeVar("Part")
log = logging.getLogger(__name__)
RETRY_WAITS_S = (0.2, 1.0, 3.0)  # between the tries of one request
METRICS_S = 15.0  # for the server's own counts, without which a run goes on
REFUSALS = (400, 404, 405, 422)  # of what is asked for, whoever asks
# Why a request gave no score; each failed try counts once.
FAILURES = (
    *("connection", "timeout", "http_429", "http_5xx", "aborted"),  # of the server
    *("not_json", "choices", "logprobs", "usage"),  # of an answer
    *("http_4xx", "other_model"),  # what no further try repairs
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
    """A served model: tokens of a text, log-probabilities of label tokens.

    If the engine has no tokenizer, tokens are estimated; if it does not state its context, that of the settings counts.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        engine: Engine,
        *,
        url: str,
        model: str,
        request_mb: float,
        requests_in_flight: int,
        replicas: int = 1,
        retries: bool = True,
        rate_limit_s: float = 0.0,
        rate: RateLimit | None = None,
        context: int | None = None,
        top_k: int | None = None,
    ) -> None:
        """`rate_limit_s` is how long one request waits, in all, for a server that says that requests come too fast; `rate` is
        what its provider allows. `context`, in tokens, and `top_k` stand for what the engine does not state.
        """
        self.engine, self._rate, self._context = engine, rate, context
        self._top_k = top_k or engine.top.k
        self._session, self.url = session, url
        self.model = model
        self._retry_waits_s = RETRY_WAITS_S if retries else ()
        self._rate_limit_s = rate_limit_s
        self._request_bytes = request_mb * 1e6
        self._slots = asyncio.Semaphore(requests_in_flight)
        self._slots_of = [asyncio.Semaphore(requests_in_flight) for _ in range(replicas)]
        self._headers: dict[str, str] = {}
        self._salt: dict[str, str] = {}
        self.traffic = Traffic()

    def apart(self, *, model: str | None = None) -> "Client":
        """Return a client that counts by itself what it sends, and may ask for another model."""
        other = copy.copy(self)
        other.model, other.traffic = model or self.model, Traffic()
        return other

    def salted(self, salt: str) -> "Client":
        """Return a client for which the server computes everything again, and keeps it from others."""
        other = self.apart()
        other._salt = {_able(self.engine.completions.salt_field, "cache salts"): salt}
        return other

    @property
    def exact(self) -> bool:
        """Whether the tokens of a text are the model's own."""
        return self.engine.tokens is not None

    @property
    def max_ids(self) -> int:
        """Tokens of which one request may ask the log-probabilities."""
        return _able(self.engine.labels, "log-probabilities of labels").max_ids

    @property
    def replicas(self) -> int:
        """Replicas of the model behind the server, each with a prefix cache of its own."""
        return len(self._slots_of)

    def replica(self, number: int) -> "Client":
        """Return a client whose prompts are all scored by one replica; it counts into the same traffic."""
        if self.replicas == 1:
            return self
        other = copy.copy(self)
        other._headers = _able(self.engine.to_replica, "replicas")(number)
        other._slots = self._slots_of[number]
        return other

    async def trouble(self) -> str | None:
        """Return None if a server of our own answers its health check, else what is wrong."""
        path = _able(self.engine.start, "health checks").health
        try:
            async with self._session.get(f"{self.url}{path}", timeout=aiohttp.ClientTimeout(total=5)) as response:
                if response.status == 401:
                    return f"{self.url} refuses this run's key: another server listens there"
                return None if response.status == 200 else f"{self.url}{path} answered {response.status}"
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return f"{self.url}: {type(error).__name__}: {error}"

    async def served(self, *, within_s: float | None = None) -> dict[str, int | None]:
        """Return the models that the server lists, each with its context length in tokens, None if that is not stated."""
        models = _able(self.engine.models, "list of models")
        return await self._ask("GET", models.path, read=models.served, within_s=within_s)

    async def root(self) -> str | None:
        """Return what the server loaded as our model, or None if it does not say."""
        models = self.engine.models
        if models is None:
            return None
        return await self._ask("GET", models.path, read=lambda told: models.root(told, self.model))

    async def version(self) -> str:
        """Return the version of the engine."""
        version = _able(self.engine.version, "version")
        return await self._ask("GET", version.path, read=version.read)

    async def max_model_len(self) -> int:
        """Return the context length in tokens: as it is served, else as the settings state it."""
        models = self.engine.models
        if models is None and self._context is not None:
            return self._context
        models = _able(models, "context length")
        return await self._ask("GET", models.path, read=lambda told: models.max_model_len(told, self.model))

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text, by the server's own tokenizer; `special` adds what starts a sequence.

        A server without one: as many tokens as each text may have, an estimate.
        """
        asking = self.engine.tokens
        if asking is None:
            return await LocalTokenizer(self.model, None).tokenize(texts, special=special)
        bodies = [asking.ask(self.model, text, special=special) for text in texts]

        async def tokens(body: dict[str, Any]) -> list[int]:
            async with self._slots:
                found = await self._ask("POST", asking.path, json.dumps(body).encode(), read=asking.read)
            if not found and any(map(str.isalnum, body["prompt"])):
                raise BadAnswer("the answer holds no tokens of a text that has letters", counter="choices")
            return found

        return list(await all_of(tokens(body) for body in bodies))

    async def label_logprobs(self, prompts: Iterable[bytes], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return f64[prompts, L]: log P(label | prompt) in nats. A prompt is JSON: a list of token ids, or a text.

        Raises BadAnswer if what is answered is not exactly that, again and again; ScoringError for what no further try
        repairs; NoAnswer if the server cannot be reached.
        """
        labels = _able(self.engine.labels, "log-probabilities of labels")
        if len(label_ids) > labels.max_ids:
            asked = list(prompts)
            head, rest = label_ids[: labels.max_ids], label_ids[labels.max_ids :]
            return np.hstack([await self.label_logprobs(asked, part) for part in (head, rest)])

        def read(answer: Any, n: int) -> npt.NDArray[np.float64]:
            return labels.read(answer, self.model, n, label_ids)

        parts = await self._complete(prompts, labels.ask(label_ids), read)
        return np.concatenate([np.empty((0, len(label_ids))), *parts])

    async def top_logprobs(self, prompts: Iterable[bytes]) -> list[dict[str, float]]:
        """Return, for each prompt, the top-k first tokens (text -> log-probability, nats); as above otherwise.

        Not to be mixed with `label_logprobs` on one server at one time: vLLM then corrupts answers.
        """
        top = self.engine.top
        parts = await self._complete(prompts, top.ask(self._top_k), lambda answer, n: top.read(answer, self.model, n))
        return [answer for part in parts for answer in part]

    async def top_ids(self, prompt: bytes) -> dict[int, float]:
        """Return the top-k first tokens after one prompt (id -> log-probability, nats); as above otherwise."""
        labels = _able(self.engine.labels, "ids of tokens")
        (answer,) = await self._complete(
            [prompt], labels.ask_top(), lambda answer, _: labels.read_top(answer, self.model)
        )
        return answer

    async def complete(self, prompt: bytes) -> None:
        """Have one token generated after a prompt, and ask for no log-probability; errors as above."""
        asking = self.engine.completions
        await self._complete([prompt], asking.greedy, lambda answer, n: asking.choices(answer, self.model, n))

    async def prove(self) -> None:
        """Score one short prompt with each replica: a server that says it is healthy can still give no answer, or none that
        is a score.

        Raises ScoringError, with what would work, for an API that gives no log-probabilities.
        """
        if self.engine.labels is None:
            await self._prove_top()
            return
        (tokens,) = await self.tokenize(["Is this claim true?"])
        prompt, labels = json.dumps(tokens).encode(), [tokens[0], tokens[-1]]
        await all_of(self.replica(number).label_logprobs([prompt], labels) for number in range(self.replicas))

    async def _prove_top(self) -> None:
        try:
            await self.top_logprobs([json.dumps("Is this claim true? Answer:").encode()])
        except ScoringError as error:
            if error.counter != "logprobs" and error.status not in REFUSALS:
                raise
            raise ScoringError(
                f"{self.url} gives no log-probabilities of completions by {self.model}, without which nothing can be"
                f" scored ({error}). An API for chat only, or without logprobs, cannot be used:"
                f" {self.engine.advice.serve}",
                counter=error.counter,
            ) from error

    async def metrics(self) -> Metrics:
        """Return what the server counted since it started, and its cache; a failure counts in no traffic."""
        counters = _able(self.engine.counters, "counts of tokens")
        asking = self.apart()
        asking._rate_limit_s = 0.0
        return await asking._ask("GET", counters.path, read=counters.read, within_s=METRICS_S)

    async def _complete(
        self, prompts: Iterable[bytes], asking: dict[str, Any], read: Callable[[Any, int], R]
    ) -> list[R]:
        """Send prompts in order, in few large requests of which several are in flight; return what each request gave.

        Prompts are taken as there is room to send them: a long scoring is never in memory whole.
        """
        given, completions = iter(prompts), self.engine.completions
        sent: list[asyncio.Task[R]] = []
        body = {"model": self.model, **self._salt, **asking}

        async def send(batch: list[bytes]) -> R:
            def checked(answer: Any) -> tuple[R, int]:
                return read(answer, len(batch)), completions.prompt_tokens(answer)

            try:
                sending = completions.with_prompts(body, batch)
                result, tokens = await self._ask("POST", completions.path, sending, read=checked)
            finally:
                self._slots.release()
            self.traffic.requests += 1
            self.traffic.prompts += len(batch)
            self.traffic.prompt_tokens += tokens
            return result

        try:
            while batch := _next_batch(given, self._request_bytes, completions.max_prompts):
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
                error.args = (without_key(str(error), key_of(self._session)),)
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
        if self._rate is not None:
            prompts = json.loads(body)["prompt"] if body else ()  # the texts: their JSON has more characters than they
            await self._rate.wait(sum(map(estimate, prompts)))
        headers, quota = self._headers, self.engine.completions.is_out_of_quota
        return await exchange(
            self._session, method, f"{self.url}{path}", body, headers=headers, within_s=within_s, is_out_of_quota=quota
        )


def client_of(session: aiohttp.ClientSession, config: Config, *, url: str, model: str) -> Client:
    """Return the client of a run's server."""
    limits = config.server
    rate = RateLimit(requests_per_min=limits.requests_per_min, tokens_per_min=limits.tokens_per_min)
    return Client(
        session,
        ENGINES[config.model.engine],
        url=url,
        model=model,
        request_mb=limits.request_mb,
        requests_in_flight=limits.requests_in_flight,
        replicas=limits.replicas,
        rate_limit_s=limits.start_timeout_s,
        rate=rate if limits.requests_per_min or limits.tokens_per_min else None,
        context=config.model.max_model_len,
        top_k=config.model.top_logprobs,
    )


def _able(part: Part | None, what: str) -> Part:
    """Return a part of an engine; raises ScoringError for one that it does not have."""
    if part is None:
        raise ScoringError(f"the engine has no {what}", counter="http_4xx")
    return part


def _next_batch(prompts: Iterator[bytes], limit_bytes: float, limit: int) -> list[bytes]:
    """Take prompts until a request is full; none if there are no more."""
    batch: list[bytes] = []
    size = 0
    while size < limit_bytes and len(batch) < limit and (prompt := next(prompts, None)) is not None:
        batch.append(prompt)
        size += len(prompt)
    return batch


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
