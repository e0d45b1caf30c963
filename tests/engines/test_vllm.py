"""What we ask of the real vLLM, on its CPU build with the model tiny."""

import json
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from benchmarks.serving import ideal_tokens
from icm_hpc import tasks
from icm_hpc.config.loading import load
from icm_hpc.core.cost import scoring_cost
from icm_hpc.core.types import ScorePool, frozen_labels
from icm_hpc.driver import run
from icm_hpc.rundir.folder import Endpoint, RunDir
from icm_hpc.scoring import connect, word_prior
from icm_hpc.scoring.prompts import of_tokens
from icm_hpc.scoring.scorer import Scorer
from icm_hpc.scoring.tokenizer import LocalTokenizer
from icm_hpc.serving import weights
from icm_hpc.tasks import Example, Task
from tests.conftest import Served, prepare_run

pytestmark = pytest.mark.vllm


@pytest.mark.versions
async def test_label_logprobs_are_those_of_the_model(tiny_server: Served) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    task = tasks.load(tiny_server.settings.task, seed=0)
    labels = frozen_labels(np.arange(len(task.examples)) % 2)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        parts = await of_tokens(client, task)
        scorer = Scorer(client, parts, task.problem(), "trie")
        (scores,) = await scorer.answer([ScorePool(labels, "eval")])
        queries = scorer.arranged(ScorePool(labels, "eval"))
    model = AutoModelForCausalLM.from_pretrained(weights.locate(tiny_server.settings.model), dtype=torch.float32)
    for query in queries:
        with torch.no_grad():
            (written,) = parts.write([query], labels)
            prompt = torch.tensor([json.loads(written)])
            direct = torch.log_softmax(model(prompt).logits[0, -1], dim=-1)
        np.testing.assert_allclose(scores[query.index], direct[list(parts.label_ids)].numpy(), atol=1e-4)


async def test_the_top_tokens_are_those_of_the_model(tiny_server: Served) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "Question: Is it so?\nClaim: It is.\nI think this claim is "
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        (answer,) = await client.top_logprobs([json.dumps(text).encode()])
    weights_folder = weights.locate(tiny_server.settings.model)
    model = AutoModelForCausalLM.from_pretrained(weights_folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(weights_folder)
    with torch.no_grad():
        direct = torch.log_softmax(model(torch.tensor([tokenizer(text).input_ids])).logits[0, -1], dim=-1)
    values, tokens = direct.topk(20)
    wanted = {tokenizer.decode([token]): value for token, value in zip(tokens.tolist(), values.tolist(), strict=True)}
    readable = [token for token in wanted if "\ufffd" not in token]  # not half a character
    assert len(readable) >= 8
    np.testing.assert_allclose([answer[token] for token in readable], [wanted[token] for token in readable], atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("task=topics",), marks=pytest.mark.versions, id="four-labels"),
        pytest.param(("task=reviews", "search.protocol=reference"), id="reference"),
    ],
)
async def test_a_search_labels_every_example(tiny_server: Served, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    settings, run_dir = prepare_run(tmp_path, "model=tiny", "task.limit=12", "search.steps=15", *arguments)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        summary = await run.label(settings, run_dir, client, lambda _: None)
    rows = [json.loads(line) for line in run_dir.labels.read_text().splitlines()]
    assert len(rows) == summary["examples"] == 12
    assert {row["word"] for row in rows} <= set(summary["label_counts"])
    assert summary["since_start"]["server_prompt_tokens"] == summary["since_start"]["prompt_tokens"]


async def test_prompts_are_the_tasks_text_in_the_servers_own_tokens(tiny_server: Served) -> None:
    task = tasks.load(tiny_server.settings.task, seed=0)
    labels = frozen_labels(np.arange(len(task.examples)) % 2)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        parts = await of_tokens(client, task)
        query = Scorer(client, parts, task.problem(), "reference").arranged(ScorePool(labels, "eval"))[3]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights.locate(tiny_server.settings.model))
    shown = [task.examples[i].text + task.label_words[labels[i]] + task.separator for i in query.demonstrations]
    assert (
        tokenizer.decode(json.loads(next(parts.write([query], labels))))
        == "".join(shown) + task.examples[query.index].text
    )


def reviews_that_spell(*spelt: str) -> Task:
    """Return reviews, some of which spell special tokens."""
    texts = [*spelt, "quick and quiet", " it leaks", "\n\nbroken on day 2"]
    examples = [Example(f"é{i}", f"{i}", f"Review: {text}\nSentiment:") for i, text in enumerate(texts)]
    return Task("reviews", tuple(examples), (" negative", " positive"))


