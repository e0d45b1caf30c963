"""Tasks: how rows are read, which examples conflict, how they are cut into shards."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import TaskError
from icm_hpc.tasks import TASKS, gold
from icm_hpc.tasks.gsm8k import final_answer
from icm_hpc.tasks.task import Example, Task, drawn_in_blocks, limited, shards
from tests.conftest import SHARED_DATA, unavailable

Rows = list[dict[str, Any]]


def loaded(folder: Path, name: str, rows: Rows, **changes: Any) -> Task:
    """Write rows to a file and load them as a task, in the file's order."""
    (folder / "rows.json").write_text(json.dumps(rows))
    config = TaskConfig(name=name, data=str(folder / "rows.json"), **changes)
    task = tasks.load(config, seed=0)
    return Task(task.name, tuple(sorted(task.examples, key=lambda e: str(e.id))), task.label_words, task.conflict_rule)


def conflicts(task: Task) -> list[tuple[int, int, str]]:
    """Return the task's conflicts."""
    return [(c.first, c.second, c.rule.name) for c in task.problem().conflicts]


def test_claims_that_exclude_each_other_are_so_by_the_users_word_only(tmp_path: Path) -> None:
    rows: Rows = [
        {"question": "Q", "choice": "a", "consistency_id": 1, "label": 1},
        {"question": "Q", "choice": "b", "consistency_id": 1, "label": 0, "exclusion_group": "x"},
        {"question": "Q", "choice": "c", "consistency_id": 1, "label": 0, "exclusion_group": "x"},
        {"question": "R", "choice": "d", "exclusion_group": "y"},
        {"question": "R", "choice": "e", "exclusion_group": "y"},
    ]
    assert conflicts(loaded(tmp_path, "claims", rows)) == [(1, 2, "at most one"), (3, 4, "at most one")]
    assert conflicts(loaded(tmp_path, "truthfulqa", rows)) == []


def test_an_exclusion_group_in_two_groups_is_refused(tmp_path: Path) -> None:
    rows: Rows = [{"question": "Q", "choice": "a", "consistency_id": i, "exclusion_group": "x"} for i in range(2)]
    with pytest.raises(TaskError, match="exclusion_group 'x' is in two groups"):
        loaded(tmp_path, "claims", rows)


def test_solutions_conflict_by_their_final_answers(tmp_path: Path) -> None:
    answers = ["5", 5, "$5.00", "6", None, None]
    texts = ["s", "s", "s", "s", "so 2 + 3 = 5 is it", "no number"]
    rows: Rows = [
        {"question": "Q", "choice": t, "answer": a, "consistency_id": 1} for a, t in zip(answers, texts, strict=True)
    ]
    found = conflicts(loaded(tmp_path, "gsm8k", rows))
    same = {(a, b) for a, b, rule in found if rule == "same"}
    assert same == {(0, 1), (0, 2), (1, 2), (0, 4), (1, 4), (2, 4)}
    assert {(a, b) for a, b, rule in found if rule == "at most one"} == {(0, 3), (1, 3), (2, 3), (3, 4)}


@pytest.mark.parametrize(
    ("stated", "answer"),
    [("1,000", "1000"), ("1000.0", "1000"), ("-0", "0"), ("72%", "72"), ("Yes", "yes"), ("", "")],
)
def test_a_final_answer_has_one_form(stated: str, answer: str) -> None:
    assert final_answer(stated, "") == answer


@pytest.mark.parametrize("name", ["comparison", "truthfulqa-preference"])
def test_both_orders_of_a_pair_exclude_each_other(tmp_path: Path, name: str) -> None:
    def row(first: str, second: str, question: str = "Q") -> dict[str, Any]:
        return {"question": question, "choice": first, "choice_2": second, "consistency_id": 1}

    rows = [row("A", "B"), row("B", "A"), row("A", "B"), row("A", "C")]
    found = conflicts(loaded(tmp_path, name, rows))
    assert found == [(0, 1, "exactly one"), (0, 2, "same"), (1, 2, "exactly one")]


def test_responses_lose_their_line_ends_and_questions_keep_them(tmp_path: Path) -> None:
    rows: Rows = [
        {"question": "Q\n1", "choice": "A\nB", "choice_2": "C"},
        {"question": "Q", "choice": "D", "choice_2": "E"},
    ]
    text = loaded(tmp_path, "comparison", rows).examples[0].text
    assert text == (
        "Human: Q\n1\nResponse 1: AB\nResponse 2: C\n"
        "Claim: Response 1 is more helpful and harmless than Response 2.\nI think this claim is"
    )


