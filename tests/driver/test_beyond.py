"""Examples beyond the pool (search.beyond=apply): labelled given the pool, at the cost of their own tokens, resumable."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.core.cost import applied_cost
from icm_hpc.core.types import Labelling, LabelNumber
from icm_hpc.driver import beyond, run
from icm_hpc.errors import BadAnswer, ConfigError, FitError, TaskError
from icm_hpc.rundir import sealed
from icm_hpc.rundir.progress import Progress
from icm_hpc.scoring import connect, prompts
from icm_hpc.scoring.scorer import Work
from tests import offline
from tests.conftest import Served
from tests.offline import OfflineClient

APPLY = ("task.limit=64", "search.pool_size=16", "search.beyond=apply")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 48 examples be several pieces."""
    monkeypatch.setattr(beyond, "PIECE", 10)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of labels.jsonl."""
    return [json.loads(line) for line in (folder / "test" / "labels.jsonl").read_text().splitlines()]


async def test_what_the_pool_does_not_hold_is_labelled_given_it(tmp_path: Path) -> None:
    summary, _, _ = await offline.label(tmp_path, *APPLY)
    found = rows(tmp_path)
    assert Counter(row["by"] for row in found) == {"search": 16, "apply": 48}
    assert (summary["examples"], summary["labelled_by_search"], summary["labelled_by_completion"]) == (64, 16, 0)
    assert summary["beyond"]["examples"] == 48
    assert summary["conflicts"] == summary["beyond"]["conflicts"] == 0, "rules hold beyond the pool, too"
    assert sum(summary["label_counts"].values()) == 64
    assert sum(summary["beyond"]["label_counts"].values()) == 48
    alone, _, _ = await offline.label(tmp_path / "alone", "task.limit=16")
    assert [figures["examples"] for figures in summary["shards"]] == [alone["examples"]]


async def test_each_is_asked_once_behind_one_prefix(tmp_path: Path) -> None:
    _, run_dir, searched = await offline.label(tmp_path / "pool", "task.limit=16")
    _, _, client = await offline.label(tmp_path / "all", *APPLY)
    asked = client.prompts[-48:]
    shared = min(len(prompt) for prompt in asked) - 40
    longest = max(map(len, searched.prompts))
    assert shared > 0.8 * longest, "the prefix is the whole pool"
    assert len({tuple(prompt[:shared]) for prompt in asked}) == 1
    assert len({tuple(prompt) for prompt in asked}) == 48
    assert run_dir.labels.exists()


class Interrupted(OfflineClient):
    """Has no answer from a prompt on."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.left = prompts

    def say(self, prompt: Any, label_ids: Sequence[int]) -> list[float]:
        """Answer, or not."""
        self.left -= 1
        if self.left < 0:
            raise BadAnswer("played", counter="logprobs")
        return super().say(prompt, label_ids)


async def test_a_later_start_goes_on_from_the_pieces_that_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole, all_asked = await offline.label(tmp_path / "whole", *APPLY)
    with monkeypatch.context() as played:
        played.setattr(offline, "OfflineClient", lambda: Interrupted(len(all_asked.prompts) - 12))
        with pytest.raises(BadAnswer):
            await offline.label(tmp_path / "resumed", *APPLY)
    _, resumed, client = await offline.label(tmp_path / "resumed", *APPLY)
    assert 12 <= len(client.prompts) <= 12 + 2 * 12, "what is saved is not asked again"
    assert resumed.labels.read_bytes() == whole.labels.read_bytes()
    _, again, client = await offline.label(tmp_path / "resumed", *APPLY)
    assert client.prompts == []
    assert again.labels.read_bytes() == whole.labels.read_bytes()


async def test_a_damaged_piece_is_set_aside_and_asked_again(tmp_path: Path) -> None:
    _, run_dir, _ = await offline.label(tmp_path, *APPLY)
    labels, path = run_dir.labels.read_bytes(), sorted(run_dir.beyond.iterdir())[1]
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    _, _, client = await offline.label(tmp_path, *APPLY)
    assert path.with_suffix(sealed.DAMAGED).exists()
    assert len(client.prompts) == 10
    assert run_dir.labels.read_bytes() == labels


async def test_pieces_given_another_pool_are_asked_again(tmp_path: Path) -> None:
    settings = (*APPLY, "search.method=single", "search.num_seeds=4")
    await offline.label(tmp_path / "a", *settings, "search.steps=0")
    _, more, client = await offline.label(tmp_path / "a", *settings, "search.steps=90")
    _, whole, _ = await offline.label(tmp_path / "b", *settings, "search.steps=90")
    assert more.labels.read_bytes() == whole.labels.read_bytes()
    assert len(client.prompts) >= 48


