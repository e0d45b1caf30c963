"""The session that all requests of a run share, and one request by it: sent, and a failure named."""

import asyncio
import io
import math
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from ..config.addresses import require_url
from ..core.json_values import from_json
from ..errors import BadAnswer, ConfigError, NoAnswer, RateLimited, RequestError, ScoringError, TimedOut
from .quoting import quotable
from .rate_limit import retry_after_s

CONNECT_S = 10.0
MAX_ANSWER_BYTES = 2**26  # ten times what the largest request is answered
PIECE_BYTES = 2**16
KEEPALIVE_S = 4.0  # of an idle connection: uvicorn, and so vLLM, closes it after 5 s, and a request may then be cut


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


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    body: bytes | None,
    *,
    headers: Mapping[str, str],
    within_s: float | None,
    is_out_of_quota: Callable[[bytes], bool],
) -> Any:
    """Return the answer: of JSON what it says, of anything else its bytes; it has `within_s`, or the session's time.

    Raises TimedOut or NoAnswer if there is none, and RateLimited, ScoringError or BadAnswer for one that is not usable.
    """
    timeout_s = within_s or session.timeout.total or math.inf
    limits: dict[str, Any] = {}
    if within_s is not None:
        limits["timeout"] = aiohttp.ClientTimeout(total=within_s, sock_connect=CONNECT_S)
    data = None if body is None else io.BytesIO(body)
    headers = {**headers, **({"Content-Type": "application/json"} if body else {})}
    try:
        async with session.request(method, url, data=data, headers=headers, **limits) as response:
            content = await _content(response)
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
        if isinstance(error, asyncio.TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
            raise TimedOut(f"{method} {url}: no answer within {timeout_s:g} s", counter="timeout") from error
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise NoAnswer(f"{method} {url}: {words}", counter="connection") from error
    if len(content) > MAX_ANSWER_BYTES:
        raise BadAnswer(f"{method} {url} answered more than {MAX_ANSWER_BYTES} bytes", counter="not_json")
    if response.status != 200:
        said = quotable(content, key=key_of(session), body=body, limit=500)
        is_out = response.status == 429 and is_out_of_quota(content)
        raise _refusal(f"{method} {url} answered {response.status}: {said}", response, is_out_of_quota=is_out)
    if response.content_type != "application/json":
        return content
    try:
        return from_json(content)
    except ValueError as error:
        said = quotable(content, key=key_of(session), body=body, limit=100)
        raise BadAnswer(f"{method} {url} answered what is not JSON: {said.encode()!r}", counter="not_json") from error


async def _content(response: aiohttp.ClientResponse) -> bytes:
    """Return what was answered, decompressed; of more than MAX_ANSWER_BYTES not all."""
    pieces, size = [], 0
    while size <= MAX_ANSWER_BYTES and (piece := await response.content.read(PIECE_BYTES)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def key_of(session: aiohttp.ClientSession) -> str:
    """Return the key that a session sends, or an empty text."""
    return session.headers.get("Authorization", "").removeprefix("Bearer ")


def _refusal(message: str, response: aiohttp.ClientResponse, *, is_out_of_quota: bool) -> RequestError:
    """Return the error for an answer that is no 200."""
    if is_out_of_quota:
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
