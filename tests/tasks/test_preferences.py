"""Preference data in the formats that people have them in: question, both answers, ids, gold; and what is dropped."""

import json
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import TaskError
from icm_hpc.tasks import Task, gold

Rows = list[dict[str, Any]]
ASK = "How do I boil an egg?"
GOOD, BAD = "Put it in boiling water.", "Throw it."
FIRST = {"id": "first", "prompt": "Who?", "chosen": "I.", "rejected": "You."}


def loaded(folder: Path, rows: Rows, name: str = "comparison") -> tuple[Task, dict[str, int]]:
    """Return the task of these rows, in the order of the file, and its gold labels."""
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = TaskConfig(name=name, data=str(folder / "rows.jsonl"))
    return tasks.load(config, seed=0), gold.load(config)


def said(role: str, content: Any) -> dict[str, Any]:
    """Return a message."""
    return {"role": role, "content": content}


USER, YES, NO = said("user", ASK), said("assistant", GOOD), said("assistant", BAD)
FORMATS: dict[str, dict[str, Any]] = {
    "hh": {"chosen": f"\n\nHuman: {ASK}\n\nAssistant: {GOOD}", "rejected": f"\n\nHuman: {ASK}\n\nAssistant: {BAD}"},
    "hh with \\r\\n": {
        "chosen": f"\r\n\r\nHuman: {ASK}\r\n\r\nAssistant: {GOOD}",
        "rejected": f"\r\n\r\nHuman: {ASK}\r\n\r\nAssistant: {BAD}",
    },
    "hh with a prompt": {"prompt": f"\n\nHuman: {ASK}\n\nAssistant:", "chosen": f" {GOOD}", "rejected": f" {BAD}"},
    "TRL explicit": {"prompt": ASK, "chosen": GOOD, "rejected": BAD},
    "TRL implicit": {"chosen": f"{ASK} {GOOD}", "rejected": f"{ASK} {BAD}"},
    "TRL messages": {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
    "TRL implicit messages": {"chosen": [USER, YES], "rejected": [USER, NO]},
    "a prompt beside the whole dialogue": {"prompt": ASK, "chosen": [USER, YES], "rejected": [USER, NO]},
    "messages with a text prompt": {"prompt": ASK, "chosen": [YES], "rejected": [NO]},
    "one message": {"question": ASK, "chosen": YES, "rejected": NO},
    "parts": {"prompt": ASK, "chosen": [said("assistant", [{"type": "text", "text": GOOD}])], "rejected": [NO]},
    "ShareGPT": {
        "chosen": [{"from": "human", "value": ASK}, {"from": "gpt", "value": GOOD}],
        "rejected": [{"from": "human", "value": ASK}, {"from": "gpt", "value": BAD}],
    },
    "messages written as JSON, as in CSV": {"prompt": ASK, "chosen": json.dumps([YES]), "rejected": json.dumps([NO])},
    "messages as pandas writes them to CSV": {"prompt": ASK, "chosen": str([YES]), "rejected": str([NO])},
    "question": {"question": ASK, "chosen": GOOD, "rejected": BAD},
    "instruction": {"instruction": ASK, "input": "", "chosen": GOOD, "rejected": BAD},
    "arena": {"question": ASK, "response_a": GOOD, "response_b": BAD, "winner": "model_a"},
    "arena conversations": {"conversation_a": [USER, NO], "conversation_b": [USER, YES], "winner": "model_b"},
    "arena columns": {"prompt": ASK, "response_a": BAD, "response_b": GOOD, "winner_model_a": 0, "winner_model_b": 1},
    "AlpacaEval": {"instruction": ASK, "output_1": GOOD, "output_2": BAD, "preference": 1},
    "AlpacaEval, as a float": {"instruction": ASK, "output_1": BAD, "output_2": GOOD, "preference": 2.0},
    "SafeRLHF": {"prompt": ASK, "response_0": BAD, "response_1": GOOD, "better_response_id": 1},
    "HelpSteer3": {"context": [USER], "response1": GOOD, "response2": BAD, "overall_preference": -2},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["comparison", "truthfulqa-preference"])
def test_a_pair_in_a_usual_format_becomes_both_orders(tmp_path: Path, form: str, name: str) -> None:
    task, labels = loaded(tmp_path, [{"id": 7, **FORMATS[form]}, FIRST], name)
    examples = {e.id: e for e in task.examples if str(e.id).startswith("7")}
    assert set(examples) == {"7-ab", "7-ba"}
    for id_, example in examples.items():
        first, second = (GOOD, BAD) if labels[str(id_)] else (BAD, GOOD)
        begin = (
            "Question: {}\nAnswer 1: {}\nAnswer 2: {}\n"
            if "truth" in name
            else "Human: {}\nResponse 1: {}\nResponse 2: {}\n"
        )
        assert example.text.startswith(begin.format(ASK, first, second))
    assert sorted(labels[id_] for id_ in ("7-ab", "7-ba")) == [0, 1]
    assert [c.rule.name for c in task.problem().conflicts] == ["exactly one"] * 2
    assert task.notes == ()


def test_a_dialogue_of_several_turns_is_the_question(tmp_path: Path) -> None:
    before = [said("system", "Be brief."), said("user", "Hi"), said("assistant", "Hello."), USER]
    task, _ = loaded(tmp_path, [{"chosen": [*before, YES], "rejected": [*before, NO]}])
    question = f"Human: Be brief.\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: {ASK}\nResponse 1: {GOOD}\n"
    assert task.examples[0].text.startswith(question)


def test_formats_may_be_mixed_and_ids_are_those_of_the_source_rows(tmp_path: Path) -> None:
    published = {"id": 3, "question": "Q", "choice": "a", "choice_2": "b", "label": 1}
    tie = {"prompt": ASK, "chosen": GOOD, "rejected": GOOD}
    rows = [FORMATS["hh"], tie, FORMATS["TRL messages"], {**FORMATS["arena"], "id": "x"}, published]
    task, labels = loaded(tmp_path, rows)
    ids = {"row-0-ab", "row-0-ba", "row-2-ab", "row-2-ba", "x-ab", "x-ba", 3}
    assert {e.id for e in task.examples} == ids
    assert set(labels) == set(map(str, ids))


def test_made_up_ids_of_pairs_do_not_collide_with_the_datas_own(tmp_path: Path) -> None:
    task, _ = loaded(tmp_path, [FORMATS["hh"], {**FORMATS["hh"], "id": "row-0"}])
    assert {e.id for e in task.examples} == {"row-0-ab", "row-0-ba", "row-0-ab-2", "row-0-ba-2"}


def test_rows_that_are_dropped_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    rows: Rows = [
        FIRST,
        {"prompt": ASK, "chosen": GOOD, "rejected": GOOD},
        {"prompt": ASK, "chosen": GOOD, "rejected": f" {GOOD}\n"},
        {"prompt": ASK, "chosen": GOOD, "rejected": None},
        {"chosen": "A", "rejected": "B"},
        {**FORMATS["arena"], "winner": "tie"},
        {"question": "Q", "choice": "a", "choice_2": "a"},
        {**FORMATS["AlpacaEval"], "preference": 0},
        {"prompt": ASK, "chosen": [{"role": "assistant", "content": None}], "rejected": [NO]},
    ]
    task, _ = loaded(tmp_path, rows)
    file = tmp_path / "rows.jsonl"
    assert task.notes == (
        f"3 rows dropped: both answers are the same, first is {file}, line 2",
        f"1 row dropped: rejected is missing, first is {file}, line 4",
        f"1 row dropped: there is no prompt, and the answers do not begin alike, first is {file}, line 5",
        f"2 rows dropped: it is a tie, first is {file}, line 6",
        f"1 row dropped: its messages are not texts with a role, first is {file}, line 9",
    )
    assert len(task.examples) == 2


def test_data_of_which_no_row_can_be_used_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        TaskError, match=r"rows\.jsonl: no row can be used: 2 rows dropped: both answers are the same, first"
    ):
        loaded(tmp_path, [{"prompt": ASK, "chosen": GOOD, "rejected": GOOD}] * 2)