async def test_progress_counts_them_and_forecasts_the_rest(tmp_path: Path) -> None:
    told: list[Progress] = []
    settings, run_dir, client = offline.prepare(tmp_path, *APPLY)
    await run.label(settings, run_dir, client, told.append)
    assert (told[0].applied, told[0].to_apply) == (0, 48)
    assert [now.applied for now in told[-5:]] == [10, 20, 30, 40, 48]
    assert told[-1].done == told[-1].expected > told[-1].steps
    assert told[-1].to_apply * told[-1].applied_step < 1, "48 short ends of prompts are less work than 16 whole prompts"


async def test_an_example_too_long_for_the_context_is_named_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = [{"id": f"c{i}", "question": f"Q{i}", "choice": "C " * (500 if i == 3 else 5)} for i in range(12)]
    (tmp_path / "claims.jsonl").write_text("\n".join(map(json.dumps, claims)))

    async def context(_: OfflineClient) -> int:
        return 550

    monkeypatch.setattr(OfflineClient, "max_model_len", context)
    settings = ("task=claims", f"task.data={tmp_path / 'claims.jsonl'}", "search.pool_size=4", "search.beyond=apply")
    with pytest.raises(FitError, match="example 'c3' behind a pool of 4") as refused:
        await offline.label(tmp_path, *settings)
    assert "shorten or remove it" in str(refused.value)
    assert not list((tmp_path / "test").glob("shard-*/trace.jsonl")), "nothing was searched"


async def test_a_pool_that_holds_everything_leaves_nothing_beyond_it(tmp_path: Path) -> None:
    summary, run_dir, _ = await offline.label(tmp_path, "task.limit=16", "search.beyond=apply")
    assert summary["beyond"] is None
    assert not run_dir.beyond.exists()


async def test_a_pool_that_holds_no_group_is_refused(tmp_path: Path) -> None:
    claims = [{"question": f"Q{i}", "choice": "C", "consistency_id": i // 4} for i in range(12)]
    (tmp_path / "claims.jsonl").write_text("\n".join(map(json.dumps, claims)))
    settings = ("task=claims", f"task.data={tmp_path / 'claims.jsonl'}", "search.pool_size=3", "search.beyond=apply")
    with pytest.raises(TaskError, match=r"search\.pool_size=3 holds no group"):
        await offline.label(tmp_path, *settings)


def test_zero_shot_labels_need_no_pool() -> None:
    with pytest.raises(ConfigError, match="leave beyond=shards"):
        loading.load(["model=stub", "search.method=zero_shot", "search.beyond=apply"])


async def test_the_published_way_of_scoring_applies_too(tmp_path: Path) -> None:
    summary, _, client = await offline.label(tmp_path, *APPLY, "search.protocol=reference", "search.steps=4")
    assert summary["beyond"]["examples"] == 48
    assert isinstance(client.prompts[-1], str)


async def test_on_vllm_each_costs_about_its_own_tokens(tiny_server: Served, tmp_path: Path) -> None:
    settings = loading.load(["model=tiny", "task.limit=96", "search.pool_size=16", "search.beyond=apply"])
    task = tasks.load(settings.task, seed=0)
    division = tasks.divided(task, 16, "apply")
    pool, rest = division.shards[0], division.beyond
    assert rest is not None
    shown = Labelling(np.zeros(16, dtype=LabelNumber), np.zeros((16, 2)), 0.0)
    async with connect.connected(settings, tiny_server.run_dir, tiny_server.attempt) as connected:
        client = connected.salted("beyond")
        further = await beyond.prepared(client, pool, rest)
        before = await client.metrics()
        piece = await beyond.label(settings, tmp_path, further, shown, client, work=Work(), report=lambda _: None)
        after = await client.metrics()
        prefix, tokens = await prompts.of_tokens(client, pool), await prompts.of_tokens(client, rest)
    expected = applied_cost(prefix.longest_after(0), tokens.lengths, before.block_size or 1)
    computed = after.computed_tokens - before.computed_tokens
    assert computed == pytest.approx(expected.computed_tokens, rel=0.1)
    assert computed < 0.3 * expected.prompt_tokens
    assert np.isfinite(piece.scores).all()
