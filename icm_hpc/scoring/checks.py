"""What a server must be able to do for a run: asked of it one thing after the other, each with what was found."""

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

from ..engines.engine import Engine
from ..errors import BadAnswer, RequestError, TimedOut
from ..rundir.measured import Measured, of_figures
from . import measuring, random_prompts
from .client import Client
from .random_prompts import Pieces, are_words

REACHABLE = "reachable"
MODEL = "model"
VERSION = "version"
COMPLETION = "completion"
LABELS = "label log-probabilities"
CACHING = "prefix caching"
CONTEXT = "context"
CLOCK = "full-length prompt"
NOISE = "noise"
SPEED = "speed"
SHARING = "sharing"
NEEDED = frozenset({REACHABLE, MODEL, COMPLETION, LABELS, CONTEXT})  # without one of these no run can go on

ANSWER_S = 15.0  # for the list of models, which costs nothing
AGREEMENT = 1e-2  # nats, between a token's two log-probabilities
OVERLAP = 4  # of the listed top-k tokens, the least likely ones, that are asked for by id as well
OUTSIDE = 4  # tokens asked for by id that are not among the top k: a server that ignores the ids leaves them out
LOW_IDS = range(100, 300)  # in every vocabulary
SHORT = 8  # tokens, fewer than a block: the two askings compute the same
BLOCKS = 4  # of the prompt that is sent twice, if the context has room for them
USUAL_BLOCK = 16  # tokens, where the server does not say
MORE_COMPUTED = 1.25  # times the tokens that a cache leaves to compute which holds all: it does not hold them
NO_TOKENS = "without POST /tokenize no prompt of a given length can be made"
MARKS = {True: "✓", False: "✗", None: "–"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked: passed, failed, or None where it could not be asked."""

    name: str
    found: str
    remedy: str = ""
    error: RequestError | None = field(default=None, repr=False, compare=False)  # of the request that failed
    figures: Mapping[str, Any] = field(default_factory=dict)  # of what was measured (rundir.measured)
    passed: bool | None = field(kw_only=True)

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{MARKS[self.passed]} {self.name}: {' '.join(self.found.split())}{remedy}"


Tell = Callable[[Check], None]


async def run(
    client: Client,
    tell: Tell,
    *,
    context: int | None = None,
    label_ids: Sequence[int] = (),
    clock: bool = True,
    measure: bool = True,
) -> list[Check]:
    """Check the server that `client` asks, report each check as it is done, and return all.

    `context` is the length in tokens, the generated one included, that prompts will have; None: all that is served. A client
    without a model's name checks the only model that is served. What is sent counts in no traffic but its own; all that
    has a prompt goes to one replica. `clock` times a prompt of full length; `measure` asks how exact and how fast it answers.
    """
    asking = client.replica(0).apart()
    done: dict[str, Check] = {}
    remedies = _remedies(asking.engine)

    async def check(name: str, probe: Callable[[], Awaitable[Check]], *needs: str) -> None:
        failed = [need for need in needs if not done[need].passed]
        done[name] = _unchecked(name, f"{failed[0]} did not pass") if failed else await _tried(name, probe, remedies)
        tell(done[name])

    served: dict[str, int | None] = {}
    await check(REACHABLE, lambda: _reachable(asking, served))
    await check(MODEL, lambda: _model(asking, served), REACHABLE)
    await check(VERSION, lambda: _version(asking), REACHABLE)
    pieces: Pieces = random_prompts.TEXT.split()
    block = USUAL_BLOCK
    if done[MODEL].passed:
        asking = asking.apart(model=asking.model or next(iter(served)))
        pieces, block = await _token_ids(asking) or pieces, await _block_size(asking)
    length = served.get(asking.model)
    blocks = BLOCKS if length is None else min(BLOCKS, (length - 2) // block)
    again = random_prompts.prompt(pieces, blocks * block + 1)
    await check(COMPLETION, lambda: _completion(asking, again), MODEL)
    await check(LABELS, lambda: _labels(asking, pieces, label_ids), COMPLETION)
    await check(CACHING, lambda: _caching(asking, again, blocks), COMPLETION)
    await check(CONTEXT, lambda: _context(length, context), MODEL)
    told = [CONTEXT] if length else []
    rate: list[float] = []  # tokens a second, the newest measurement last
    if clock:
        await check(CLOCK, lambda: _clock(asking, pieces, context or length, rate), COMPLETION, *told)
    if measure:
        room = min(context or length or measuring.SPEED_TOKENS, length or measuring.SPEED_TOKENS) - 1
        ids = [piece for piece in pieces if isinstance(piece, int)]  # all of them, where labels can be scored
        await check(NOISE, lambda: _noise(asking, ids, label_ids, room, rate), LABELS)
        await check(SPEED, lambda: _speed(asking, ids, room, rate), NOISE)
        await check(SHARING, lambda: _sharing(asking, ids, room, rate, block), SPEED, CACHING)
    return list(done.values())


def measured(done: Sequence[Check]) -> Measured:
    """Return what the checks have measured."""
    return of_figures({check.name: check.figures for check in done})


def _passed(name: str, found: str, figures: Mapping[str, Any] | None = None) -> Check:
    return Check(name, found, figures=figures or {}, passed=True)


def _unchecked(name: str, why: str) -> Check:
    return Check(name, f"not checked: {why}", passed=None)


async def _tried(name: str, probe: Callable[[], Awaitable[Check]], remedies: Mapping[str, str]) -> Check:
    """Return what a probe found; a request that fails is found too."""
    try:
        return await probe()
    except RequestError as error:
        return Check(name, str(error), remedies[name], error, passed=False)


def _remedies(engine: Engine) -> dict[str, str]:
    """Return what to do about a request that failed, by check."""
    serve = engine.advice.serve
    return {
        VERSION: f"probably this is not {engine.product}: {serve}",
        COMPLETION: "see the server's log; an API that only chats cannot score labels",
        LABELS: f"labels cannot be scored without exact log-probabilities by id; {engine.advice.labels}: {serve}",
        CACHING: f"whether prompts share what they can is not known: {serve}",
        **dict.fromkeys(
            (CLOCK, NOISE, SPEED, SHARING),
            "see the server's log; a slow server needs a larger server.request_timeout_s",
        ),
    }


async def _reachable(client: Client, served: dict[str, int | None]) -> Check:
    """Ask for the list of models, and put it into `served`."""
    try:
        served |= await client.served(within_s=ANSWER_S)
    except RequestError as error:
        return _no_contact(client, error)
    return _passed(REACHABLE, f"{client.url} answers and lists {len(served)} model{'s' * (len(served) != 1)}")


def _no_contact(client: Client, error: RequestError) -> Check:
    """Tell why the list of models was not to be had."""
    found, remedy = (_of_status if error.status else _of_connection)(client.url, error, client.engine)
    return Check(REACHABLE, found, remedy, error, passed=False)


def _of_status(url: str, error: RequestError, engine: Engine) -> tuple[str, str]:
    if error.status in (401, 403):
        said = f"{url} refuses the key ({error.status})"
        return said, f"set {engine.key_variable} in the environment to the key that the server was started with"
    if error.status == 404:
        return f"{url} has no /v1/models (404)", "write url=http://HOST:PORT, or an API's address up to its /v1"
    return str(error), "see the server's log, and that of a proxy before it"


def _of_connection(url: str, error: RequestError, engine: Engine) -> tuple[str, str]:
    cause = error.__cause__
    if isinstance(cause, aiohttp.ConnectionTimeoutError):
        return f"{url}: no connection in time", "a firewall may drop it, or the machine is down"
    if isinstance(error, TimedOut):
        return str(error), "the server hangs or is overloaded: see its log, and restart it"
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return f"{url}: the name {cause.host} is unknown here", "correct it, or give the machine's address"
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        remedy = "set SSL_CERT_FILE to the certificate of the authority that signed it, and name the machine as it does"
        return f"{url}: its certificate is not trusted here: {cause.certificate_error}", remedy
    if isinstance(cause, aiohttp.ClientSSLError):
        return f"{url}: no TLS connection: {cause}", "write http:// unless the server was given a certificate"
    if isinstance(cause, aiohttp.ClientConnectorError):
        if cause.errno == errno.ECONNREFUSED:
            remedy = (
                f"start the server, or correct host and port; {engine.product} needs a minute or more until it listens"
            )
            return f"{url} refuses the connection: nothing listens there", remedy
        return f"{url}: no connection: {cause}", "see that this machine has a route to that one"
    if isinstance(error, BadAnswer):
        return f"{url} is no OpenAI-compatible API: {error}", "see what listens there"
    return f"{url} does not speak HTTP: {cause or error}", "see what listens there; write https:// if it requires TLS"


async def _model(client: Client, served: dict[str, int | None]) -> Check:
    names = ", ".join(served)
    if not served:
        return Check(MODEL, "the server lists no model", "see its log, and restart it with a model", passed=False)
    if not client.model and len(served) == 1:
        return _passed(MODEL, f"{names} is the only one served")
    if not client.model:
        return Check(MODEL, f"the server lists {names}", "say which is meant: model=NAME", passed=False)
    if client.model not in served:
        remedy = f"write the name as it is served ({client.engine.advice.served_name})"
        return Check(MODEL, f"the server lists {names}, not {client.model}", remedy, passed=False)
    return _passed(MODEL, f"{client.model} is served")


async def _version(client: Client) -> Check:
    engine, known = client.engine, client.engine.version
    if known is None:
        return _unchecked(VERSION, f"{engine.product} states none")
    version = await client.version()
    found = f"{engine.product} {version}, {known.standing(version)}"
    if known.is_too_old(version):
        return Check(VERSION, found, f"{engine.advice.labels}: {engine.advice.serve}", passed=False)
    return _passed(VERSION, found)


async def _token_ids(client: Client) -> list[int]:
    """Return ids of ordinary tokens, by the server's own tokenizer; none if it does not offer that."""
    try:
        return (await client.tokenize([random_prompts.TEXT]))[0]
    except RequestError:
        return []


async def _block_size(client: Client) -> int:
    try:
        return (await client.metrics()).block_size or USUAL_BLOCK
    except RequestError:
        return USUAL_BLOCK


async def _completion(client: Client, prompt: bytes) -> Check:
    await client.complete(prompt)
    return _passed(COMPLETION, "one token was generated")


async def _labels(client: Client, pieces: Pieces, label_ids: Sequence[int]) -> Check:
    """Ask for the top-k tokens, and then by id, never at the same time: vLLM corrupts answers to both at once."""
    prompt, remedy = random_prompts.prompt(pieces, SHORT), _remedies(client.engine)[LABELS]
    top = await client.top_ids(prompt)
    least = sorted(top, key=lambda token: top[token])[:OVERLAP]
    ordinary = [int(token) for token in (*(() if are_words(pieces) else pieces), *LOW_IDS)]
    outside = [token for token in dict.fromkeys(ordinary) if token not in top][:OUTSIDE]
    asked = list(dict.fromkeys([*least, *outside, *label_ids]))
    try:
        (values,) = await client.label_logprobs([prompt], asked)
    except BadAnswer as error:  # not one that another run's requests have spoilt: those spoil the top k only
        return Check(LABELS, str(error), remedy, passed=False)
    known = dict(zip(asked, map(float, values), strict=True))
    differ = max(abs(known[token] - top[token]) for token in least)
    found = f"{len(asked)} tokens asked by id: {OVERLAP} are at most {differ:.1g} nats from the top {len(top)}"
    if differ > AGREEMENT:
        return Check(LABELS, found, remedy, passed=False)
    if are_words(pieces):
        advice = "let a proxy pass POST /tokenize on: the ids of label words are asked there"
        return Check(LABELS, f"{found}; but POST /tokenize is not answered", advice, passed=False)
    return _passed(LABELS, found)


async def _caching(client: Client, prompt: bytes, blocks: int) -> Check:
    """Send again a prompt of so many blocks that was sent before, and read the server's counters on both sides of it."""
    if client.engine.counters is None:
        return _unchecked(CACHING, f"{client.engine.product} counts no cached tokens")
    if blocks < 2:
        return _unchecked(CACHING, "the context has no room for two blocks of the cache")
    before = await client.metrics()
    await client.complete(prompt)
    after = await client.metrics()
    if after.block_size is None:
        return Check(
            CACHING, "GET /metrics has no counters of a prefix cache", _remedies(client.engine)[CACHING], passed=False
        )
    enough = (blocks - 1) * after.block_size  # some models' caches keep the last block back
    if after.cached_tokens - before.cached_tokens < enough:
        await asyncio.sleep(measuring.LAG_S)
        after = await client.metrics()
    hit = after.cached_tokens - before.cached_tokens
    found = f"of a prompt of {blocks} blocks of {after.block_size} tokens, sent again, {hit} tokens came from the cache"
    if hit < enough:
        remedy = f"every prompt is computed whole: {client.engine.advice.caching}"
        return Check(CACHING, found, remedy, passed=False)
    return _passed(CACHING, found)


async def _context(served: int | None, wanted: int | None) -> Check:
    if served is None:
        return _unchecked(CONTEXT, "the server does not say how long its context is")
    if wanted is not None and served < wanted:
        remedy = (
            f"serve with model.max_model_len={wanted} (--max-model-len {wanted}), or set a smaller search.pool_size"
        )
        return Check(CONTEXT, f"{served} tokens, and {wanted} are required", remedy, passed=False)
    return _passed(CONTEXT, f"{served} tokens" + (f", {wanted} are required" if wanted else ""))


async def _clock(client: Client, pieces: Pieces, length: int | None, rate: list[float]) -> Check:
    """Measure how long one prompt takes of which nothing is in the cache; the token that is generated has its place too."""
    if length is None:
        return _unchecked(CLOCK, "how long a prompt may be is not known")
    if are_words(pieces):
        return _unchecked(CLOCK, NO_TOKENS)
    prompt = random_prompts.prompt(pieces, length - 1)
    began = time.monotonic()
    await client.complete(prompt)
    took_s = time.monotonic() - began
    rate.append((length - 1) / took_s)
    return _passed(CLOCK, f"{length - 1} tokens, none of them in the cache: {took_s:.2f} s, measured")


async def _noise(client: Client, ids: Sequence[int], label_ids: Sequence[int], length: int, rate: list[float]) -> Check:
    """Compare answers to the same prompts; `rate` gets the speed of those that were computed together."""
    found, together = await measuring.noise(client, ids, label_ids, length, rate[-1] if rate else 0.0)
    rate.append(together)
    said = (
        f"log-probabilities after the same prompt differ by up to {found.repeated:.2g} nats if it is sent again,"
        f" {found.cached:.2g} if most of it comes from the cache, {found.batched:.2g} among other prompts"
    )
    return _passed(NOISE, said, asdict(found))


async def _speed(client: Client, ids: Sequence[int], length: int, rate: list[float]) -> Check:
    found = await measuring.speed(client, ids, length, rate[-1])
    said = f"{found.tokens:,} tokens in {found.prompts} prompts, none of them in the cache: {found.seconds:.2f} s"
    return _passed(SPEED, f"{said}, {found.tokens_per_s:,.0f} tokens a second, measured", asdict(found))


async def _sharing(client: Client, ids: Sequence[int], length: int, rate: list[float], block: int) -> Check:
    """Score a few random demonstrations as a search does, and compare what the cache answers with what it can."""
    found = await measuring.sharing(client, ids, length, rate[-1], block)
    if found is None:
        return _unchecked(SHARING, f"the context has no room for {measuring.DEMONSTRATIONS[0]} blocks of the cache")
    said = (
        f"{found.prompts} prompts that share demonstrations: {found.hit_rate:.1%} of {found.prompt_tokens:,} tokens came from"
        f" the cache, where {found.best_hit_rate:.1%} can; {found.seconds:.2f} s"
    )
    if found.computed_tokens > MORE_COMPUTED * found.least_tokens:
        remedy = f"give the cache more memory, or the server fewer users; {client.engine.advice.caching}"
        return Check(SHARING, said, remedy, figures=asdict(found), passed=False)
    return _passed(SHARING, said, asdict(found))
