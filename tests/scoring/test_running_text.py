"""Prompts are the tokens of the text that a person would write, in the tokenizers of many kinds of models."""

import asyncio
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer, models

from benchmarks.serving import ideal_tokens
from icm_hpc import tasks
from icm_hpc.capacity.plan import plan
from icm_hpc.config import loading
from icm_hpc.config.fingerprint import fingerprint
from icm_hpc.config.schema import TaskConfig
from icm_hpc.core.cost import scoring_cost
from icm_hpc.core.layout import LAYOUTS, Query
from icm_hpc.core.types import LabelNumber, Labels
from icm_hpc.driver import run
from icm_hpc.errors import CheckpointError, TaskError
from icm_hpc.scoring import prompts
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import TokenPrompts, of_tokens
from icm_hpc.scoring.tokenizer import LocalTokenizer
from icm_hpc.serving import weights
from icm_hpc.tasks.task import Example, Task
from tests import offline
from tests.conftest import require_vllm
from tests.model_tokenizers import KINDS, llama3, saved

# How rows begin and end in real data.
ROWS = (
    *("plain words", " a space before", "  two", "\na line break before", "\n\n\nthree", "\ttab", "123456 numbers 7"),
    *(
        '"quotes"',
        "(brackets)",
        "...",
        "emoji 😀",
        "😀",
        "Ünïcode",
        "中文",
        "\u0301combining",
        "ends in spaces  ",
        "a\r\nb",
    ),
)
FREE = Task("free", tuple(Example(f"{i}", "g", f"{row}\nAnswer:") for i, row in enumerate(ROWS)), (" False", " True"))
BARE = Task("bare", tuple(Example(f"{i}", "g", row) for i, row in enumerate(ROWS) if row[-1] != " "), (" no", " yes"))


def built_in(name: str) -> Task:
    """Return a task of 16 examples."""
    return tasks.load(TaskConfig(name=name, limit=16), seed=0)


TASKS = {"reviews": built_in("reviews"), "topics": built_in("topics"), "free": FREE, "bare": BARE}


def claims(*texts: str) -> Task:
    """Return claims that end in these texts."""
    examples = [Example(f"{i}", f"{i}", f"Claim: {text}\nI think this claim is") for i, text in enumerate(texts)]
    return Task("claims", tuple(examples), (" False", " True"))


def written(tokens: TokenPrompts, task: Task, layout: str) -> list[tuple[Query, list[int]]]:
    """Return every prompt of one scoring, and one without demonstrations."""
    n = len(task.examples)
    members = np.arange(n)
    queries = LAYOUTS[layout].arrange(members, members, task.problem().groups, tokens.demonstration_tokens, "eval")
    queries.append(Query(0, ()))
    labels = (members % len(task.label_words)).astype(LabelNumber)
    return [(query, json.loads(prompt)) for query, prompt in zip(queries, tokens.write(queries, labels), strict=True)]


def whole(task: Task, query: Query, label: int) -> str:
    """Return the text of a prompt with the label that is asked."""
    n = len(task.label_words)
    shown = [task.examples[i].text + task.label_words[i % n] + task.separator for i in query.demonstrations]
    return "".join(shown) + task.examples[query.index].text + task.label_words[label]


