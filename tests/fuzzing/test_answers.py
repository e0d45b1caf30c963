"""A server's answers, spoilt in many ways: each is exactly the score that was asked for, or one error."""

import asyncio
import gzip
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc.engines import ENGINES, completions, openai, vllm_api, vllm_versions
from icm_hpc.errors import BadAnswer, IcmError, ScoringError
from icm_hpc.scoring import session
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.session import open_session
from tests.fuzzing.mutations import accepted, bounded, damaged, encoded, fuzzed, mutated, to_json, values

IDS = (5, 7)
MESSAGE = 5000  # characters of an error, at most: an answer may have any number
ANSWER: dict[str, Any] = {
    "id": "cmpl-1",
    "model": "m",
    "choices": [
        {"index": n, "finish_reason": "length", "logprobs": {"top_logprobs": [{"token_id:5": -0.5, "token_id:7": -1}]}}
        for n in range(2)
    ],
    "usage": {"prompt_tokens": 12, "total_tokens": 14},
}
MODELS = {"object": "list", "data": [{"id": "m", "root": "/w", "max_model_len": 4096}, {"id": "n", "root": None}]}
METRICS = (
    '# HELP a b\nvllm:prefix_cache_queries_total{engine="0"} 12.0\nvllm:prefix_cache_hits_total{engine="0"} 4.0\n'
    'vllm:prompt_tokens_total{engine="0"} 1e3\nvllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
)
QUOTA = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota", "type": "x"}}


def parsed(value: Any) -> Any:
    """Return a value as it comes out of JSON; refused if it does not."""
    try:
        return json.loads(to_json(value))
    except (ValueError, RecursionError):
        return None


def read(reader: Callable[[], Any]) -> Any:
    """Return what a reader makes of an answer, None for an error, which is not as long as the answer may be."""

    def short() -> Any:
        try:
            return reader()
        except IcmError as error:
            if len(str(error)) > MESSAGE:
                pytest.fail("an error is as long as the answer")
            raise

    return accepted(short)


