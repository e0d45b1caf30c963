"""From a file of one's own to labels: tables, columns of words that are several tokens, preferences; each by a YAML file."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from icm_hpc import evaluate
from icm_hpc.config import loading
from tests import offline

NEWS = [("Stocks fall.", 2), ("A goal in extra time.", 1), ("A new telescope.", 3), ("Peace talks begin.", 0)] * 2
QUESTIONS = ["How do I boil an egg?", "How long does tea keep?", "Why is the sky blue?", "Where is Oslo?"]


def said(role: str, content: str) -> dict[str, str]:
    """Return a message."""
    return {"role": role, "content": content}


def reviews(folder: Path) -> str:
    """Write a table of reviews with stars, and return its task."""
    rows = [f'r{i},p{i // 2},"Text, number {i}.",{(1, 5)[i % 2]}' for i in range(8)]
    (folder / "shop.csv").write_text("\n".join(["review_id,product,text,stars", *rows]))
    return """
task:
  data: shop.csv
  columns: {id: review_id, group: product, label: stars}
  prompt: "Review: {text}\\nSentiment:"
  labels: {1: " bad", 5: " good"}
  rule: exactly_one
"""


def headlines(folder: Path) -> str:
    """Write headlines as Parquet, and return their task."""
    rows = {"text": [f"{text} {i}" for i, (text, _) in enumerate(NEWS)], "label": [label for _, label in NEWS]}
    parquet.write_table(pa.table(rows), folder / "news.parquet")
    return """
task:
  data: news.parquet
  prompt: "News: {text}\\nTopic:"
  labels: [" world politics", " sports", " business", " science and technology"]
"""


def preferences(folder: Path) -> str:
    """Write preferences as TRL has them, and return their task."""
    rows = [
        {"prompt": [said("user", q)], "chosen": [said("assistant", "So.")], "rejected": [said("assistant", "No.")]}
        for q in QUESTIONS
    ]
    (folder / "prefs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "task: {name: comparison, data: prefs.jsonl}\n"


@pytest.mark.parametrize("kind", [reviews, headlines, preferences])
async def test_a_yaml_file_of_ten_lines_is_enough(tmp_path: Path, kind: Any) -> None:
    yaml = kind(tmp_path)
    assert len(yaml.strip().splitlines()) <= 10
    (tmp_path / "mine.yaml").write_text(yaml)
    word = f"task={tmp_path / 'mine.yaml'}"
    summary, run_dir, _ = await offline.label(tmp_path, word)
    assert summary["examples"] == summary["labelled_by_search"] == 8
    found = evaluate.of_run(loading.load([word, "model=stub"]), run_dir)
    assert found is not None
    assert found.labelled == 8


@pytest.mark.parametrize("method", ["blocks", "single", "zero_shot", "random"])
async def test_labels_are_as_many_as_a_task_has(tmp_path: Path, method: str) -> None:
    intents, texts = [f" intent {n}" for n in range(150)], [f"Utterance {i}." for i in range(150)]
    (tmp_path / "intents.yaml").write_text(
        json.dumps({"task": {"data": "texts.jsonl", "prompt": "{text}\nIntent:", "labels": intents}})
    )
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    words = (f"task={tmp_path / 'intents.yaml'}", f"search.method={method}", "search.scorings=6")
    _, run_dir, _ = await offline.label(tmp_path, *words)
    rows = [json.loads(line) for line in run_dir.labels.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"row-{place}" for place in range(150)], "the order of the data"
    assert 128 <= max(row["label"] for row in rows) < 150
    labels = run_dir.labels.read_bytes()
    run_dir.labels.unlink()
    await offline.label(tmp_path, *words)
    assert run_dir.labels.read_bytes() == labels, "from what was saved, the same"
