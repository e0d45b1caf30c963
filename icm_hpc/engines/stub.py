"""A server with vLLM's interface and no model: each answer is a pure function of the prompt's tokens.

For tests of the search and of the job. `python -m icm_hpc.engines.stub` reads its key from VLLM_API_KEY.
"""

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import re
import sys
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web

from . import vllm
from .engine import Rank, Start

if TYPE_CHECKING:
    from ..config.schema import ModelConfig

VOCABULARY = 2**31
LEAST = 4 + float(np.log(5))  # below 0 by which the most probable token stays: five of them are not more than certain
WORDS = ["True", "False", "positive", "negative", "yes"]  # the top-k tokens, where none are asked for by id


def argv(
    model: "ModelConfig",
    weights: Path | str,  # noqa: ARG001
    *,
    host: str,
    port: int,
    replicas: int = 1,  # noqa: ARG001
    rank: Rank | None = None,
) -> list[str]:
    """Return the command that starts the stub; `vllm_args: {delay-ms: 50}` makes every answer take that long.

    All replicas are one process, and a rank that is not the first does nothing.
    """
    if rank is not None and rank.number > 0:
        return [sys.executable, "-c", "import signal; signal.pause()"]
    words = ["--host", host, "--port", str(port), "--served-model-name", model.known_as]
    words += ["--max-model-len", str(model.max_model_len), "--delay-ms", str(model.vllm_args.get("delay-ms", 0))]
    return [sys.executable, "-m", "icm_hpc.engines.stub", *words]


def environment(
    model: "ModelConfig",
    key: str,
    *,
    address: str | None = None,  # noqa: ARG001
    start_timeout_s: float | None = None,  # noqa: ARG001
) -> Mapping[str, str]:
    """Return the variables that the stub is given."""
    return {**model.env, vllm.KEY_VARIABLE: key}


def tokenize(text: str) -> list[int]:
    """Return one token for each word with the space before it, and for each other sign."""
    return [zlib.crc32(piece.encode()) % VOCABULARY for piece in re.findall(r" ?\w+|\s|[^\w\s]", text)]


def label_logprobs(prompt: bytes, label_ids: Sequence[int]) -> list[float]:
    """Return log-probabilities that depend on every token of the prompt (`1,2,3`), each whatever other labels are asked."""
    digest = hashlib.sha256(prompt).digest()
    seeds = [hashlib.sha256(digest + int(token).to_bytes(8, "little")).digest() for token in label_ids]
    return [4 * int.from_bytes(seed[:8], "big") / 2**64 - LEAST for seed in seeds]


def as_tokens(prompt: Any) -> bytes:
    """Return a prompt, text or token ids, as `label_logprobs` takes it."""
    ids = tokenize(prompt) if isinstance(prompt, str) else prompt
    return ",".join(map(str, ids)).encode()


def read_body(raw: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the fields of a request and its prompts. Token ids as our client writes them are not decoded: benchmarks send
    hundreds of megabytes.
    """
    head, _, prompts = raw.partition(b', "prompt": [')
    if prompts.startswith(b"["):
        return json.loads(head + b"}"), prompts[1:-3].split(b"],[")
    body = json.loads(raw)
    return body, list(map(as_tokens, body["prompt"]))


def application(*, model: str, max_model_len: int, key: str, delay_ms: float = 0) -> web.Application:
    """Return the stub as an aiohttp application."""
    counted = 0  # prompt tokens so far

    @web.middleware
    async def require_key(request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]) -> Any:
        if not key or not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {key}"):
            return web.Response(status=401, text="the run's key is wanted\n")
        return await handler(request)

    async def health(_request: web.Request) -> web.Response:
        return web.Response()

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": model, "max_model_len": max_model_len}]})

    async def version(_request: web.Request) -> web.Response:
        return web.json_response({"version": "stub"})

    async def tokens(request: web.Request) -> web.Response:
        return web.json_response({"tokens": tokenize((await request.json())["prompt"])})

    async def metrics(_request: web.Request) -> web.Response:
        counters = {"vllm:prefix_cache_queries_total": counted, "vllm:prefix_cache_hits_total": 0}
        return web.Response(text="".join(f"{name} {value}\n" for name, value in counters.items()))

    async def completions(request: web.Request) -> web.Response:
        nonlocal counted
        body, prompts = read_body(await request.read())
        await asyncio.sleep(delay_ms / 1000)
        ids = body.get("logprob_token_ids", [])
        by_id = bool(ids) or body.get("return_tokens_as_token_ids", False)
        ids = ids or [tokenize(word)[0] for word in WORDS]
        names = [f"token_id:{token}" for token in ids] if by_id else WORDS
        listed = [dict(zip(names, label_logprobs(prompt, ids), strict=True)) for prompt in prompts]
        choices = [{"index": i, "logprobs": {"top_logprobs": [values]}} for i, values in enumerate(listed)]
        usage = {"prompt_tokens": sum(prompt.count(b",") + 1 for prompt in prompts)}
        counted += usage["prompt_tokens"]
        return web.json_response({"model": model, "choices": choices, "usage": usage})

    app = web.Application(middlewares=[require_key], client_max_size=2**30)
    app.add_routes([web.get("/health", health), web.get("/v1/models", models), web.get("/metrics", metrics)])
    app.add_routes([web.get("/version", version)])
    app.add_routes([web.post("/tokenize", tokens), web.post("/v1/completions", completions)])
    return app


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--delay-ms", type=float, default=0)
    options = parser.parse_args()
    app = application(
        model=options.served_model_name,
        max_model_len=options.max_model_len,
        key=os.environ.get(vllm.KEY_VARIABLE, ""),
        delay_ms=options.delay_ms,
    )
    web.run_app(app, host=options.host, port=options.port, print=None)


# It is asked and read as vLLM is. It has neither versions nor a cache: all that would be checked of it is the stub.
ENGINE = replace(
    vllm.ENGINE,
    url_variable=None,
    start=Start(
        argv,
        environment,
        remedy=lambda _code, _last_words: None,
        root_cause=lambda _log: None,
        left_out=lambda _log: None,
    ),
    has_weights=False,
    batch_dependence=None,
    is_checked=False,
)

if __name__ == "__main__":
    main()
