"""Whole labellings by the stub's answers: shards, restarts, the two protocols, degenerate results."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_hpc.engines.engine import Metrics
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.trace import read_trace
from tests import offline
from tests.conftest import SHARED_DATA, unavailable

HOT = "search.schedule=constant"


def labels(folder: Path) -> dict[str, Any]:
    """Return the lines of labels.jsonl, by id."""
    lines = (folder / "test" / "labels.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def claims_file(folder: Path, n: int) -> Path:
    """Write claims that have nothing to do with each other."""
    path = folder / "claims.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"Q{i}", "choice": "C"}) for i in range(n)))
    return path


async def test_shards_are_searched_on_their_own_and_merged(tmp_path: Path) -> None:
    summary, run_dir, client = await offline.label(tmp_path, "task.limit=40", "search.pool_size=10", "search.steps=30")
    assert [one["examples"] for one in summary["shards"]] == [10, 10, 10, 10]
    assert len(labels(tmp_path)) == summary["examples"] == 40
    assert sum(one["labelled_by_search"] for one in summary["shards"]) == summary["labelled_by_search"]
    assert [run_dir.shard(n).is_dir() for n in range(5)] == [True] * 4 + [False]
    assert max(map(len, client.prompts)) < 10 * 60, "no prompt holds more than a shard"


async def test_a_shards_labels_do_not_depend_on_what_runs_beside_it(tmp_path: Path) -> None:
    settings = ("task.limit=30", "search.pool_size=10", "search.steps=30", HOT)
    await offline.label(tmp_path / "a", *settings, "search.parallel_searches=1")
    await offline.label(tmp_path / "b", *settings, "search.parallel_searches=3")
    assert labels(tmp_path / "a") == labels(tmp_path / "b")


async def test_of_several_restarts_the_best_is_the_result(tmp_path: Path) -> None:
    settings = ("task.limit=12", "search.steps=40", HOT)
    several, run_dir, _ = await offline.label(tmp_path / "several", *settings, "search.restarts=4")
    assert (run_dir.path / "shard-000-restart-3").is_dir()
    finals = []
    for restart in range(4):
        saved = checkpoint.load_newest(run_dir.shard(0, restart))
        assert saved is not None
        finals.append(saved.state.best)
    full = [x.energy for x in finals if x.labels.min() >= 0]
    assert several["energy"] == max(full)
    more, _, _ = await offline.label(tmp_path / "several", *settings, "search.restarts=5")
    assert more["energy"] >= several["energy"], "restarts can be added to a finished run"


async def test_the_best_labelling_is_the_result_and_the_last_is_known(tmp_path: Path) -> None:
    claims = ("task=claims", f"task.data={claims_file(tmp_path, 12)}")
    hot = (HOT, "search.initial_temperature=1000", "search.steps=60", "search.seed=4")
    best, run_dir, _ = await offline.label(tmp_path / "best", *claims, *hot)
    last, _, _ = await offline.label(tmp_path / "last", *claims, *hot, "search.result=last")
    full = [line["energy"] for line in read_trace(run_dir.shard(0)) if line["pool"] == 12]
    assert best["energy"] == max(full)
    assert last["energy"] == full[-1] == best["shards"][0]["last_energy"]
    assert best["energy"] > last["energy"]


async def test_the_reference_protocol_sends_the_published_prompts(tmp_path: Path) -> None:
    data = SHARED_DATA / "truthfulqa_train.json"
    if not data.exists():
        unavailable(f"{data} is not there")
    settings = ("search.protocol=reference", "task=truthfulqa", f"task.data={data}", "task.limit=8", "search.steps=10")
    summary, _, client = await offline.label(tmp_path, *settings)
    assert summary["protocol"] == "reference"
    assert all(isinstance(prompt, str) for prompt in client.prompts)
    first = str(client.prompts[0])
    assert first.startswith("Question: ")
    assert first.count("I think this claim is ") == 8
    assert first.count("I think this claim is True\n\n") + first.count("I think this claim is False\n\n") == 7
    assert first.endswith("I think this claim is ")


@pytest.mark.parametrize("objective", ["margin", "logprob"])
async def test_both_objectives_label_every_example(tmp_path: Path, objective: str) -> None:
    await offline.label(tmp_path, "task.limit=12", "search.steps=20", f"search.objective={objective}")
    assert len(labels(tmp_path)) == 12


async def test_four_labels_are_searched_as_two_are(tmp_path: Path) -> None:
    summary, _, _ = await offline.label(tmp_path, "task=topics", "task.limit=16", "search.steps=40", HOT)
    assert summary["conflicts"] == 0
    assert list(summary["label_counts"]) == ["sports", "food", "music", "money"]
    assert all(len(row["logprobs"]) == 4 for row in labels(tmp_path).values())


class OneSided(offline.OfflineClient):
    """A model that says the same of everything, the surer the more demonstrations say so."""

    def say(self, prompt: Any, label_ids: Sequence[int]) -> list[float]:
        """Return log P(label | prompt) of one prompt."""
        logits = np.array([sum(token == label for token in prompt) for label in label_ids], dtype=np.float64)
        logits[0] += 1
        return [float(value) for value in logits - np.log(np.exp(logits).sum())]


async def test_a_collapse_to_one_label_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", OneSided)
    claims = ("task=claims", f"task.data={claims_file(tmp_path, 16)}")
    summary, run_dir, _ = await offline.label(tmp_path, *claims, "search.objective=margin")
    (shard,) = summary["shards"]
    assert max(shard["label_counts"].values()) == 16
    assert shard["label_entropy"] == 0
    assert shard["beats_one_label_for_all"] is False
    assert math.isclose(shard["energy"], max(one["energy"] for one in shard["one_label_for_all"].values()))
    assert "no better than one label for all examples" in caplog.text
    counts = [tuple(line["counts"]) for line in read_trace(run_dir.shard(0))]
    assert counts[0] == (4, 4), "the balance over time is in the trace"
    assert sorted(counts[-1]) == [0, 16]


async def test_a_rule_that_forbids_the_collapse_keeps_the_warning_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "OfflineClient", OneSided)
    summary, _, _ = await offline.label(tmp_path, "task=reviews", "task.limit=16", "search.steps=60")
    (shard,) = summary["shards"]
    assert shard["conflicts"] == 0
    assert shard["beats_one_label_for_all"] is True
    assert all(one["conflicts"] > 0 for one in shard["one_label_for_all"].values())


async def test_a_cache_too_small_for_a_scoring_is_reported_with_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def small(_: object) -> Metrics:
        return Metrics(0, 0, 16, 320)

    monkeypatch.setattr(offline.OfflineClient, "metrics", small)
    await offline.label(tmp_path, "task.limit=24", "search.steps=2")
    assert "the server's cache holds 320 tokens, and scorings that run together want" in caplog.text
    assert "each will be computed again" in caplog.text


@pytest.mark.parametrize("layout", ["trie", "grouped", "reference"])
async def test_memo_and_steps_ahead_change_no_decision(tmp_path: Path, layout: str) -> None:
    settings = ("task=gsm8k", f"task.data={solutions_file(tmp_path)}", "search.steps=80", f"search.layout={layout}")
    lean = await offline.label(tmp_path / "lean", *settings)
    ahead = await offline.label(tmp_path / "ahead", *settings, "search.ahead=16")
    plain = await offline.label(tmp_path / "plain", *settings, "search.ahead=1", "search.memo_mb=0")
    traces = [(run_dir.shard(0) / "trace.jsonl").read_bytes() for _, run_dir, _ in (lean, ahead, plain)]
    assert traces[0] == traces[1] == traces[2]
    assert labels(tmp_path / "lean") == labels(tmp_path / "plain")
    assert len(lean[2].prompts) < len(plain[2].prompts)


def solutions_file(folder: Path) -> Path:
    """Write solutions, four of each problem, some with the same answer."""
    path = folder / "solutions.jsonl"
    rows = [
        {"question": f"Q{i // 4}", "choice": f"So {i}.", "answer": str(i % 4 // 2), "consistency_id": i // 4}
        for i in range(16)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
