"""Whole labellings by each search method, with the stub's answers: results, budgets, restarts, resumes, warnings."""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.config import loading
from icm_hpc.config.fingerprint import result_settings
from icm_hpc.core.methods import METHODS
from icm_hpc.driver.summary import from_json, warnings
from icm_hpc.errors import BadAnswer, ConfigError
from icm_hpc.monitoring import finished
from icm_hpc.rundir.trace import read_trace
from tests import offline

SMALL = ("task.limit=16",)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of labels.jsonl."""
    return [json.loads(line) for line in (folder / "test" / "labels.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_labels_every_example_with_the_same_outputs(tmp_path: Path, method: str) -> None:
    summary, _, _ = await offline.label(tmp_path, *SMALL, f"search.method={method}")
    assert summary["method"] == method
    assert len(rows(tmp_path)) == summary["examples"] == 16
    (figures,) = summary["shards"]
    assert summary["energy"] == figures["energies"]["calibrated"]
    (end,) = figures["searches"]
    assert end["settled"] == (method != "single")
    assert sum(figures["label_counts"].values()) == 16


async def test_the_default_search_labels_all_and_breaks_no_rule(tmp_path: Path) -> None:
    summary, run_dir, _ = await offline.label(tmp_path, *SMALL)
    assert (summary["method"], summary["labelled_by_search"], summary["conflicts"]) == ("blocks", 16, 0)
    assert {row["by"] for row in rows(tmp_path)} == {"search"}
    lines = list(read_trace(run_dir.shard(0)))
    assert summary["steps"] == len(lines) - 1
    assert lines[0]["pool"] < lines[-1]["pool"] == 16


async def test_the_energy_is_that_of_all_labels_whatever_the_search_labelled(tmp_path: Path) -> None:
    summary, _, _ = await offline.label(
        tmp_path, *SMALL, "search.method=single", "search.steps=2", "search.objective=margin"
    )
    (figures,) = summary["shards"]
    assert summary["labelled_by_completion"] > 0
    assert summary["energy"] == pytest.approx(
        30 * sum(row["margin"] for row in rows(tmp_path)) / 16 - summary["conflicts"]
    )
    assert figures["searched_energy"] != summary["energy"]
    assert any("the search labelled" in warning for warning in warnings(from_json(summary)))


@pytest.mark.parametrize("limit", ["search.scorings=2", "search.steps=1"])
@pytest.mark.parametrize("method", ["blocks", "bootstrap"])
async def test_two_scorings_label_every_example(tmp_path: Path, method: str, limit: str) -> None:
    summary, _, _ = await offline.label(tmp_path, "task.limit=80", f"search.method={method}", limit)
    assert (summary["labelled_by_search"], summary["steps"]) == (80, 1)
    assert summary["shards"][0]["searches"][0]["scorings"] == 2


async def test_a_larger_limit_goes_on_from_where_a_small_one_ended(tmp_path: Path) -> None:
    settings = ("task.limit=80", "search.ahead=2")
    _, run_dir, _ = await offline.label(tmp_path, *settings, "search.scorings=3")
    before = list(read_trace(run_dir.shard(0)))
    summary, _, _ = await offline.label(tmp_path, *settings, "search.scorings=12")
    assert list(read_trace(run_dir.shard(0)))[: len(before)] == before
    assert (summary["labelled_by_search"], summary["shards"][0]["searches"][0]["scorings"]) == (80, 12)


async def test_a_limit_that_leaves_room_for_growth_ends_a_search_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    settings = (*SMALL, "search.schedule=constant", "search.ahead=3")
    short, run_dir, _ = await offline.label(tmp_path / "a", *settings, "search.scorings=9")
    assert short["shards"][0]["searches"][0]["scorings"] == 9
    assert not short["shards"][0]["searches"][0]["settled"]
    config = loading.load([*settings, "model=stub", "search.scorings=9"])
    assert finished.is_finished(run_dir, config)
    more = dataclasses.replace(config, search=dataclasses.replace(config.search, scorings=25))
    assert not finished.is_finished(run_dir, more)
    await offline.label(tmp_path / "a", *settings, "search.scorings=25")
    await offline.label(tmp_path / "b", *settings, "search.scorings=25", "search.ahead=1")
    assert list(read_trace(run_dir.shard(0))) == list(read_trace(tmp_path / "b" / "test" / "shard-000"))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


class Sure(offline.OfflineClient):
    """Is sure of its labels, and has no score for one prompt without demonstrations."""

    def say(self, prompt: Any, label_ids: Sequence[int]) -> list[float]:
        """Return log P(label | prompt) of one prompt, by the end of it."""
        if len(prompt) < 100 and zlib.crc32(str(prompt).encode()) % 16 == 3:
            raise BadAnswer("a value came back as nan", counter="logprobs")
        right = zlib.crc32(str(prompt[-12:]).encode()) % len(label_ids)
        return [-1e-3 if label == right else -7.0 for label in range(len(label_ids))]


async def test_a_hot_search_with_nothing_to_propose_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "OfflineClient", Sure)
    monkeypatch.setattr(
        Sure, "say", lambda self, prompt, ids: [-1e-3, -7.0] if sum(prompt[-12:]) % 2 else [-7.0, -1e-3]
    )
    claims = tmp_path / "claims.jsonl"
    claims.write_text("\n".join(json.dumps({"question": f"Q{i}", "choice": "C"}) for i in range(16)))
    summary, _, _ = await offline.label(tmp_path, "task=claims", f"task.data={claims}", "search.schedule=log")
    assert summary["labelled_by_search"] == 16
    assert summary["steps"] <= 4 * 16 * 5


async def test_an_example_without_a_zero_shot_score_is_labelled_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", Sure)
    summary, _, _ = await offline.label(tmp_path, "task.limit=40")
    assert summary["since_start"]["scorings_from_memo"] > 0, "step 0 was asked again, one by one"
    assert summary["labelled_by_search"] == 40


async def test_restarts_say_where_they_agree(tmp_path: Path) -> None:
    summary, _, _ = await offline.label(tmp_path / "several", *SMALL, "search.restarts=3")
    assert 0 <= summary["restarts_agree"] <= 1
    assert {row["stability"] for row in rows(tmp_path / "several")} <= {0.0, 0.5, 1.0}
    one, _, _ = await offline.label(tmp_path / "one", *SMALL)
    assert one["restarts_agree"] is None
    assert {row["stability"] for row in rows(tmp_path / "one")} == {None}


async def test_a_search_is_by_the_calibrated_objective_unless_it_is_the_published_one(tmp_path: Path) -> None:
    claims = tmp_path / "claims.jsonl"
    claims.write_text("\n".join(json.dumps({"question": f"Q{i}", "choice": "C"}) for i in range(12)))
    data = ("task=claims", f"task.data={claims}")
    summary, _, _ = await offline.label(tmp_path / "ours", *data)
    assert summary["shards"][0]["objective"] == "calibrated"
    published = ("search.protocol=reference", "search.steps=3", "task.draw=groups")
    summary, _, _ = await offline.label(tmp_path / "published", *data, *published)
    assert summary["shards"][0]["objective"] == "margin"
    with pytest.raises(ConfigError, match=r"label_prior has 2 shares, and the task has 4 labels"):
        await offline.label(tmp_path / "prior", "task=topics", "task.limit=12", "search.label_prior=[0.5,0.5]")


def test_the_settings_of_a_run_from_before_there_were_methods_are_those_of_the_published_search(tmp_path: Path) -> None:
    now = loading.load(
        ["model=stub", "search.method=single", "search.objective=margin", "search.steps=200", "search.kicks=0"]
    )
    lines = loading.to_yaml(now).replace("format: 4", "format: 2").splitlines()
    added = ("method:", "scorings:", "first_labels:", "label_prior:", "calibration:", "kicks:", "word_prior:")
    old = tmp_path / "config.yaml"
    old.write_text("\n".join(line for line in lines if not line.strip().startswith(added)))
    then = loading.load_file(old)
    assert (then.search.method, then.search.schedule, then.search.initial_temperature) == ("single", "log", 10.0)
    assert result_settings(then) == result_settings(now)
    later = ("method", "label_prior", "calibration", "word_prior")
    assert not any(name.split(".")[1] in later for name in result_settings(now))
    assert result_settings(loading.load(["model=stub", "search.word_prior=true"]))["search.word_prior"] is True
