"""The leak audit: with every gold label flipped or removed, nothing that the search sees or does changes by one byte."""

import asyncio
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.core.types import Conflict
from icm_hpc.driver import run
from icm_hpc.tasks import TASKS, gold
from icm_hpc.tasks.rows import GOLD, Row
from icm_hpc.tasks.task import SAME, Example
from tests import offline

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """All that a run's search saw and did."""

    examples: tuple[Example, ...]
    conflicts: tuple[Conflict, ...]
    prompts: list[Any]
    trace: bytes
    labels: bytes


def seen(folder: Path, name: str, rows: Rows, *described: str) -> Seen:
    """Run a task on rows."""
    folder.mkdir()
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    named = described or (f"task={name}",)
    arguments = (*named, f"task.data={data}", "search.steps=25", "search.schedule=constant")
    _, run_dir, client = asyncio.run(offline.label(folder, *arguments))
    task = tasks.load(offline.prepare(folder, *arguments)[0].task, seed=0)
    trace = (run_dir.shard(0) / "trace.jsonl").read_bytes()
    return Seen(task.examples, task.problem().conflicts, client.prompts, trace, run_dir.labels.read_bytes())


def rows_of(name: str) -> Rows:
    """Return rows with gold labels for a task: its built-in ones, or some of the published format."""
    if (data := TASKS[name].data) is not None:
        return [json.loads(line) for line in data.read_text().splitlines()][:16]
    return [
        {
            "question": f"Question {i // 4}?",
            "choice": ["It is so.", "It is not so."][i % 2] + f" By {i % 4 // 2}.",
            "choice_2": ["It is not so.", "It is so."][i % 2] + f" By {i % 4 // 2}.",
            "answer": str(i % 3),
            "exclusion_group": f"x{i // 4}" if i % 4 < 2 else None,
            "consistency_id": i // 4,
            GOLD: (i + i // 4) % 2,
        }
        for i in range(16)
    ]


def flipped(name: str, rows: Rows) -> Rows:
    """Return the rows with every gold label changed."""
    n_labels = len(TASKS[name].label_words)
    return [{**row, GOLD: (row[GOLD] + 1) % n_labels} for row in rows]


def without(rows: Rows) -> Rows:
    """Return the rows without gold labels."""
    return [{key: value for key, value in row.items() if key != GOLD} for row in rows]


@pytest.mark.parametrize("name", TASKS)
def test_gold_labels_change_nothing(tmp_path: Path, name: str) -> None:
    rows = rows_of(name)
    original = seen(tmp_path / "original", name, rows)
    assert original.prompts
    assert seen(tmp_path / "flipped", name, flipped(name, rows)) == original
    assert seen(tmp_path / "without", name, without(rows)) == original
    given = gold.load(TaskConfig(name=name, data=str(tmp_path / "original" / "rows.jsonl")))
    other = gold.load(TaskConfig(name=name, data=str(tmp_path / "flipped" / "rows.jsonl")))
    assert given.keys() == other.keys()
    assert all(given[id_] != other[id_] for id_ in given), "the labels did differ"


def test_the_gold_labels_of_ones_own_task_change_nothing(tmp_path: Path) -> None:
    described = (
        'task.prompt="Review: {text}\nGood:"',
        "task.labels={bad: ' no', good: ' yes'}",
        "task.columns={label: stars, group: product}",
        "task.rule=exactly_one",
    )
    rows: Rows = [
        {"text": f"It is {i}.", "product": i // 2, "stars": ["bad", "good"][i * 7 % 3 % 2]} for i in range(16)
    ]
    exchanged: Rows = [{**row, "stars": "good" if row["stars"] == "bad" else "bad"} for row in rows]
    found = [seen(tmp_path / f"{place}", "own", of, *described) for place, of in enumerate((rows, exchanged))]
    assert found[0] == found[1]
    assert found[0].prompts


@pytest.mark.parametrize("name", TASKS)
def test_no_text_of_a_row_is_logged(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        found = seen(tmp_path / "run", name, rows_of(name))
    lines = {line for example in found.examples for line in example.text.splitlines() if len(line) > 12}
    shared = set.intersection(*(set(example.text.splitlines()) for example in found.examples))
    assert lines - shared
    assert not [line for line in lines - shared if line in caplog.text]


@pytest.mark.parametrize("name", ["comparison", "truthfulqa-preference"])
def test_which_answer_was_chosen_changes_nothing(tmp_path: Path, name: str) -> None:
    pairs = [(f"Question {i}? It is {i % 3}.", f"Question {i}? It is not.") for i in range(8)]
    original: Rows = [{"id": i, "chosen": one, "rejected": other} for i, (one, other) in enumerate(pairs)]
    exchanged: Rows = [{"id": i, "chosen": other, "rejected": one} for i, (one, other) in enumerate(pairs)]
    assert seen(tmp_path / "original", name, original) == seen(tmp_path / "exchanged", name, exchanged)
    given = gold.load(TaskConfig(name=name, data=str(tmp_path / "original" / "rows.jsonl")))
    other = gold.load(TaskConfig(name=name, data=str(tmp_path / "exchanged" / "rows.jsonl")))
    assert {id_: 1 - label for id_, label in given.items()} == other, "the labels did differ"


def test_the_search_reads_neither_the_gold_labels_of_the_run_nor_the_file_that_holds_them(tmp_path: Path) -> None:
    rows = rows_of("claims")
    expected = seen(tmp_path / "by file", "claims", rows).labels
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    settings, run_dir, client = offline.prepare(
        tmp_path, "task=claims", f"task.data={data}", "search.steps=25", "search.schedule=constant"
    )
    run_dir.data.write_bytes(tasks.packed(tasks.load(settings.task, seed=0)))
    data.unlink()
    run_dir.gold.mkdir()  # to open it is an error
    asyncio.run(run.label(settings, run_dir, client, lambda _: None))
    assert run_dir.labels.read_bytes() == expected


@pytest.mark.parametrize("where", ["text", "key", "group", "id"])
def test_a_task_that_leaks_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The published code makes its TruthfulQA conflicts from gold labels: so does `key`."""
    monkeypatch.setattr(Row, "without_gold", lambda self: self)
    honest = TASKS["claims"]

    def leaky(row: Row, place: int) -> Example:
        example = honest.example(row, place)
        marked: dict[str, Any] = {where: f"{getattr(example, where)} {row.values.get(GOLD)}"}
        return replace(example, **marked)

    def same(a: Example, b: Example) -> Any:
        return SAME if a.key == b.key else None

    monkeypatch.setitem(TASKS, "claims", replace(honest, example=leaky, conflict_rule=same, check=None))
    rows = rows_of("claims")
    original = seen(tmp_path / "original", "claims", rows)
    assert seen(tmp_path / "without", "claims", without(rows)) != original