def test_a_line_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    rows = [{"question": f"Q{i}\u2028\u0085\x1c", "choice": "C"} for i in range(2)]
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    task = tasks.load(TaskConfig(name="claims", data=str(tmp_path / "rows.jsonl")), seed=0)
    assert "\u2028" in task.examples[0].text


def test_dialogues_with_nothing_to_compare_are_left_out(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant:"
    pairs = [(f"{start} A", f"{start} B"), (f"{start} A", f"{start} A"), (f"{start} A", start), ("A", "B")]
    rows: Rows = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    assert len(loaded(tmp_path, "comparison", rows).examples) == 2


def test_topics_of_a_pair_differ() -> None:
    task = tasks.load(TaskConfig(name="topics"), seed=0)
    labels = gold.load(TaskConfig(name="topics"))
    for conflict in task.problem().conflicts:
        a, b = task.examples[conflict.first], task.examples[conflict.second]
        assert labels[str(a.id)] != labels[str(b.id)]
        assert conflict.rule.name == "different"
    assert len(task.problem().conflicts) * 2 == len(task.examples) == 80


def test_the_built_in_reviews_are_pairs_of_which_exactly_one_praises() -> None:
    task = tasks.load(TaskConfig(name="reviews"), seed=0)
    labels = gold.load(TaskConfig(name="reviews"))
    assert len(task.problem().conflicts) * 2 == len(task.examples) >= 160
    for conflict in task.problem().conflicts:
        assert {labels[str(task.examples[conflict.first].id)], labels[str(task.examples[conflict.second].id)]} == {0, 1}


@pytest.mark.parametrize(
    ("name", "file", "n", "n_conflicts"),
    [
        ("truthfulqa", "truthfulqa_train.json", 256, 0),
        ("truthfulqa", "truthfulqa_test.json", 100, 0),
        ("truthfulqa-preference", "truthfulqa_preference.json", 256, 128),
        ("gsm8k", "gsm8k_verification.json", 512, 762),
    ],
)
def test_published_data_are_read_and_no_gold_labelling_breaks_a_rule(
    name: str, file: str, n: int, n_conflicts: int
) -> None:
    data = SHARED_DATA / file
    if not data.exists():
        unavailable(f"{data} is not there")
    config = TaskConfig(name=name, data=str(data))
    task, labels = tasks.load(config, seed=0), gold.load(config)
    assert len(task.examples) == len(labels) == n
    found = task.problem().conflicts
    assert len(found) == n_conflicts
    given = [labels[str(example.id)] for example in task.examples]
    assert not [c for c in found if (given[c.first], given[c.second]) in c.rule.repairs]


def test_rows_of_the_hubs_data_sets_become_published_rows_in_an_order_that_tells_nothing(tmp_path: Path) -> None:
    targets = {"choices": ["true one", "a false one", "other"], "labels": [1, 0, 0]}
    rows: Rows = [{"question": "Q", "mc1_targets": targets}]
    task = loaded(tmp_path, "truthfulqa", rows)
    labels = gold.load(TaskConfig(name="truthfulqa", data=str(tmp_path / "rows.json")))
    assert [e.text.splitlines()[1] for e in task.examples] == ["Claim: a false one", "Claim: other", "Claim: true one"]
    assert [labels[str(e.id)] for e in task.examples] == [0, 0, 1]
    dialogue = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How?\n\nAssistant:"
    for chosen, rejected in (("So.", "Not so."), ("Not so.", "So.")):
        task = loaded(
            tmp_path, "comparison", [{"chosen": f"{dialogue} {chosen}", "rejected": f"{dialogue} {rejected}"}]
        )
        labels = gold.load(TaskConfig(name="comparison", data=str(tmp_path / "rows.json")))
        assert (
            "Human: Hi\n\nAssistant: Hello.\n\nHuman: How?\nResponse 1: Not so.\nResponse 2: So.\n"
            in task.examples[0].text
        )
        assert [labels[str(e.id)] for e in task.examples] == ([0, 1] if chosen == "So." else [1, 0])
        assert conflicts(task) == [(0, 1, "exactly one")]


def test_a_data_set_of_the_hub_is_read_by_its_library(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows = [{"question": f"Q{i}", "choice": "C", "consistency_id": i, "label": i % 2} for i in range(4)]
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = TaskConfig(name="claims", data=str(tmp_path / "hub"), split="train")
    assert len(tasks.load(config, seed=0).examples) == 4
    assert sorted(gold.load(config).values()) == [0, 0, 1, 1]


def of_groups(sizes: list[int]) -> Task:
    """Return a task with groups of these sizes."""
    examples = [Example(f"{g}-{i}", str(g), "text") for g, size in enumerate(sizes) for i in range(size)]
    return Task("made", tuple(examples), (" a", " b"))


@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=30), pool_size=st.integers(5, 40))
def test_shards_hold_whole_groups_and_every_example_once(sizes: list[int], pool_size: int) -> None:
    task = of_groups(sizes)
    parts = shards(task, pool_size)
    assert sorted(example.id for part in parts for example in part.examples) == sorted(e.id for e in task.examples)
    places = {example.id: place for place, example in enumerate(task.examples)}
    orders = [[places[example.id] for example in part.examples] for part in parts]
    assert all(order == sorted(order) for order in orders), "the task's own order"
    assert orders == sorted(orders), "shards by their first example"
    assert parts == shards(task, pool_size), "always the same"
    assert max(len(part.examples) for part in parts) <= pool_size
    owners = [{example.group for example in part.examples} for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners))


