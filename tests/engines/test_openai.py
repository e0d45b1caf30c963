"""What is read of the answers of a completions API."""

from typing import Any

import pytest

from icm_hpc.engines import completions, openai
from icm_hpc.errors import BadAnswer

QUOTA = b'{"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": null}}'


@pytest.mark.parametrize(
    ("counter", "body"),
    [
        ("choices", None),
        ("choices", {"choices": []}),
        ("choices", {"choices": [{"index": 1}]}),
        ("logprobs", {"choices": [{"index": 0, "logprobs": {"top_logprobs": [{}]}}]}),
        ("logprobs", {"choices": [{"index": 0, "logprobs": {"top_logprobs": [None]}}]}),
        ("logprobs", {"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"a": 0.5}]}}]}),
        ("logprobs", {"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"a": float("nan")}]}}]}),
    ],
)
def test_an_answer_that_is_no_list_of_tokens_is_a_bad_one(counter: str, body: Any) -> None:
    with pytest.raises(BadAnswer) as bad:
        openai.top_logprobs(body, "m", 1)
    assert bad.value.counter == counter


@pytest.mark.parametrize(
    ("content", "out"),
    [
        (QUOTA, True),
        (b'{"error": {"code": "insufficient_quota"}}', True),
        (b'{"error": {"code": "rate_limit_exceeded", "message": "not insufficient_quota"}}', False),
        (b'{"error": "insufficient_quota"}', False),
        (b"<html>", False),
        (b"[]", False),
    ],
)
def test_a_used_up_account_is_told_from_haste(content: bytes, *, out: bool) -> None:
    assert completions.is_out_of_quota(content) is out
