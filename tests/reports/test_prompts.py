"""The prompts that the page shows are those that were sent."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.engines import stub
from icm_hpc.reports import collect
from icm_hpc.rundir.files import write_atomically
from icm_hpc.rundir.folder import RunDir
from tests import offline
from tests.exports import runs


def run(folder: Path, *arguments: str) -> tuple[RunDir, list[Any]]:
    """Return a finished run, and the prompts that were sent, in their order."""
    _, run_dir, client = asyncio.run(offline.label(folder, *arguments))
    config = loading.load(["model=stub", f"run.root={folder}", "run=test", *arguments])
    task = tasks.load(config.task, seed=config.search.seed)
    write_atomically(run_dir.config, loading.to_yaml(config).encode())
    write_atomically(run_dir.data, tasks.packed(task))
    return run_dir, client.prompts


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("search.layout=grouped",),
        ("search.pool_size=8", "search.restarts=2"),
        ("search.pool_size=6", "search.beyond=apply"),
        ("search.method=zero_shot",),
        ("search.protocol=reference", "search.steps=20", "task.draw=groups"),
    ],
    ids=" ".join,
)
def test_each_rows_prompt_is_one_that_was_sent(tmp_path: Path, settings: tuple[str, ...]) -> None:
    run_dir, sent = run(tmp_path, "task=reviews", "task.limit=16", *settings)
    for row in runs.labels(run_dir):
        prompt = collect.prompt_of(run_dir, row["id"])
        assert prompt is not None
        assert prompt.rstrip(" ").endswith(row["text"])
        assert (prompt if isinstance(sent[0], str) else stub.tokenize(prompt)) in sent


def test_a_run_that_did_not_record_lengths_has_no_prompts(tmp_path: Path) -> None:
    run_dir, _ = run(tmp_path, "task=reviews", "task.limit=16")
    run_dir.lengths(0).unlink()
    assert collect.prompt_of(run_dir, runs.labels(run_dir)[0]["id"]) is None


@pytest.mark.parametrize("content", ["{", '{"demonstrations": [1, 2]}', '{"demonstrations": 3}'])
def test_lengths_that_an_earlier_start_recorded_of_other_data_are_written_again(tmp_path: Path, content: str) -> None:
    words = ("task=reviews", "task.limit=8")
    fresh, _ = run(tmp_path / "fresh", *words)
    _, earlier, _ = offline.prepare(tmp_path / "other", *words)
    earlier.shard(0).mkdir()
    earlier.lengths(0).write_text(content)
    run_dir, _ = run(tmp_path / "other", *words)
    assert run_dir.lengths(0).read_bytes() == fresh.lengths(0).read_bytes()


def test_an_unknown_row_has_no_prompt(tmp_path: Path) -> None:
    run_dir, _ = run(tmp_path, "task=reviews", "task.limit=16")
    assert collect.prompt_of(run_dir, "nobody") is None