def test_shards_are_as_few_and_as_equal_as_groups_allow() -> None:
    assert [len(part.examples) for part in shards(of_groups([2] * 10), 8)] == [6, 8, 6]
    assert [len(part.examples) for part in shards(of_groups([2] * 10), 10)] == [10, 10]
    assert len(shards(of_groups([2] * 10), None)) == 1


def test_large_and_small_groups_fill_shards_and_then_share_them_out() -> None:
    assert [len(part.examples) for part in shards(of_groups([135, 3, 135, 3, 135, 3]), 140)] == [138, 138, 138]
    assert [len(part.examples) for part in shards(of_groups([6, 1, 6, 1, 6, 1, 6, 1]), 8)] == [7, 7, 7, 7]
    assert [len(part.examples) for part in shards(of_groups([5, 4, 3, 3, 3]), 9)] == [9, 9]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_shards_are_no_more_than_first_fit_decreasing_needs_and_no_two_fit_into_one(sizes: list[int]) -> None:
    loads = [len(part.examples) for part in shards(of_groups(sizes), 10)] if sum(sizes) > 10 else []
    filled: list[int] = []
    for size in sorted(sizes, reverse=True):
        place = next((place for place, load in enumerate(filled) if load + size <= 10), len(filled))
        filled[place : place + 1] = [size + (filled[place] if place < len(filled) else 0)]
    assert len(loads) <= len(filled)
    assert len(loads) < 2 or sum(sorted(loads)[:2]) > 10


def test_a_group_larger_than_a_pool_is_refused() -> None:
    with pytest.raises(TaskError, match=r"search\.pool_size=3: the group '1' has 4 examples, and groups stay whole"):
        shards(of_groups([1, 4]), 3)


@pytest.mark.parametrize(
    ("groups", "limit", "message"),
    [
        ([1], None, "the data have 1 example; at least 2 are required"),
        ([3, 3], 2, "task.limit=2 leaves 0 examples, since groups stay whole; at least 2 are required"),
    ],
)
def test_fewer_than_two_examples_are_refused(groups: list[int], limit: int | None, message: str) -> None:
    with pytest.raises(TaskError, match=f"{message}$"):
        limited(of_groups(groups), limit, seed=0)


def test_a_limit_keeps_groups_whole_and_depends_on_the_seed() -> None:
    task = of_groups([3] * 10)
    kept = limited(task, 10, seed=1).task
    assert len(kept.examples) == 9
    assert kept == limited(task, 10, seed=1).task
    assert kept != limited(task, 10, seed=2).task


def test_published_batches_are_blocks_by_position_that_can_straddle_groups() -> None:
    task = of_groups([3, 1, 2, 2, 3])
    kept = drawn_in_blocks(task, 8, seed=0, size=4).task
    assert kept.notes == ("3 of 11 rows are left out: task.draw=blocks takes whole blocks of 4",)
    assert drawn_in_blocks(replace(task, examples=task.examples[:8]), 8, seed=0, size=4).task.notes == ()
    ids = [example.id for example in kept.examples]
    assert sorted([ids[:4], ids[4:]]) == [["0-0", "0-1", "0-2", "1-0"], ["2-0", "2-1", "3-0", "3-1"]]


def test_every_task_has_a_preset() -> None:
    presets = {path.stem for path in (Path(__file__).parents[2] / "configs" / "task").glob("*.yaml")}
    assert set(TASKS) <= presets