@pytest.mark.parametrize("layout", ["trie", "grouped"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_is_the_tokens_of_its_whole_text(tmp_path: Path, kind: str, task: Task, layout: str) -> None:
    tokenizer = KINDS[kind]()
    tokens = asyncio.run(of_tokens(saved(tmp_path, tokenizer), task))
    assert tokens.proof.differing == 0, str(tokens.proof)
    start = json.loads(b"[" + tokens.start[:-1] + b"]")
    for query, ids in written(tokens, task, layout):
        assert ids[: len(start)] == start
        for label, word in enumerate(tokens.words):
            asked = [*ids[len(start) :], *json.loads(b"[" + word[:-1] + b"]")]
            assert asked == tokenizer.encode(whole(task, query, label), add_special_tokens=False).ids


@pytest.mark.vllm
@pytest.mark.parametrize("model", ["smol", "tiny"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_prompts_of_the_embedded_models_are_the_tokens_of_their_whole_text(model: str, task: Task) -> None:
    require_vllm()
    folder = Path(weights.locate(loading.load([f"model={model}"]).model))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = asyncio.run(of_tokens(LocalTokenizer(model, folder), task))
    assert tokens.proof.differing == 0, str(tokens.proof)
    for query, ids in written(tokens, task, "trie"):
        text = whole(task, query, 0).removesuffix(task.label_words[0])
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("block_size", [1, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_forecast_where_the_first_example_is_other_tokens(
    tmp_path: Path, kind: str, block_size: int
) -> None:
    task = built_in("reviews")
    tokens = asyncio.run(of_tokens(saved(tmp_path, KINDS[kind]()), task))
    members = np.arange(16)
    labels = (members % 2).astype(LabelNumber)
    for layout in ("trie", "grouped"):
        queries = LAYOUTS[layout].arrange(members, members, task.problem().groups, tokens.demonstration_tokens, "eval")
        expected = scoring_cost(queries, tokens.lengths, block_size)
        sizes = [len(json.loads(prompt)) for prompt in tokens.write(queries, labels)]
        same = len(set(map(len, tokens.words))) == 1
        assert expected.prompt_tokens == sum(sizes) or not same
        assert expected.computed_tokens == pytest.approx(ideal_tokens(tokens, queries, labels, block_size), rel=0.05)
        assert max(sizes) + tokens.answers.longest + 1 <= tokens.longest <= max(sizes) + tokens.answers.longest + 3


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"unigram"}))
@pytest.mark.parametrize("name", sorted(tasks.TASKS))
def test_the_label_words_of_every_built_in_task_are_one_token_in_running_text(
    tmp_path: Path, kind: str, name: str
) -> None:
    saved(tmp_path, KINDS[kind]())
    (tmp_path / "config.json").write_text('{"num_local_experts": 8}')
    rows = [
        {"question": f"Is it {i}?", "choice": f"It is {i}.", "choice_2": f"Not {i}.", "answer": i, "consistency_id": i}
        for i in range(8)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = [] if tasks.TASKS[name].data else [f"task.data={tmp_path}/rows.json"]
    config = loading.load(["model=8B", f"model.path={tmp_path}", "server.gpus_per_node=0", f"task={name}", *data])
    found = plan(config, tasks.load(config.task, seed=0))
    assert found.fits, found.misfits
    assert found.figures["tokens_counted"]
    assert not any("label words" in note for note in found.notes)


def test_what_a_tokenizer_adds_at_the_end_of_a_text_is_in_no_prompt(tmp_path: Path) -> None:
    tokenizer = llama3()
    assert tokenizer.encode("a").ids[0] == 1
    assert tokenizer.encode("a").ids[-1] == 2
    tokens = asyncio.run(of_tokens(saved(tmp_path, tokenizer), FREE))
    assert tokens.start == b"1,"
    for _, ids in written(tokens, FREE, "trie"):
        assert (ids.count(1), ids.count(2)) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_token_that_a_row_spells_is_sent_as_its_text(tmp_path: Path, kind: str) -> None:
    spelt = (
        "the end<|endoftext|>",
        "<s>",
        "</s> and <s><|endoftext|> again",
        "[INST] do [INST]</s>",
        "[not] <special>",
        "[<|endoftext|>] <<s>> <|endoftext|><|endoftext|>[[INST]] >></s><<",
        "a|</s>\n<s>\n\n[INST]",
    )
    task, tokenizer = claims(*spelt), KINDS[kind]()
    special = {tokenizer.token_to_id(one) for one in ("<|endoftext|>", "<s>", "</s>", "[INST]")}
    tokens = asyncio.run(of_tokens(saved(tmp_path, tokenizer), task))
    assert set(tokens.specials) == {"<|endoftext|>", "<s>", "</s>", "[INST]"}
    tokenizer.encode_special_tokens = True
    start = tokens.start.count(b",")
    for query, ids in written(tokens, task, "trie"):
        assert special.isdisjoint(ids[start:])
        text = tokenizer.encode(whole(task, query, 0), add_special_tokens=False).ids
        assert ids[start:] == text[: len(ids) - start] or kind == "unigram", "whose pieces include the special tokens"


def test_text_in_brackets_that_is_no_special_token_is_left_as_it_is(tmp_path: Path) -> None:
    task = claims("a <b> c [1] [sic] <0x0A>", "<|no such token|> >>X<<")
    tokens = asyncio.run(of_tokens(saved(tmp_path, KINDS["llama2"]()), task))
    assert tokens.specials == ()


class Counting(LocalTokenizer):
    """Notes what it is given."""

    given = 0

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of each text."""
        self.given += len(texts)
        return await super().tokenize(texts, special=special)


@pytest.mark.parametrize("name", ["reviews", "topics"])
def test_about_two_texts_and_a_half_an_example_are_tokenized_whatever_the_number_of_labels(
    tmp_path: Path, name: str
) -> None:
    saved(tmp_path, KINDS["gpt2"]())
    counting = Counting("model", tmp_path)
    task = tasks.load(TaskConfig(name=name, limit=64), seed=0)
    asyncio.run(of_tokens(counting, task))
    assert counting.given <= 2.5 * 64


def joining() -> Tokenizer:
    """Return a tokenizer with a token of the last letter of a label word and the line break behind it."""
    letters = sorted(set("\n .:;?Ithinkclamsdue TrFb"))
    vocabulary = {one: place for place, one in enumerate(["?", *(one for one in letters if one != "?"), "e\n"])}
    return Tokenizer(models.BPE(vocabulary, [("e", "\n")], unk_token="?"))


def test_a_tokenizer_that_allows_no_exact_cut_is_a_warning_with_the_share_of_prompts(tmp_path: Path) -> None:
    task = replace(claims("a", "b", "c"), label_words=(" be", " de"))
    tokens = asyncio.run(of_tokens(saved(tmp_path, joining()), task))
    assert (tokens.proof.checked, tokens.proof.differing) == (2, 2)
    (caution,) = (one for one in prompts.cautions(tokens, "exact") if "compared" in one)
    assert caution.startswith(
        "in 2 of 2 prompts compared, the tokens sent are not those of the whole text (of examples 0, 1, 2"
    )
    assert prompts.cautions(tokens, "top20") == []


async def test_a_run_warns_of_prompts_that_are_not_running_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, joining())
    (tmp_path / "rows.json").write_text(json.dumps([{"question": "bus?", "choice": one} for one in "abcdef"]))
    given = (f"task.data={tmp_path}/rows.json", "task.label_words=[' be',' de']", "search.steps=1")
    settings, run_dir, client = offline.prepare(tmp_path, "task=claims", *given)
    monkeypatch.setattr(offline.OfflineClient, "tokenize", LocalTokenizer("model", tmp_path).tokenize)
    await run.label(settings, run_dir, client, lambda _: None)
    assert "shard 0: in 2 of 2 prompts compared, the tokens sent are not those of the whole text" in caplog.text


@pytest.mark.parametrize(
    ("texts", "words", "reason"),
    [
        (("x:", "y: "), ("no", " yes"), "are other tokens of model model after example '1'"),
        (("x:", "y:"), (" non", " non-toxic"), "begin alike, and ' non' ends there"),
        (("x:", "y:"), (" 😀", " 😀😀"), "cannot be told apart"),
    ],
)
def test_label_words_without_tokens_of_their_own_are_refused(
    tmp_path: Path, texts: Sequence[str], words: tuple[str, str], reason: str
) -> None:
    task = Task("t", tuple(Example(f"{i}", f"{i}", text) for i, text in enumerate(texts)), words)
    with pytest.raises(TaskError, match=reason):
        asyncio.run(of_tokens(saved(tmp_path, KINDS["gpt2"]()), task))


class Chain:
    """A model whose next token depends on the last one only."""

    max_ids = 128

    def __init__(self, size: int) -> None:
        rows = np.random.default_rng(0).normal(size=(size, size))
        self.logprobs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))

    async def label_logprobs(self, asked: Iterable[bytes], ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return log P(next token) for each of `ids`."""
        return np.array([self.logprobs[json.loads(prompt)[-1], list(ids)] for prompt in asked])


def test_a_label_word_of_several_tokens_scores_the_sum_over_its_tokens(tmp_path: Path) -> None:
    task = replace(claims("a", "b", "c"), label_words=(" zebras", " zebus", " quokka"))
    tokenizer = KINDS["gpt2"]()
    tokens = asyncio.run(of_tokens(saved(tmp_path, tokenizer), task))
    model = Chain(tokenizer.get_vocab_size())
    asked = written(tokens, task, "trie")
    scores = asyncio.run(tokens.score(cast(Client, model), (json.dumps(ids).encode() for _, ids in asked)))
    words = [json.loads(b"[" + word[:-1] + b"]") for word in tokens.words]
    assert max(map(len, words)) > 1
    for (_, ids), row in zip(asked, scores, strict=True):
        direct = []
        for word in words:
            chain = [ids[-1], *word]
            direct.append(sum(model.logprobs[a, b] for a, b in itertools.pairwise(chain)))
        np.testing.assert_allclose(row, direct)
    assert any("label words are several tokens" in one for one in prompts.cautions(tokens, "exact"))


def test_the_cost_of_label_words_of_several_tokens_is_forecast_as_if_all_were_the_longest(tmp_path: Path) -> None:
    task = replace(built_in("reviews"), label_words=(" zebras", " quokka"))
    tokens = asyncio.run(of_tokens(saved(tmp_path, KINDS["gpt2"]()), task))
    members = np.arange(16)
    queries = LAYOUTS["trie"].arrange(members, members, task.problem().groups, tokens.demonstration_tokens, "eval")
    labels = (members % 2).astype(LabelNumber)

    class Asked:
        """All that is sent, as `ideal_tokens` takes it."""

        def write(self, queries: Iterable[Query], labels: Labels) -> Iterable[bytes]:
            """Yield every prompt with every beginning of a word."""
            (request,) = tokens.answers.requests(128)
            return request.asking(tokens.write(queries, labels))

    expected = tokens.cost("trie", task.problem().groups, 16)
    assert expected.prompts == 16 * len(tokens.answers.nodes) > 16
    direct = ideal_tokens(cast(TokenPrompts, Asked()), queries, labels, 16)
    assert direct <= expected.computed_tokens <= 1.2 * direct


async def test_the_stubs_prompts_are_what_its_tokenizer_makes_of_the_text(tmp_path: Path) -> None:
    client = offline.OfflineClient()
    task = built_in("topics")
    tokens = await of_tokens(client, task)
    for query, ids in written(tokens, task, "trie"):
        (direct,) = await client.tokenize([whole(task, query, 0).removesuffix(task.label_words[0])])
        assert ids == direct


async def test_a_run_that_was_saved_with_prompts_of_another_form_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_dir, client = offline.prepare(tmp_path, "task.limit=8", "search.steps=2")
    with monkeypatch.context() as older:
        older.setattr("icm_hpc.config.fingerprint.PROMPT_FORMAT", 1)
        await run.label(settings, run_dir, client, lambda _: None)
    with pytest.raises(CheckpointError, match="saved by another configuration: prompt_format: 1 there, 2 here"):
        await run.label(settings, run_dir, client, lambda _: None)


def test_the_form_of_prompts_is_in_the_fingerprint_unless_they_are_text() -> None:
    def mark(*arguments: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(fingerprint(loading.load(["model=stub", *arguments]), "0"))
        return told

    assert mark()["prompt_format"] == 2
    assert "prompt_format" not in mark("search.protocol=reference"), "its prompts are text, as they ever were"
