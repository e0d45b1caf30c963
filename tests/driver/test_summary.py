"""The figures of a run, and what the user is warned of."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.driver.summary import ShardFigures, from_json, shard_warnings, warnings
from tests import offline


def claims(folder: Path) -> tuple[str, ...]:
    """Write claims that have nothing to do with each other."""
    rows = [{"question": f"Q{i}", "choice": "yes" if i % 2 else "no"} for i in range(32)]
    (folder / "claims.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ("task=claims", f"task.data={folder / 'claims.jsonl'}")


def told(summary: dict[str, Any]) -> str:
    return "\n".join(warnings(from_json(summary)))


async def test_random_labels_fit_other_texts_as_well_and_are_warned_of(tmp_path: Path) -> None:
    summary, _, _ = await offline.label(tmp_path, *claims(tmp_path), "search.method=random")
    (shard,) = summary["shards"]
    assert shard["permuted_p"] > 0.05
    assert "with the same labels on other texts" in told(summary)


async def test_what_a_search_ends_with_costs_one_scoring_and_is_kept(tmp_path: Path) -> None:
    words = (*claims(tmp_path), "search.method=random")
    summary, _, client = await offline.label(tmp_path, *words)
    assert summary["since_start"]["scorings"] == 2, "of the labels, and of the same on other texts"
    assert len(client.prompts) == 2 * 32
    again, _, idle = await offline.label(tmp_path, *words)
    assert again["shards"] == summary["shards"]
    assert not idle.prompts


async def test_the_balance_of_zero_shot_labels_is_beside_that_of_the_result_where_it_was_asked(tmp_path: Path) -> None:
    words = claims(tmp_path)
    blocks, _, _ = await offline.label(tmp_path / "blocks", *words)
    zero_shot, _, _ = await offline.label(tmp_path / "zero", *words, "search.method=zero_shot")
    single, _, _ = await offline.label(tmp_path / "single", *words, "search.method=single", "search.steps=3")
    assert blocks["zero_shot_counts"] == zero_shot["zero_shot_counts"] == zero_shot["label_counts"]
    assert blocks["shards"][0]["zero_shot_counts"] == blocks["zero_shot_counts"]
    assert single["zero_shot_counts"] is None


def figures(**changes: Any) -> ShardFigures:
    """Return figures of a shard that give no warning."""
    usual: dict[str, Any] = dict.fromkeys(ShardFigures.__dataclass_fields__)
    usual |= {"examples": 48, "labelled_by_search": 48, "energy": 20.0, "conflicts": 0, "beats_one_label_for_all": True}
    usual |= {"label_counts": {"no": 24, "yes": 24}, "zero_shot_counts": {"no": 24, "yes": 24}}
    usual |= {"one_label_for_all": {word: {"energy": 0.0, "conflicts": 0} for word in ("no", "yes")}}
    return replace(ShardFigures(**usual), **changes)


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, ""),
        (
            {"zero_shot_counts": {"no": 44, "yes": 4}},
            "gives 50% of the examples the label no, and the model without demonstrations 92%",
        ),
        ({"zero_shot_counts": None}, ""),
        (
            {"permuted_energy": 19.0, "permuted_p": 0.3},
            "and 19.000 with the same labels on other texts; chance may explain the difference (p = 0.30)",
        ),
        ({"permuted_energy": 1.0, "permuted_p": 0.001}, ""),
    ],
)
def test_warnings_name_what_is_wrong(changes: dict[str, Any], warned: str) -> None:
    found = list(shard_warnings([figures(**changes)]))
    assert len(found) == bool(warned)
    assert warned in "".join(found)


def test_a_balance_that_a_rule_fixes_is_not_warned_of() -> None:
    kept_rare = {"no": {"energy": 0.0, "conflicts": 0}, "yes": {"energy": None, "conflicts": 12}}
    found = figures(zero_shot_counts={"no": 4, "yes": 44}, one_label_for_all=kept_rare)
    assert not list(shard_warnings([found]))
    assert list(shard_warnings([replace(found, zero_shot_counts={"no": 44, "yes": 4})]))


async def test_a_summary_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    summary, _, _ = await offline.label(tmp_path, *claims(tmp_path), "search.method=random")
    del summary["zero_shot_counts"]
    for name in ("zero_shot_counts", "permuted_energy", "permuted_p"):
        del summary["shards"][0][name]
    assert from_json(summary).shards[0].permuted_p is None
