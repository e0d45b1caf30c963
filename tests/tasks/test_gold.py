"""Gold labels are optional: what a value says, what says nothing, and what is a note; none of it stops a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.config.schema import TaskConfig
from icm_hpc.tasks import gold
from icm_hpc.tasks.rows import kind_of

NAN = float("nan")


def found(folder: Path, labels: list[Any], name: str = "reviews", words: list[str] | None = None) -> gold.Gold:
    """Return the gold labels of rows that have these values."""
    rows = [{"id": str(i), "pair": i, "text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    rows = [{**row, "question": "Q", "choice": row["text"]} for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return gold.found(TaskConfig(name=name, data=str(folder / "rows.jsonl"), label_words=words))


def test_a_label_is_what_its_value_says(tmp_path: Path) -> None:
    values = [1, 1.0, "1", " 1 ", "1.0", True, "True", "true", "TRUE", "positive", " Positive"]
    assert found(tmp_path, values) == gold.Gold({str(i): 1 for i in range(len(values))})
    values = [0, 0.0, -0.0, "0", False, "False", "negative", "Negative "]
    assert found(tmp_path, values) == gold.Gold({str(i): 0 for i in range(len(values))})


def test_a_value_that_says_nothing_is_no_label_and_no_note(tmp_path: Path) -> None:
    assert found(tmp_path, [None, NAN, "", "  ", -1, -1.0, "-1", "nan", "None", "<NA>", 1]) == gold.Gold({"10": 1})


@pytest.mark.parametrize("value", ["maybe", [1, 0], [0.2, 0.8], 0.5, "0.5", {"label": 1}, -7, float("inf")])
def test_another_value_is_one_note_with_its_row_and_no_comparison(tmp_path: Path, value: Any) -> None:
    labels, notes = (of := found(tmp_path, [1, value, value, 0])).labels, of.notes
    assert labels == {"0": 1, "3": 0}
    (note,) = notes
    assert note.startswith(
        "2 gold labels cannot be used: not compared; expected: 0 to 1, true, false, negative or positive"
    )
    assert f"rows.jsonl, line 2: label is {kind_of(value)}" in note


@pytest.mark.parametrize("value", [2, "2", 4.0, 99])
def test_a_number_of_no_label_says_that_labels_are_counted_otherwise_so_that_none_is_compared(
    tmp_path: Path, value: Any
) -> None:
    of = found(tmp_path, [1, value, 1])
    assert of.labels == {}
    (note,) = of.notes
    assert "1 gold label cannot be used: none is compared, because this task's labels are 0 to 1" in note
    assert f"line 2: label is {kind_of(value)}" in note


def test_true_is_no_label_of_four(tmp_path: Path) -> None:
    of = found(tmp_path, [0, True, "food"], "topics")
    assert of.labels == {"0": 0, "2": 1}
    assert len(of.notes) == 1


def test_labels_may_be_named_by_the_words_of_the_settings(tmp_path: Path) -> None:
    assert found(tmp_path, ["yes", "No", "True"], "claims", words=["no", "yes"]).labels == {"0": 1, "1": 0, "2": 1}


def test_gold_labels_of_a_run_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "gold.json").write_bytes(gold.packed({"a": 1, "7": 0}))
    assert gold.unpacked(tmp_path / "gold.json") == {"a": 1, "7": 0}
