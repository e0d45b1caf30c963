"""Exports are read by the programs that they are made for; hostile texts survive the way."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from icm_hpc.exports import FORMATS
from icm_hpc.rundir.folder import RunDir
from tests.exports.runs import HOSTILE, exported, finished, hostile, labels


def loaded(name: str, *words: Any, **options: Any) -> Any:
    """Return what `datasets.load_dataset` reads."""
    from datasets import load_dataset

    return load_dataset(name, *words, split="train", **options)


def test_datasets_loads_the_hub_folder_with_the_names_of_its_labels(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task=topics", "task.limit=16", "search.restarts=2")
    rows = labels(run_dir)
    found = loaded(str(exported(run_dir, "hf", "gold=true")), cache_dir=str(tmp_path / "cache"))
    assert found.features["label"].names == found.features["gold"].names == ["sports", "food", "music", "money"]
    assert [found.features["label"].int2str(label) for label in found["label"]] == [row["word"] for row in rows]
    for name in ("id", "text", "label", "word", "margin", "group", "by", "stability"):
        assert list(found[name]) == [row[name] for row in rows], name
    assert list(found["logprobs"]) == [list(row["logprobs"].values()) for row in rows]
    gold = json.loads(run_dir.gold.read_text())
    assert list(found["gold"]) == [gold[row["id"]] for row in rows]


def test_the_card_says_how_the_labels_came_about_and_holds_no_path(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=24", "search.restarts=3", "model.path=/home/me/secret", "model.name=m|<b>")
    card = (exported(run_dir, "hf", "min_margin=-100") / "README.md").read_text()
    _, metadata, text = card.split("---\n", 2)
    values = yaml.safe_load(metadata)
    assert values["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    assert values["annotations_creators"] == ["machine-generated"]
    assert (values["size_categories"], values["license"]) == (["n<1K"], "unknown")
    assert values["dataset_info"]["splits"][0]["num_examples"] == 24
    figures = json.loads(run_dir.summary.read_text())
    assert f"| agreement of restarts | {figures['restarts_agree']:.3f} |" in text
    assert "| model | `m/&lt;b>` |" in text
    assert "| seeds | 0, 1, 2 |" in text
    assert "| rows | 24 of 24: margin of -100 or more |" in text
    assert str(tmp_path) not in card
    assert "secret" not in card
    assert "agree with it" not in card
    with_gold = (exported(run_dir, "hf", "gold=true", "overwrite=true") / "README.md").read_text()
    assert " of 24 labels agree with it" in with_gold


def test_warnings_of_the_run_are_limits_of_the_card(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=12", "search.method=single", "search.steps=1")
    assert (
        "**Warning.** shard 0: the search labelled 8 of 12 examples"
        in (exported(run_dir, "hf") / "README.md").read_text()
    )


@pytest.mark.parametrize("to", [to for to in FORMATS if to not in ("dpo", "reward", "cleanlab")])
def test_hostile_texts_survive_every_format(tmp_path: Path, to: str) -> None:
    run_dir = hostile(tmp_path)
    texts = [row["text"] for row in labels(run_dir)]
    assert sorted(texts) == sorted(f"{text}\nGood?" for text in HOSTILE)
    assert read_back(exported(run_dir, to), to, tmp_path) == texts


def read_back(path: Path, to: str, folder: Path) -> list[str]:
    """Return the texts of an export, as the usual reader of its format has them."""
    import pandas as pd

    if to in ("parquet", "csv"):
        return list({"parquet": pd.read_parquet, "csv": pd.read_csv}[to](path)["text"])
    if to in ("argilla", "labelstudio"):
        return [one[{"argilla": "fields", "labelstudio": "data"}[to]]["text"] for one in json.loads(path.read_text())]
    if to == "hf":
        return list(loaded(str(path), cache_dir=str(folder / "cache"))["text"])
    found = loaded("json", data_files=str(path), cache_dir=str(folder / "cache"))
    if to == "axolotl":
        return [segments[0]["text"] for segments in found["segments"]]
    return [one[0]["content"] for one in found["messages"]] if to == "openai" else list(found["prompt"])


def test_pyarrow_and_pandas_have_the_types_of_a_table(tmp_path: Path) -> None:
    import pandas as pd
    from pyarrow import parquet, types

    run_dir = hostile(tmp_path)
    table = parquet.read_table(exported(run_dir, "parquet"))
    assert types.is_list(table.schema.field("logprobs").type)
    assert table["id"].to_pylist() == [row["id"] for row in labels(run_dir)]
    assert table["stability"].null_count == len(HOSTILE)
    frame = pd.read_csv(exported(run_dir, "csv"))
    assert [frame[name].dtype.kind for name in ("label", "margin", "logprob_no", "logprob_yes")] == ["i", "f", "f", "f"]
    assert list(frame["margin"]) == [row["margin"] for row in labels(run_dir)]


def test_a_spreadsheet_finds_no_formula_where_it_was_asked_for(tmp_path: Path) -> None:
    run_dir = hostile(tmp_path)
    with exported(run_dir, "csv", "spreadsheet=true").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"'{row['id']}" for row in labels(run_dir)]
    assert [cell for row in rows for cell in row.values() if cell[:1] in tuple("=+@\t\r")] == []
    negative = [cell for row in rows for cell in row.values() if cell.startswith("-")]
    assert all(math.isfinite(float(cell)) for cell in negative), "numbers are no formulas"


def test_cleanlab_finds_the_rows_that_the_model_doubts(tmp_path: Path) -> None:
    from cleanlab.filter import find_label_issues

    run_dir = finished(tmp_path, "task=topics", "task.limit=32", "search.method=random")
    with np.load(exported(run_dir, "cleanlab")) as file:
        found = {name: file[name] for name in file.files}
    assert found["labels"].tolist() == [row["label"] for row in labels(run_dir)]
    assert found["pred_probs"].sum(axis=1) == pytest.approx(1)
    assert found["ids"].tolist() == [row["id"] for row in labels(run_dir)]
    ranked = find_label_issues(found["labels"], found["pred_probs"], return_indices_ranked_by="self_confidence")
    doubted = {number for number, row in enumerate(labels(run_dir)) if row["margin"] < 0}
    assert len(ranked) > 0
    assert set(ranked.tolist()) <= doubted


def test_argilla_makes_records_with_suggestions(tmp_path: Path) -> None:
    run_dir = hostile(tmp_path)
    for record, row in zip(argilla_records(exported(run_dir, "argilla")), labels(run_dir), strict=True):
        suggestion = record.suggestions["label"]
        assert (record.id, record.fields["text"]) == (row["id"], row["text"])
        assert (suggestion.value, suggestion.agent) == (row["word"], "stub")
        assert (suggestion.score >= 0.5) == (row["margin"] >= 0)
        assert record.api_model().suggestions[0].question_name == "label"


def argilla_records(path: Path) -> list[Any]:
    import argilla

    return [argilla.Record.from_dict(values) for values in json.loads(path.read_text())]


def test_an_id_that_is_a_number_becomes_a_text(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"id": n if n % 2 else f"n{n}", "text": f"row {n}"}) for n in range(8)))
    run_dir: RunDir = finished(tmp_path, "task=reviews", f"task.data={data}")
    found = loaded(str(exported(run_dir, "hf")), cache_dir=str(tmp_path / "cache"))
    assert list(found["id"]) == [str(row["id"]) for row in labels(run_dir)]