async def test_a_special_token_that_a_row_spells_is_text_to_the_model_and_the_plan_counts_the_same_tokens(
    tiny_server: Served,
) -> None:
    task = reviews_that_spell("I stopped <|endoftext|> there", "<|endoftext|>", "a <|no such token|> <b>")
    n = len(task.examples)
    local = LocalTokenizer("tiny", Path(weights.locate(tiny_server.settings.model)))
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        parts, planned = await of_tokens(client, task), await of_tokens(local, task)
        scorer = Scorer(client, parts, task.problem(), "trie")
        labels = frozen_labels(np.arange(n) % 2)
        queries = scorer.arranged(ScorePool(labels, "eval"))
        (scores,) = await scorer.answer([ScorePool(labels, "eval")])
    assert parts.specials == ("<|endoftext|>",)
    assert parts.proof.differing == 0
    written = list(parts.write(queries, labels))
    assert written == list(planned.write(queries, labels))
    assert (parts.longest, parts.label_ids) == (planned.longest, planned.label_ids)
    assert all(0 not in json.loads(prompt) for prompt in written)
    assert np.isfinite(scores).all()
    as_text = Tokenizer.from_file(str(Path(weights.locate(tiny_server.settings.model)) / "tokenizer.json"))
    as_text.encode_special_tokens = True
    for query, prompt in zip(queries, written, strict=True):
        shown = [task.examples[i].text + task.label_words[labels[i]] + task.separator for i in query.demonstrations]
        assert json.loads(prompt) == as_text.encode("".join(shown) + task.examples[query.index].text).ids