@pytest.mark.parametrize("winner", ["gpt-4", True, {"model": "a"}, ["a"]])
def test_a_winner_that_cannot_be_read_is_a_note_and_no_gold_label(tmp_path: Path, winner: Any) -> None:
    loaded(tmp_path, [FIRST, {**FORMATS["arena"], "winner": winner}])
    found = gold.found(TaskConfig(name="comparison", data=str(tmp_path / "rows.jsonl")))
    assert set(found.labels) == {"first-ab", "first-ba"}
    assert "label is a text of" in found.notes[0]


@pytest.mark.parametrize("form", FORMATS)
def test_which_answer_won_changes_nothing_but_gold(tmp_path: Path, form: str) -> None:
    row = FORMATS[form]
    turned: dict[Any, Any] = {"model_a": "model_b", "model_b": "model_a", 1: 2, 2.0: 1, -2: 2}
    if "chosen" in row:
        other = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    elif "winner_model_a" in row:
        other = {**row, "winner_model_a": 1, "winner_model_b": 0}
    elif "better_response_id" in row:
        other = {**row, "better_response_id": 0}
    else:
        (column,) = {"winner", "preference", "overall_preference"} & set(row)
        other = {**row, column: turned[row[column]]}
    task, labels = loaded(tmp_path, [FIRST, row])
    same, others = loaded(tmp_path, [FIRST, other])
    assert same.examples == task.examples
    assert {id_: 1 - label for id_, label in labels.items() if id_.startswith("row")} == {
        id_: label for id_, label in others.items() if id_.startswith("row")
    }