def is_finite_logprob(value: object) -> bool:
    """Return whether a value is a log-probability."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and -1e4 < value < 0.01
    )


@given(body=mutated(ANSWER, most=4).map(parsed), n=st.integers(1, 3))
@fuzzed(200)
def test_what_is_taken_for_scores_is_what_was_asked(body: Any, n: int) -> None:
    rows = read(lambda: vllm_api.label_logprobs(body, "m", n, IDS))
    if rows is not None:
        assert rows.shape == (n, len(IDS))
        assert rows.dtype == np.float64
        assert bool(np.isfinite(rows).all())
        assert body["model"] == "m"
        assert sorted(one["index"] for one in body["choices"]) == list(range(n))
        by_place = {one["index"]: one["logprobs"]["top_logprobs"][0] for one in body["choices"]}
        asked = [[by_place[place][f"token_id:{token}"] for token in IDS] for place in range(n)]
        assert all(is_finite_logprob(value) for row in asked for value in row)
        assert np.array_equal(rows, np.array(asked, dtype=float).reshape(n, len(IDS)))
    for top in (read(lambda: vllm_api.top_logprobs(body, "m", n)), read(lambda: openai.top_logprobs(body, "m", n))):
        assert top is None or len(top) == n
        assert all(listed and all(map(is_finite_logprob, listed.values())) for listed in top or ())
    ids = read(lambda: vllm_api.top_ids(body, "m"))
    assert ids is None or (
        all(type(id_) is int and id_ >= 0 for id_ in ids) and all(map(is_finite_logprob, ids.values()))
    )
    tokens = read(lambda: completions.prompt_tokens(body))
    assert tokens is None or (type(tokens) is int and 0 <= tokens < 2**63)
    read(lambda: vllm_api.choices(body, "m", n))


@given(body=mutated(MODELS).map(parsed))
@fuzzed(200)
def test_a_list_of_models_is_read_or_refused(body: Any) -> None:
    served = read(lambda: vllm_api.served(body))
    for name, length in (served or {}).items():
        assert type(name) is str
        assert length is None or (type(length) is int and 1 < length < 2**63)
    root = vllm_api.root(body, "m")
    assert root is None or isinstance(root, str)
    length = read(lambda: vllm_api.max_model_len(body, "m"))
    assert length is None or (type(length) is int and 1 < length < 2**63)


@given(body=mutated({"count": 3, "tokens": [1, 2, 300]}).map(parsed))
@fuzzed(200)
def test_tokens_are_ids_or_refused(body: Any) -> None:
    tokens = read(lambda: vllm_api.tokens(body))
    assert tokens is None or (tokens == body["tokens"] and all(type(one) is int and 0 <= one < 2**32 for one in tokens))


@given(body=(mutated({"version": "0.32.0"}) | mutated("0.32.0").map(lambda one: {"version": one})).map(parsed))
@fuzzed(150)
def test_a_version_is_read_or_refused(body: Any) -> None:
    version = read(lambda: vllm_api.version(body))
    if version is not None:
        assert type(version) is str
        assert isinstance(vllm_versions.is_too_old(version), bool)
        assert vllm_versions.standing(version)


@given(content=st.just(METRICS.encode()).flatmap(damaged) | values())
@fuzzed(150)
def test_counters_are_read_or_refused(content: Any) -> None:
    found = read(lambda: vllm_api.counted(content))
    if found is not None:
        assert all(type(one) is int and 0 <= one < 2**63 for one in (found.prompt_tokens, found.cached_tokens))


@given(content=mutated(QUOTA).map(to_json).flatmap(encoded).flatmap(damaged))
@fuzzed(150)
def test_any_refusal_says_whether_the_account_is_used_up(content: bytes) -> None:
    assert isinstance(completions.is_out_of_quota(content), bool)


METHODS: dict[str, Callable[[Client], Any]] = {
    "/v1/completions": lambda client: client.label_logprobs([b"[1,2]", b"[3]"], IDS),
    "/tokenize": lambda client: client.tokenize(["a"]),
    "/v1/models": lambda client: client.max_model_len(),
    "/version": lambda client: client.version(),
    "/metrics": lambda client: client.metrics(),
    "prove": lambda client: client.prove(),
    "trouble": lambda client: client.trouble(),
}
BODIES: dict[str, Any] = {
    "/v1/completions": ANSWER,
    "/tokenize": {"tokens": [1]},
    "/v1/models": MODELS,
    "/version": {"version": "0.32.0"},
    "/metrics": METRICS,
    "prove": {**ANSWER, "tokens": [5, 7], "choices": ANSWER["choices"][:1]},
    "trouble": {},
}
TYPES = ("application/json", "text/plain; charset=utf-8", "application/json; charset=\xff", "x" * 9000, 'a/b; c="', "")
HEADERS = (
    *(
        "Retry-After: 1",
        "Retry-After: 1e400",
        "Retry-After: nan",
        "Retry-After: Mon, 99 Foo 99999 99:99:99 GMT",
        "Retry-After: -1",
    ),
    *(
        "Content-Encoding: gzip",
        "Content-Encoding: br",
        "Transfer-Encoding: chunked",
        "Content-Length: 99999999999999999999",
    ),
    *(
        "Content-Length: -1",
        "Location: http://127.0.0.1:1/",
        "Connection: close",
        "a: " + "b" * 9000,
        "\0: x",
        "Set-Cookie: a=\xff",
    ),
)


@given(
    data=st.data(),
    asked=st.sampled_from(sorted(METHODS)),
    status=st.sampled_from([200] * 6 + [204, 301, 400, 401, 429, 500, 99, 999]),
)
@fuzzed(120)
def test_any_http_answer_is_a_result_or_one_error(data: st.DataObject, asked: str, status: int) -> None:
    sample = BODIES[asked]
    body = to_json(data.draw(mutated(sample, most=2))) if isinstance(sample, dict) else sample
    content = data.draw(damaged(data.draw(encoded(body)), most=1))
    kind = "text/plain" if asked == "/metrics" else data.draw(st.sampled_from([TYPES[0]] * 4 + list(TYPES)))
    extra = data.draw(st.lists(st.sampled_from(HEADERS), max_size=1))
    if not any(line.startswith("Content-Length") for line in extra):
        extra.append(f"Content-Length: {len(content)}")
    head = "\r\n".join([f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", "Connection: close", *extra])
    raw = head.encode("latin-1") + b"\r\n\r\n" + content
    raw = data.draw(damaged(raw, most=1)) if data.draw(st.integers(0, 3)) == 0 else raw
    result = read(lambda: asyncio.run(conversation(raw, METHODS[asked])))
    if asked == "/v1/completions" and result is not None:
        assert result.shape == (2, 2)
        assert bool(np.isfinite(result).all())


async def conversation(raw: bytes, ask: Callable[[Client], Any]) -> Any:
    """Return what a client makes of a server that answers everything by these bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_session("key", timeout_s=2) as opened:
        settings: dict[str, Any] = {"request_mb": 4.0, "requests_in_flight": 4, "retries": False}
        return await ask(Client(opened, ENGINES["vllm"], url=f"http://127.0.0.1:{port}", model="m", **settings))


