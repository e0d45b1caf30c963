"""Rows: which values are absent, what ids and groups are made up, and that none collides with the data's own."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import TaskError
from icm_hpc.tasks import Task
from icm_hpc.tasks.rows import Row

NAN = float("nan")
Rows = list[dict[str, Any]]


def loaded(folder: Path, rows: Rows, name: str = "claims") -> Task:
    """Write rows, with the literal NaN where a value is NaN, and load them as a task in the order of the file."""
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tasks.load(TaskConfig(name=name, data=str(folder / "rows.jsonl")), seed=0)


def claims(**columns: list[Any]) -> Rows:
    """Return claims with these further columns."""
    n = len(next(iter(columns.values())))
    more = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{"question": f"Q{i}?", "choice": f"c{i}", **more[i]} for i in range(n)]


ABSENT = [NAN, None, "", "  \t", "nan", "NaN", "None", "<NA>"]


@pytest.mark.parametrize("column", ["id", "consistency_id", "exclusion_group"])
def test_rows_whose_name_is_missing_in_any_way_have_nothing_in_common(tmp_path: Path, column: str) -> None:
    task = loaded(tmp_path, claims(**{column: ABSENT}))
    assert {str(e.id) for e in task.examples} == {f"row-{i}" for i in range(len(ABSENT))}
    assert len({e.group for e in task.examples}) == len(ABSENT)
    assert task.problem().conflicts == ()


@pytest.mark.parametrize("value", [NAN, None, "", " \n", "\u00a0", float("inf")])
def test_a_missing_value_is_absent_for_every_reader(value: Any) -> None:
    row = Row("here, line 1", {"choice": value})
    assert row.value("choice") is None
    assert row.id("choice") is None
    assert row.name("choice") is None
    with pytest.raises(TaskError, match=r"here, line 1: choice is .*; expected: a text under 'choice'"):
        row.text("choice")


def test_values_that_pandas_makes_of_missing_ones_are_absent() -> None:
    class NAType:
        """As pandas.NA is."""

    assert Row("", {"id": NAType()}).id("id") is None


def test_a_text_that_says_none_is_a_text() -> None:
    assert Row("", {"choice": "None"}).text("choice") == "None"


def test_zero_is_a_name() -> None:
    row = Row("", {"id": 0})
    assert (row.id("id"), row.name("id")) == (0, "0")


def test_a_group_that_pandas_has_made_a_float_is_the_same_group(tmp_path: Path) -> None:
    task = loaded(tmp_path, claims(consistency_id=[1, 1.0, "1", NAN]))
    assert sorted(e.group for e in task.examples) == ["1", "1", "1", "alone-3"]


def test_an_exclusion_group_beside_a_blank_consistency_id_is_one_group(tmp_path: Path) -> None:
    task = loaded(tmp_path, claims(consistency_id=["", None, NAN, " "], exclusion_group=["a", "a", "b", "b"]))
    assert [c.rule.name for c in task.problem().conflicts] == ["at most one"] * 2


@pytest.mark.parametrize("group", [date(2026, 11, 28), datetime(2026, 11, 28, 7), True, UUID(int=7)])
def test_dates_and_truth_values_name_groups_and_dates_examples(group: Any) -> None:
    row = Row("", {"consistency_id": group, "id": group})
    assert row.name("consistency_id") == str(group)
    if group is not True:
        assert row.id("id") == str(group)


def test_groups_and_ids_that_count_as_none_are_noted(tmp_path: Path) -> None:
    task = loaded(tmp_path, claims(consistency_id=["NA", "NA", "x", "x"], id=[1, 2, 3, "null"]))
    assert task.notes[:2] == (
        f"1 row has the id 'null' or the like: they count as having none, first is {tmp_path}/rows.jsonl, line 4",
        f"2 rows have the consistency_id 'NA' or the like: they count as having none, first is {tmp_path}/rows.jsonl, line 1",
    )


def test_made_up_ids_and_groups_never_collide_with_those_of_the_data(tmp_path: Path) -> None:
    task = loaded(tmp_path, claims(id=[None, "row-0", "row-0-2", None], consistency_id=["alone-3", None, "x", None]))
    ids = {e.text.split("\n")[0]: e.id for e in task.examples}
    assert ids == {f"Question: Q{i}?": id_ for i, id_ in enumerate(["row-0-3", "row-0", "row-0-2", "row-3"])}
    assert len({e.group for e in task.examples}) == 4


def test_an_id_keeps_its_type(tmp_path: Path) -> None:
    task = loaded(tmp_path, claims(id=[7, "8", 9.5, "é ✓"]))
    assert {repr(e.id) for e in task.examples} == {"7", "'8'", "9.5", "'é ✓'"}


def test_a_number_and_a_text_that_look_alike_are_one_id(tmp_path: Path) -> None:
    for one, other in ((1, "1"), (1, 1.0), (2.0, "2")):
        with pytest.raises(TaskError, match=f"the id {other!r} occurs twice; name a column of different ids"):
            loaded(tmp_path, claims(id=[one, other]))


def test_an_id_that_is_no_text_and_no_number_is_refused_by_its_line(tmp_path: Path) -> None:
    for value, shown in (([1], "a list of 1"), (True, "a boolean"), ({"a": 1}, "an object with 1 keys")):
        with pytest.raises(TaskError, match=rf"rows\.jsonl, line 2: id is {shown}; expected: a text or a number"):
            loaded(tmp_path, claims(id=[1, value]))


def test_half_of_a_surrogate_pair_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "Q", "choice": "a"}\n{"question": "Q", "choice": "half \\ud83d"}\n'
    )
    with pytest.raises(TaskError, match=r"line 2: choice holds \\ud83d, half of a surrogate pair, at character 6"):
        tasks.load(TaskConfig(name="claims", data=str(tmp_path / "rows.jsonl")), seed=0)


def test_a_row_without_a_column_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(
        TaskError, match="line 1: has no choice, only 'question', 'answer'; expected: a text under 'choice'"
    ):
        loaded(tmp_path, [{"question": "1+1?", "answer": "#### 2"}] * 2, name="gsm8k")


@pytest.mark.parametrize("name", ["reviews", "topics"])
def test_reviews_and_topics_of_ones_own_need_no_id_and_no_pair(tmp_path: Path, name: str) -> None:
    assert len(loaded(tmp_path, [{"text": f"t{i}"} for i in range(4)], name).examples) == 4
    task = loaded(tmp_path, [{"text": f"t{i}", "id": i, "pair": i // 2} for i in range(4)], name)
    assert {e.id for e in task.examples} == {0, 1, 2, 3}
    assert len(task.problem().conflicts) == 2


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("claims", claims(consistency_id=[1, 1]), "no two rows share an exclusion_group, as task=claims expects"),
        ("reviews", [{"text": "a"}, {"text": "b"}], "no two rows share a pair"),
        ("gsm8k", claims(answer=[1, 2]), "no two rows share a question"),
        (
            "comparison",
            [{**row, "choice_2": "d"} for row in claims(id=[1, 2])],
            "no two rows hold the same two answers",
        ),
    ],
)
def test_a_conflict_rule_without_a_pair_of_rows_is_a_note(tmp_path: Path, name: str, rows: Rows, words: str) -> None:
    (note,) = loaded(tmp_path, rows, name).notes
    assert note.startswith(words)
    assert note.endswith("the search may collapse to one label")


def test_a_conflict_rule_that_applies_is_no_note(tmp_path: Path) -> None:
    assert loaded(tmp_path, claims(exclusion_group=["a", "a"])).notes == ()
    assert loaded(tmp_path, claims(id=[1, 2]), "truthfulqa").notes == ()


def test_rows_of_one_question_are_one_group_where_none_is_given(tmp_path: Path) -> None:
    rows: Rows = [{"question": q, "choice": f"It is {i}."} for i, q in enumerate(["A?", "A? ", "B?", "B?"])]
    for name in ("gsm8k", "truthfulqa"):
        task = loaded(tmp_path, rows, name)
        groups = {e.text.split("\n")[1]: e.group for e in task.examples}
        assert [groups[f"Claim: It is {i}."] for i in range(4)] == ["question-0"] * 2 + ["question-2"] * 2
    assert len({e.group for e in loaded(tmp_path, rows, "claims").examples}) == 4


def test_comparisons_of_the_same_two_answers_are_one_group_where_none_is_given(tmp_path: Path) -> None:
    pairs = [("a", "b"), ("b", "a"), ("a", "c")]
    rows: Rows = [{"question": "Q", "choice": one, "choice_2": other} for one, other in pairs]
    task = loaded(tmp_path, rows, "comparison")
    assert [c.rule.name for c in task.problem().conflicts] == ["exactly one"]
    assert sorted(e.group for e in task.examples) == ["pair-0", "pair-0", "pair-2"]
