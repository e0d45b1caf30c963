"""Label words that cannot be told apart are refused before anything is queued, with the reason and a remedy."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from icm_hpc import tasks
from icm_hpc.capacity.plan import plan
from icm_hpc.config import loading
from icm_hpc.errors import TaskError
from icm_hpc.tasks import TASKS
from icm_hpc.tasks.words import require_distinct
from tests import offline


def planned(words: Sequence[str], *arguments: str) -> bool:
    """Return whether a run with these label words is planned to fit."""
    config = loading.load(["model=stub", "task=reviews", *arguments])
    given = replace(config, task=replace(config.task, label_words=list(words)))
    return plan(given, tasks.load(given.task, seed=0)).fits


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((" yes", "yes"), "equal but for space or case"),
        (("yes", "yes "), "equal but for space or case"),
        ((" yes", " Yes"), "equal but for space or case"),
        ((" very good", " very  good"), "equal but for space or case"),
        ((" stra\u00dfe", " STRASSE"), "equal but for space or case"),
        ((" \uff59es", " yes"), "equal but for space or case"),
        ((" no", " "), "is blank"),
        (("", " yes"), "is blank"),
        (("\n", " yes"), "is blank"),
        ((" no", " yes", " maybe"), "2 words are expected"),
    ],
)
@pytest.mark.parametrize("scoring", ["exact", "top20"])
def test_words_that_are_equal_to_a_reader_are_refused(words: Sequence[str], reason: str, scoring: str) -> None:
    with pytest.raises(TaskError, match=reason):
        planned(words, f"search.scoring={scoring}")


@pytest.mark.parametrize("words", [(" true", " untrue"), (" none", " no"), (" Non-toxic", " toxic")])
def test_a_word_that_contains_another_is_refused_where_containing_words_are_counted(words: Sequence[str]) -> None:
    for scoring in ("search.scoring=top20", "search.protocol=reference"):
        with pytest.raises(TaskError, match=r"so .* would never be counted: choose"):
            planned(words, scoring)
    assert planned(words)


def test_a_run_without_a_plan_refuses_them_too(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="contains"):
        asyncio.run(offline.label(tmp_path, "search.scoring=top20", "task.label_words=[' true',' untrue']"))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_built_in_words_can_be_told_apart_in_every_way_of_scoring(name: str) -> None:
    words = TASKS[name].label_words
    tasks.words.require_distinct(words)
    tasks.words.require_readable_in_top_tokens(words)


def test_words_of_a_task_of_ones_own_are_checked_as_given_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    family = replace(TASKS["reviews"], label_words=(" Yes", " yes"))
    monkeypatch.setitem(TASKS, "reviews", family)
    with pytest.raises(TaskError, match="equal but for space or case"):
        tasks.load(loading.load(["model=stub", "task=reviews"]).task, seed=0)


def test_more_label_words_than_labels_have_numbers_are_refused_at_once() -> None:
    require_distinct([f" w{number}x" for number in range(32_768)])
    with pytest.raises(TaskError, match=r"32,769 label words, and at most 32,768 can be used"):
        require_distinct([f" w{number}x" for number in range(32_769)])