def with_value(value: object) -> dict[str, Any]:
    """Return an answer to one prompt, one of whose log-probabilities is another value."""
    listed = {"token_id:5": value, "token_id:7": -1.0}
    return {**ANSWER, "choices": [{"index": 0, "logprobs": {"top_logprobs": [listed]}}]}


@pytest.mark.parametrize("value", [False, True, 10**400, -(10**400), "-0.5", None, math.nan, -math.inf, [-0.5], 1.0])
def test_a_value_that_is_no_log_probability_is_no_score(value: object) -> None:
    for read_answer in (
        lambda: vllm_api.label_logprobs(with_value(value), "m", 1, IDS),
        lambda: vllm_api.top_logprobs(with_value(value), "m", 1),
        lambda: openai.top_logprobs(with_value(value), "m", 1),
    ):
        with pytest.raises(BadAnswer):
            read_answer()


@pytest.mark.parametrize("index", [True, 0.0, "0", [], None, -1, 10**400])
def test_a_place_that_is_no_whole_number_is_no_choice(index: object) -> None:
    choices = [{"index": index, "logprobs": {"top_logprobs": [{"token_id:5": -1.0}]}}]
    with pytest.raises(BadAnswer, match="1 prompts were asked"):
        completions.in_order({"choices": choices}, 1)


@pytest.mark.parametrize("tokens", ["123", [1.5], [True], ["1"], [-1], [math.inf], [10**400], {"1": 2}, None])
def test_what_is_no_list_of_ids_is_no_tokens(tokens: object) -> None:
    with pytest.raises(BadAnswer, match="holds no tokens"):
        vllm_api.tokens({"tokens": tokens})


@pytest.mark.parametrize("count", [math.inf, math.nan, -1, True, "12", 1.5, 10**400, None])
def test_what_is_no_count_is_not_added_to_the_tokens(count: object) -> None:
    with pytest.raises(BadAnswer, match="how many tokens"):
        completions.prompt_tokens({"usage": {"prompt_tokens": count}})


def said(kind: str, content: bytes, *headers: str) -> bytes:
    """Return an answer of HTTP."""
    head = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


async def test_an_answer_that_is_nested_too_deeply_is_no_json() -> None:
    with pytest.raises(BadAnswer, match="is not JSON"):
        await conversation(said("application/json", b"[" * 100_000), METHODS["/version"])


async def test_an_answer_that_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_ANSWER_BYTES", 10_000)
    packed = gzip.compress(b" " * 10**8)
    for answer in (said("text/plain", b" " * 20_000), said("text/plain", packed, "Content-Encoding: gzip")):
        with bounded(), pytest.raises(BadAnswer, match="more than 10000 bytes"):
            await conversation(answer, METHODS["/metrics"])


async def test_no_tokens_of_a_text_are_no_answer() -> None:
    with pytest.raises(BadAnswer, match="no tokens of a text"):
        await conversation(said("application/json", b'{"tokens": []}'), METHODS["prove"])


async def test_what_is_quoted_of_an_answer_is_one_line() -> None:
    refused = said("text/plain", b"a\n\x1b[31mb\r\nc").replace(b"200 OK", b"400 No")
    with pytest.raises(ScoringError, match=r"answered 400: a  \[31mb  c$"):
        await conversation(refused, METHODS["/version"])