@pytest.mark.parametrize("count", [3, 77])
async def test_label_words_of_several_tokens_score_what_the_model_gives_to_all_of_them(
    tiny_server: Served, count: int
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    many = tasks.family_of(load(["task=banking77"]).task).label_words
    chosen = many if count == len(many) else (" zebra", " zebu", " positive")
    task = replace(tasks.load(tiny_server.settings.task, seed=0), label_words=chosen)
    labels = frozen_labels(np.arange(len(task.examples)) % count)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        parts = await of_tokens(client, task)
        scorer = Scorer(client, parts, task.problem(), "trie")
        (scores,) = await scorer.answer([ScorePool(labels, "eval")])
        queries = scorer.arranged(ScorePool(labels, "eval"))[:4]
    words = [json.loads(b"[" + word[:-1] + b"]") for word in parts.words]
    assert max(map(len, words)) > 1
    model = AutoModelForCausalLM.from_pretrained(weights.locate(tiny_server.settings.model), dtype=torch.float32)
    for query in queries:
        (written,) = parts.write([query], labels)
        prompt = json.loads(written)
        for label, word in enumerate(words):
            with torch.no_grad():
                logprobs = torch.log_softmax(model(torch.tensor([prompt + word])).logits[0], dim=-1)
            direct = sum(float(logprobs[len(prompt) - 1 + place, token]) for place, token in enumerate(word))
            assert scores[query.index, label] == pytest.approx(direct, abs=1e-4)


async def test_the_prior_of_label_words_is_what_the_model_gives_to_them_after_the_end_of_all_texts(
    tiny_server: Served, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = (" zebra", " zebu", " positive")
    task = replace(tasks.load(tiny_server.settings.task, seed=0), label_words=words, preamble="Reviews:\n")
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        prior = await word_prior.of_run(RunDir(tmp_path), client, task)
        again = await word_prior.of_run(RunDir(tmp_path), client, task)
        parts = await of_tokens(client, task)
        ask = ScorePool(frozen_labels(np.arange(len(task.examples)) % 3), "eval")
        (plain,) = await Scorer(client, parts, task.problem(), "trie").answer([ask])
        (less,) = await Scorer(client, parts, task.problem(), "trie", word_prior=prior).answer([ask])
    assert prior.tolist() == again.tolist()
    np.testing.assert_allclose(less, plain - prior, atol=1e-4)
    folder = weights.locate(tiny_server.settings.model)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    premise = tokenizer("Reviews:\n\nSentiment:").input_ids
    asked = [tokenizer("Reviews:\n\nSentiment:" + word).input_ids for word in words]
    assert max(map(len, asked)) > len(premise) + 1
    same = next(place for place, tokens in enumerate(zip(*asked, strict=False)) if len(set(tokens)) > 1)
    for ids, value in zip(asked, prior, strict=True):
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
        direct = sum(float(logprobs[place - 1, ids[place]]) for place in range(same, len(ids)))
        assert value == pytest.approx(direct, abs=1e-4)


@pytest.mark.versions
@pytest.mark.parametrize("layout", ["trie", "grouped"])
@pytest.mark.parametrize("n", [6, 10, 16])
async def test_the_server_computes_what_was_forecast_and_no_prefix_twice(
    tiny_server: Served, layout: str, n: int
) -> None:
    task = tasks.load(replace(tiny_server.settings.task, limit=n), seed=1)
    labels = frozen_labels(np.arange(n) % 2)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as connected:
        client = connected.salted(f"{layout}-{n}")
        tokens = await of_tokens(client, task)
        scorer = Scorer(client, tokens, task.problem(), layout)
        before = await client.metrics()
        await scorer.answer([ScorePool(labels, "eval")])
        after = await client.metrics()
    assert before.block_size == 32
    assert before.cache_tokens
    queries = scorer.arranged(ScorePool(labels, "eval"))
    expected = scoring_cost(queries, tokens.lengths, 32)
    computed = after.computed_tokens - before.computed_tokens
    assert after.prompt_tokens - before.prompt_tokens == client.traffic.prompt_tokens == expected.prompt_tokens
    assert computed == pytest.approx(expected.computed_tokens, rel=0.05)
    assert computed == ideal_tokens(tokens, queries, labels, 32)


async def test_more_prompts_and_more_labels_than_vllm_takes_in_a_request_are_scored(tiny_server: Served) -> None:
    prompts = [json.dumps([300 + i % 7, 400, 500 + i % 3]).encode() for i in range(1030)]
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        many = await client.label_logprobs(iter(prompts), range(600, 730))
        few = await client.label_logprobs(prompts[-2:], [600, 729])
    assert many.shape == (1030, 130)
    np.testing.assert_allclose(many[-2:, [0, -1]], few, atol=1e-4)


@pytest.mark.versions
async def test_an_option_that_vllm_no_longer_has_is_left_out_and_the_driver_warns_of_it(
    tiny_server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt):
        of_connect = [record for record in caplog.records if record.name == "icm_hpc.scoring.connect"]
        (warning,) = [record.getMessage() for record in of_connect if record.levelname == "WARNING"]
    assert warning.startswith("icm_hpc: not sent to vLLM: --swap-space: vLLM 0.")
    assert str(tiny_server.run_dir.server_log) in warning


UNDOCUMENTED = (
    "GET /docs",
    "GET /openapi.json",
    "GET /redoc",
    "GET /nowhere",
    "POST /sleep",
    "POST /reset_prefix_cache",
)


@pytest.mark.versions
async def test_another_user_on_the_same_node_is_answered_by_no_route(tiny_server: Served) -> None:
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt):
        endpoint = tiny_server.run_dir.read_endpoint(tiny_server.attempt)
    assert endpoint is not None
    served = json.loads(request(endpoint, "GET /openapi.json", key=endpoint.key)[1])["paths"]
    routes = [f"{method.upper()} {path}" for path, methods in served.items() for method in methods] + [*UNDOCUMENTED]
    assert {"POST /v1/completions", "POST /tokenize", "POST /invocations", "GET /metrics"} <= set(routes)
    for key in (None, "", "guess", endpoint.key[:-1]):
        answers = {route: request(endpoint, route, key=key)[0] for route in routes}
        assert answers == dict.fromkeys(routes, 401)
    print(*routes, sep="\n")  # pytest -s: the list for docs/security.md


@pytest.mark.versions
async def test_what_is_asked_is_in_no_log(tiny_server: Served) -> None:
    task = tasks.load(tiny_server.settings.task, seed=0)
    async with connect.connected(tiny_server.settings, tiny_server.run_dir, tiny_server.attempt) as client:
        await of_tokens(client, task)
        await client.top_logprobs([json.dumps(example.text).encode() for example in task.examples])
    log = tiny_server.run_dir.server_log.read_text()
    assert "vllm" in log
    assert not any(example.text[:40] in log for example in task.examples)
    assert "prompt_token_ids" not in log


def request(endpoint: Endpoint, route: str, *, key: str | None) -> tuple[int, bytes]:
    """Return what a request with this key gets: status and body."""
    method, path = route.split()
    url = f"http://{endpoint.hosts[0]}:{endpoint.port}{path}"
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    asked = urllib.request.Request(url, data=b"{}" if method == "POST" else None, method=method, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            return int(response.status), response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