ANSWERS = [GOOD, "Boil it.", BAD]
LISTS: dict[str, dict[str, Any]] = {
    "texts": {"responses": ANSWERS},
    "texts and scores": {"responses": ANSWERS, "score": [3, 2, 1]},
    "texts and ranks": {"answers": ANSWERS, "rank": [1, 2, 3]},
    "UltraFeedback": {"completions": [{"response": text, "overall_score": 9.5 - n} for n, text in enumerate(ANSWERS)]},
}


@pytest.mark.parametrize("form", LISTS)
def test_several_answers_are_each_two_of_them_in_both_orders(tmp_path: Path, form: str) -> None:
    task, labels = loaded(tmp_path, [{"id": 7, "prompt": ASK, **LISTS[form]}])
    assert sorted(str(e.id) for e in task.examples) == [
        f"7-{a}-{b}-{order}" for a, b in ((0, 1), (0, 2), (1, 2)) for order in ("ab", "ba")
    ]
    assert [c.rule.name for c in task.problem().conflicts] == ["exactly one"] * 3
    assert bool(labels) == (form != "texts")


@pytest.mark.parametrize("form", [form for form in LISTS if form != "texts"])
def test_a_list_in_the_order_of_ranks_does_not_tell_the_better_answer(tmp_path: Path, form: str) -> None:
    found = []
    for turned in (False, True):
        row = {key: value[::-1] if turned else value for key, value in LISTS[form].items()}
        task, labels = loaded(tmp_path, [{"id": 7, "prompt": ASK, **row}])
        found.append({(str(e.id)[-2:], e.text, labels[str(e.id)]) for e in task.examples})
    assert found[0] == found[1]
    assert {(order, label) for order, _, label in found[0]} == {("ab", 0), ("ab", 1), ("ba", 0), ("ba", 1)}


def test_answers_that_are_equal_or_tied_are_no_pair_and_a_row_without_pairs_is_dropped(tmp_path: Path) -> None:
    tied = {"id": 1, "prompt": ASK, "responses": [GOOD, BAD, "Boil it."], "score": [1, 1, 0]}
    rows: Rows = [tied, {"prompt": ASK, "responses": [GOOD]}, {"prompt": ASK, "responses": [GOOD, 3]}]
    task, _ = loaded(tmp_path, rows)
    assert {str(e.id)[:5] for e in task.examples} == {"1-0-2", "1-1-2"}
    assert [note.split(",")[0] for note in task.notes] == [
        "1 row dropped: there is one answer",
        "1 row dropped: an answer is no text",
    ]
