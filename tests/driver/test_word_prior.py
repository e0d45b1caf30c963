"""search.word_prior=true: every score less the log-probability of its word after what all texts end with."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from icm_hpc import evaluate
from icm_hpc.config import loading
from icm_hpc.engines import stub
from icm_hpc.errors import ConfigError, NoAnswer, ScoringError
from icm_hpc.jobs import claim
from icm_hpc.rundir.folder import RunDir
from tests import offline
from tests.driver.premises import PREMISE, TOPICS, Lost, require_refused_before_it_is_queued, silent
from tests.exports.runs import exported, finished

PRIOR = "search.word_prior=true"


def logprobs(run_dir: RunDir) -> dict[str, list[float]]:
    """Return the log-probabilities in labels.jsonl, by id."""
    rows = map(json.loads, run_dir.labels.read_text().splitlines())
    return {row["id"]: list(row["logprobs"].values()) for row in rows}


def log_p(words: Sequence[str], tokens: list[int]) -> list[float]:
    """Return what the stub gives to words after a prompt."""
    found = []
    for word in words:
        ids = stub.tokenize(word)
        steps = [stub.label_logprobs(stub.as_tokens(tokens + ids[:end]), [id_])[0] for end, id_ in enumerate(ids)]
        found.append(sum(steps))
    return found


@pytest.mark.parametrize("beyond", [(), ("search.pool_size=12", "search.beyond=apply")], ids=["pool", "beyond"])
@pytest.mark.parametrize("words", [" sports; business; science; politics", " sports; big business; science; a b c"])
async def test_every_score_is_less_the_prior_of_its_word(tmp_path: Path, beyond: tuple[str, ...], words: str) -> None:
    chosen = [f" {word.strip()}" for word in words.split(";")]
    same = (*TOPICS, "search.method=random", f"task.label_words={json.dumps(chosen)}", *beyond)
    _, plain, _ = await offline.label(tmp_path / "plain", *same)
    _, less, client = await offline.label(tmp_path / "less", *same, PRIOR)
    prior = log_p(chosen, PREMISE)
    assert PREMISE in client.prompts
    assert json.loads(less.word_prior.read_text()) == {
        "premise": "\nTopic:",
        "logprobs": dict(zip([word.strip() for word in chosen], prior, strict=True)),
    }
    without, with_it = logprobs(plain), logprobs(less)
    assert list(with_it) == list(without)
    assert len(without) == 24
    np.testing.assert_array_equal([with_it[id_] for id_ in without], np.array(list(without.values())) - prior)
    assert not plain.word_prior.exists()


async def test_the_preamble_stands_before_the_premise(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": f"It is {word}"}) + "\n" for word in ("good", "bad", "dull", "new")))
    own = (f"task.data={data}", 'task.prompt="{text}\\nTone:"', "task.preamble=Tones.", 'task.labels=[" low"," high"]')
    _, run_dir, client = await offline.label(tmp_path, *own, "search.method=zero_shot", PRIOR)
    assert stub.tokenize("Tones.\nTone:") in client.prompts
    assert json.loads(run_dir.word_prior.read_text())["premise"] == "\nTone:"


async def test_a_resumed_run_has_the_prior_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*TOPICS, "search.objective=margin", PRIOR)
    _, whole, all_asked = await offline.label(tmp_path / "whole", *words)
    monkeypatch.setattr(offline, "OfflineClient", lambda: Lost(len(all_asked.prompts) // 2))
    with pytest.raises(NoAnswer):
        await offline.label(tmp_path / "resumed", *words)
    monkeypatch.setattr(offline, "OfflineClient", lambda: Lost(float("inf"), 1.0))
    _, resumed, client = await offline.label(tmp_path / "resumed", *words)
    assert PREMISE not in client.prompts
    assert resumed.labels.read_bytes() == whole.labels.read_bytes()
    _, other, _ = await offline.label(tmp_path / "other", *words)
    assert other.labels.read_bytes() != whole.labels.read_bytes(), "asked again, it would be another run"


async def test_a_run_without_saved_state_measures_the_prior_again(tmp_path: Path) -> None:
    _, run_dir, _ = await offline.label(tmp_path, *TOPICS, PRIOR)
    with claim.written(run_dir, {}):
        assert run_dir.word_prior.exists(), "labels of this prior are there"
    for path in (run_dir.labels, *run_dir.path.glob("shard-*/state-*")):
        path.unlink()
    with claim.written(run_dir, {}):
        assert not run_dir.word_prior.exists()


async def test_a_premise_without_a_score_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "OfflineClient", silent(PREMISE))
    with pytest.raises(ScoringError, match="no score to the end that all texts have in common: played"):
        await offline.label(tmp_path, *TOPICS, PRIOR)


@pytest.mark.parametrize(
    "words",
    [
        ("search.protocol=reference",),
        ("search.protocol=reference", "search.scoring=exact"),
        ("search.scoring=top20",),
    ],
    ids=["reference", "reference-exact", "top20"],
)
def test_what_does_not_ask_for_every_label_word_refuses_it(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"word_prior=true: requires the default protocol and scoring=exact"):
        loading.load([*words, PRIOR])
    with pytest.raises(
        ConfigError, match=r"search\.word_prior=true: engine=openai returns top-k log-probabilities only"
    ):
        loading.load(["engine=openai", PRIOR])


def test_texts_without_a_common_end_are_refused_before_anything_is_queued(tmp_path: Path) -> None:
    require_refused_before_it_is_queued(
        tmp_path, PRIOR, "requires an end that the texts of all examples have in common"
    )


def test_evaluation_and_the_card_of_an_export_know_such_a_run(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, *TOPICS, PRIOR)
    assert 0 <= evaluate.figures_of_run(loading.load_file(run_dir.config), run_dir)["auroc"] <= 1
    card = (exported(run_dir, "hf") / "README.md").read_text()
    assert (
        "| objective | `calibrated`, alpha 30; scores are less log P of the word after the end that all texts" in card
    )


@pytest.mark.parametrize("objective", ["calibrated", "margin"])
async def test_with_two_labels_the_calibrated_objective_finds_the_same_labels_without_it(
    tmp_path: Path, objective: str
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": f"It is {place}"}) + "\n" for place in range(24)))
    found = []
    for name, words in {"plain": (), "less": (PRIOR,)}.items():
        run = ("task=reviews", f"task.data={data}", f"search.objective={objective}", *words)
        _, run_dir, _ = await offline.label(tmp_path / name, *run)
        found.append([json.loads(line)["label"] for line in run_dir.labels.read_text().splitlines()])
    assert (found[0] == found[1]) is (objective == "calibrated")
