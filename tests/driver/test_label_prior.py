"""search.label_prior=estimated: the shares of labels by zero-shot scores less those after the premise, once in a run."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from icm_hpc import tasks
from icm_hpc.capacity import plan
from icm_hpc.capacity.found import Plan
from icm_hpc.config import loading
from icm_hpc.config.fingerprint import result_settings
from icm_hpc.config.schema import Config
from icm_hpc.driver import pools, run
from icm_hpc.driver.summary import from_json
from icm_hpc.engines import stub
from icm_hpc.errors import CheckpointError, ConfigError, NoAnswer, ScoringError
from icm_hpc.jobs import claim
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring import label_prior
from tests import offline
from tests.driver.premises import PREMISE, TOPICS, Lost, require_refused_before_it_is_queued, silent
from tests.exports.runs import exported, finished
from tests.offline import OfflineClient

ESTIMATED = "search.label_prior=estimated"
WORDS = ("sports", "food", "music", "money")


def log_p(text: str) -> np.ndarray[Any, Any]:
    """Return what the stub gives to the topics after a text."""
    ids = [stub.tokenize(f" {word}")[0] for word in WORDS]
    return np.array(stub.label_logprobs(stub.as_tokens(stub.tokenize(text)), ids))


def task_of(*words: str) -> tasks.Task:
    """Return the task of these settings."""
    return tasks.load(loading.load(["model=stub", *words]).task, seed=0)


def alone(client: OfflineClient, task: tasks.Task) -> int:
    """Return how many prompts were examples alone."""
    prompts = [stub.tokenize(example.text) for example in task.examples]
    return sum(prompt in prompts for prompt in client.prompts)


async def test_the_shares_are_those_of_zero_shot_scores_less_those_after_the_premise(tmp_path: Path) -> None:
    summary, run_dir, client = await offline.label(tmp_path, *TOPICS, ESTIMATED)
    scores = np.stack([log_p(example.text) - log_p("\nTopic:") for example in task_of(*TOPICS).examples])
    mean = np.exp(scores - np.logaddexp.reduce(scores, axis=1)[:, None]).sum(axis=0) + 1
    expected = dict(zip(WORDS, mean / (24 + 4), strict=True))
    saved = json.loads(run_dir.label_prior.read_text())
    assert saved["shares"] == pytest.approx(expected)
    assert saved["logprobs"] == pytest.approx(dict(zip(WORDS, log_p("\nTopic:"), strict=True)))
    assert (saved["examples"], saved["premise"]) == (24, "\nTopic:")
    assert client.prompts.count(PREMISE) == 1
    assert summary["label_prior"] == saved["shares"]
    assert summary["label_prior_by"] == "estimated"
    assert not run_dir.word_prior.exists(), "nothing is subtracted from the scores of the search"


async def test_a_search_finds_the_labels_of_one_that_was_given_the_same_shares(tmp_path: Path) -> None:
    _, run_dir, _ = await offline.label(tmp_path / "estimated", *TOPICS, ESTIMATED)
    shares = list(json.loads(run_dir.label_prior.read_text())["shares"].values())
    summary, given, _ = await offline.label(tmp_path / "given", *TOPICS, f"search.label_prior={json.dumps(shares)}")
    _, equal, _ = await offline.label(tmp_path / "equal", *TOPICS)
    assert given.labels.read_bytes() == run_dir.labels.read_bytes()
    assert equal.labels.read_bytes() != run_dir.labels.read_bytes()
    assert summary["label_prior_by"] == "given"


@pytest.mark.parametrize(
    ("words", "by", "word_prior"),
    [
        ((), "equal", None),
        (("search.word_prior=true",), "equal", log_p("\nTopic:")),
        (("search.word_prior=true", ESTIMATED), "estimated", log_p("\nTopic:")),
        (("search.objective=margin",), None, None),
    ],
    ids=["equal", "words", "both", "margin"],
)
async def test_the_summary_says_which_priors_were_used(
    tmp_path: Path, words: tuple[str, ...], by: str | None, word_prior: Any
) -> None:
    summary, _, _ = await offline.label(tmp_path, *TOPICS, "search.method=random", *words)
    assert summary["label_prior_by"] == by
    assert (summary["label_prior"] is None) == (by is None)
    assert by != "equal" or summary["label_prior"] == dict.fromkeys(WORDS, 0.25)
    known = None if word_prior is None else pytest.approx(dict(zip(WORDS, word_prior, strict=True)))
    assert summary["word_prior"] == known


def test_a_summary_of_an_earlier_version_has_no_priors(tmp_path: Path) -> None:
    summary, _, _ = asyncio.run(offline.label(tmp_path, *TOPICS, "search.method=random"))
    for name in ("label_prior", "label_prior_by", "word_prior"):
        del summary[name]
    assert from_json(summary).label_prior is None


SHARDS = ("search.pool_size=12", "search.restarts=2")


@pytest.mark.parametrize("words", [(), SHARDS, ("search.pool_size=12", "search.beyond=apply")])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.95])
async def test_a_resumed_run_is_the_run_that_was_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], share: float
) -> None:
    same = (*TOPICS, ESTIMATED, *words)
    _, whole, all_asked = await offline.label(tmp_path / "whole", *same)
    monkeypatch.setattr(offline, "OfflineClient", lambda: Lost(10 + int(len(all_asked.prompts) * share)))
    with pytest.raises(NoAnswer):
        await offline.label(tmp_path / "resumed", *same)
    known = RunDir(tmp_path / "resumed" / "test").label_prior.exists()
    assert known == (share > 0), "the estimate takes 25 prompts"
    monkeypatch.setattr(offline, "OfflineClient", lambda: Lost(float("inf"), 3.0 if known else 0.0))
    summary, resumed, client = await offline.label(tmp_path / "resumed", *same)
    assert (PREMISE in client.prompts) == (not known)
    assert resumed.labels.read_bytes() == whole.labels.read_bytes()
    assert summary["label_prior_by"] == "estimated"


async def test_every_shard_and_restart_has_the_same_shares_which_are_asked_once(tmp_path: Path) -> None:
    summary, _, client = await offline.label(tmp_path, *TOPICS, *SHARDS, ESTIMATED, "search.method=random")
    assert len(summary["shards"]) == 2
    assert alone(client, task_of(*TOPICS)) == 24, "labels at random ask for no example alone"
    again, _, idle = await offline.label(tmp_path, *TOPICS, *SHARDS, ESTIMATED, "search.method=random")
    assert idle.prompts == []
    assert again["label_prior"] == summary["label_prior"]
    assert summary["since_start"]["single_examples"] == 24


async def test_state_of_other_shares_is_refused(tmp_path: Path) -> None:
    _, run_dir, _ = await offline.label(tmp_path, *TOPICS, ESTIMATED)
    saved = json.loads(run_dir.label_prior.read_text())
    run_dir.label_prior.write_text(json.dumps({**saved, "shares": dict.fromkeys(WORDS, 0.25)}))
    with pytest.raises(
        CheckpointError, match=r"search\.label_prior: \[.*\] there, \[0\.25, 0\.25, 0\.25, 0\.25\] here"
    ):
        await offline.label(tmp_path, *TOPICS, ESTIMATED)


async def test_a_run_without_saved_state_estimates_again(tmp_path: Path) -> None:
    _, run_dir, _ = await offline.label(tmp_path, *TOPICS, ESTIMATED)
    with claim.written(run_dir, {}):
        assert run_dir.label_prior.exists(), "labels of these shares are there"
    for path in (run_dir.labels, *run_dir.path.glob("shard-*/state-*")):
        path.unlink()
    with claim.written(run_dir, {}):
        assert not run_dir.label_prior.exists()


def test_of_much_data_a_sample_is_asked_which_the_seed_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("task=topics")
    monkeypatch.setattr(label_prior, "SAMPLE", 30)
    first, second = (label_prior.sample_of(task, seed).examples for seed in (0, 1))
    assert len(set(first)) == 30
    assert set(first) <= set(task.examples)
    assert first == label_prior.sample_of(task, 0).examples
    assert first != second


async def test_an_example_without_a_score_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(*TOPICS)
    unreadable = stub.tokenize(task.examples[5].text)

    monkeypatch.setattr(offline, "OfflineClient", silent(unreadable))
    _, run_dir, _ = await offline.label(tmp_path, *TOPICS, ESTIMATED, "search.method=random")
    assert json.loads(run_dir.label_prior.read_text())["examples"] == 23


async def test_a_premise_without_a_score_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "OfflineClient", silent(PREMISE))
    with pytest.raises(ScoringError, match="no score to the end that all texts have in common: played"):
        await offline.label(tmp_path, *TOPICS, ESTIMATED)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("search.protocol=reference",), "requires the default protocol and scoring=exact"),
        (("search.scoring=top20",), "requires the default protocol and scoring=exact"),
        (("engine=openai",), r"engine=openai returns top-k log-probabilities only"),
        (("search.objective=margin",), "objective=margin uses no shares of labels"),
        (("search.objective=logprob",), "objective=logprob uses no shares of labels"),
    ],
)
def test_settings_that_cannot_estimate_shares_are_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"search\.label_prior=estimated: {said}"):
        loading.load([*words, ESTIMATED])


def test_texts_without_a_common_end_are_refused_before_anything_is_queued(tmp_path: Path) -> None:
    require_refused_before_it_is_queued(
        tmp_path,
        ESTIMATED,
        r"label_prior=estimated requires an end that .* in common.*or give the shares of the labels",
    )


def planned(*words: str) -> Plan:
    """Return the plan of a run on GPUs."""
    config = loading.load(["model=8B", "task=topics", "cluster=slurm", "cluster.gpu=H100", *words])
    return plan.plan(config, tasks.load(config.task, seed=0))


def test_a_plan_counts_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, found = planned(), planned(ESTIMATED)
    assert "prior_prompts" not in usual.figures
    assert found.figures["prior_prompts"] == 80
    assert found.figures["forecast_hours"] > usual.figures["forecast_hours"]
    assert found.figures["forecast_scorings"] == usual.figures["forecast_scorings"]
    assert "80 prompts of one example" in found.lines["prior"]
    monkeypatch.setattr(label_prior, "SAMPLE", 30)
    assert planned(ESTIMATED, "search.pool_size=40").figures["prior_prompts"] == 30


def test_runs_of_earlier_versions_have_no_such_setting(tmp_path: Path) -> None:
    config = loading.load(["model=stub", ESTIMATED])
    assert result_settings(config)["search.label_prior"] == "estimated"
    assert "search.label_prior" not in result_settings(loading.load(["model=stub"]))
    path = tmp_path / "config.yaml"
    path.write_text(loading.to_yaml(config))
    assert loading.load_file(path) == config
    assert loading.load_file(path, ["search.label_prior=[]"]).search.label_prior == []


async def applied(root: Path, config: Config, first: RunDir, *, copied: bool) -> dict[str, Any]:
    """Label rows by the pool of a run, as icm_hpc.apply does."""
    run_dir = RunDir(root / "applied")
    run_dir.create()
    for path, content in pools.files_of_run(first, run_dir).items():
        path.write_bytes(content)
    if not copied:
        run_dir.label_prior.unlink(missing_ok=True)
    search = replace(config.search, pool_run=str(first.path), pool_size=None, beyond="shards")
    config = replace(config, search=search, run=replace(config.run, name="applied"))
    return await run.label(config, run_dir, cast(Any, OfflineClient()), lambda _: None)


async def test_new_rows_are_labelled_with_the_shares_of_the_run_whose_pool_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", lambda: Lost(float("inf"), 3.0))
    summary, first, _ = await offline.label(tmp_path, *TOPICS, ESTIMATED)
    monkeypatch.undo()
    config = loading.load(["model=stub", f"run.root={tmp_path}", "run=test", *TOPICS, ESTIMATED])
    first.config.write_text(loading.to_yaml(config))
    found = await applied(tmp_path, config, first, copied=True)
    assert found["label_prior"] == summary["label_prior"]
    assert found["label_prior_by"] == "estimated"
    assert found["energy"] == pytest.approx(summary["energy"])
    assert found["since_start"]["prompts"] == 24, "of the new rows only"
    other = await applied(tmp_path / "asked", config, first, copied=False)
    assert other["label_prior"] != summary["label_prior"], "without a copy it is estimated by the pool"


def test_the_card_of_an_export_has_the_shares(tmp_path: Path) -> None:
    card = (exported(finished(tmp_path, *TOPICS, ESTIMATED), "hf") / "README.md").read_text()
    assert "| shares of labels | estimated: `sports` 0." in card
    equal = (exported(finished(tmp_path / "equal", *TOPICS), "hf") / "README.md").read_text()
    assert "shares of labels" not in equal
