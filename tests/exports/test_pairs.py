"""Pairs for preference training: which texts are better, and which tasks have any."""

import json
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import export
from icm_hpc.errors import ConfigError
from icm_hpc.exports.pairs import parted
from icm_hpc.rundir.folder import RunDir
from icm_hpc.tasks import TASKS
from icm_hpc.tasks.preferences import dialogue_prompt, turns
from icm_hpc.tasks.rows import Row
from tests.exports.runs import exported, finished, labels, lines, own_task

QUESTION = "Hello?\n\nAssistant: Hi!\n\nHuman: How do I boil an egg?"


def relabel(run_dir: RunDir, labels_by_id: dict[str, int], margin: float = 1.0) -> None:
    """Give rows of a run other labels."""
    rows = [{**row, "label": labels_by_id[str(row["id"])], "margin": margin} for row in labels(run_dir)]
    run_dir.labels.write_text("".join(json.dumps(row) + "\n" for row in rows))


def comparisons(folder: Path) -> RunDir:
    """Return a run of three pairs of answers, each in both orders; their numbers are their ids."""
    rows = [
        {"id": n, "prompt": QUESTION, "response_a": f"Boil it.\nFor {n} minutes.", "response_b": f"No idea {n}."}
        for n in range(3)
    ]
    folder.mkdir(exist_ok=True)
    data = folder / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    return finished(folder, "task=comparison", f"task.data={data}")


def test_a_comparison_in_both_orders_is_one_pair(tmp_path: Path) -> None:
    run_dir = comparisons(tmp_path)
    relabel(run_dir, {"0-ab": 1, "0-ba": 0, "1-ab": 0, "1-ba": 1, "2-ab": 1, "2-ba": 1})
    options, _ = export.parsed(["to=dpo", f"out={tmp_path / 'x'}"])
    found = export.export(run_dir, options)
    assert (found["records"], found["left_out"]) == (2, {"conflict": 1}), "both orders of pair 2 are called better"
    by_chosen = {one["chosen"]: one for one in lines(tmp_path / "x")}
    prompt = f"Human: {QUESTION}\n\nAssistant:"
    assert by_chosen == {
        " Boil it.\nFor 0 minutes.": {
            "prompt": prompt,
            "chosen": " Boil it.\nFor 0 minutes.",
            "rejected": " No idea 0.",
        },
        " No idea 1.": {"prompt": prompt, "chosen": " No idea 1.", "rejected": " Boil it.\nFor 1 minutes."},
    }


def test_a_pair_passes_a_filter_if_all_its_rows_do(tmp_path: Path) -> None:
    run_dir = comparisons(tmp_path)
    rows = [{**row, "margin": 5.0 if row["id"] != "1-ba" else 0.1} for row in labels(run_dir)]
    run_dir.labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options, _ = export.parsed(["to=reward", f"out={tmp_path / 'x'}", "min_margin=1"])
    assert export.export(run_dir, options)["left_out"] == {"min_margin": 1}


def test_messages_have_the_turns_of_a_dialogue(tmp_path: Path) -> None:
    run_dir = comparisons(tmp_path)
    first = lines(exported(run_dir, "dpo", "chat=true"))[0]
    said = [("user", "Hello?"), ("assistant", "Hi!"), ("user", "How do I boil an egg?")]
    assert first["prompt"] == [{"role": role, "content": content} for role, content in said]
    assert [message["role"] for message in first["chosen"] + first["rejected"]] == ["assistant", "assistant"]


def test_kto_has_both_answers_of_a_comparison(tmp_path: Path) -> None:
    run_dir = comparisons(tmp_path)
    pairs, single = lines(exported(run_dir, "dpo")), lines(exported(run_dir, "kto"))
    flat = [(pair["prompt"], pair[name], name == "chosen") for pair in pairs for name in ("chosen", "rejected")]
    assert [(one["prompt"], one["completion"], one["label"]) for one in single] == flat


def test_of_two_rows_of_which_exactly_one_holds_that_one_is_chosen(tmp_path: Path) -> None:
    rows = [{"id": n, "consistency_id": n // 2, "a": f"Answer {n}", "q": f"Is {n // 2} odd?"} for n in range(6)]
    words = own_task(tmp_path, rows, "exactly_one", "Question: {q}\nAnswer: {a}\nRight?")
    run_dir = finished(tmp_path, *words)
    relabel(run_dir, {"0": 1, "1": 0, "2": 0, "3": 1, "4": 0, "5": 0})
    options, _ = export.parsed(["to=dpo", f"out={tmp_path / 'x'}"])
    assert export.export(run_dir, options)["left_out"] == {"conflict": 1}
    written = {one["prompt"]: (one["chosen"], one["rejected"]) for one in lines(tmp_path / "x")}
    assert written == {
        "Question: Is 0 odd?\nAnswer:": (" Answer 0", " Answer 1"),
        "Question: Is 1 odd?\nAnswer:": (" Answer 3", " Answer 2"),
    }


def test_two_rows_of_one_text_are_no_pair(tmp_path: Path) -> None:
    rows = [{"id": n, "consistency_id": n // 2, "text": f"text {max(n, 1)}"} for n in range(4)]
    run_dir = finished(tmp_path, *own_task(tmp_path, rows, "exactly_one"))
    options, _ = export.parsed(["to=dpo", f"out={tmp_path / 'x'}"])
    assert export.export(run_dir, options)["left_out"] == {"conflict": 1}


def test_data_that_have_changed_are_noticed(tmp_path: Path) -> None:
    rows = [{"id": n, "consistency_id": n // 2, "text": f"text {n}"} for n in range(4)]
    run_dir = finished(tmp_path, *own_task(tmp_path, rows, "exactly_one"))
    run_dir.data.unlink()
    own_task(tmp_path, [{**row, "id": f"new{row['id']}"} for row in rows])
    with pytest.raises(ConfigError, match="has no copy of its data, and these have changed: 'new"):
        exported(run_dir, "dpo")


def test_messages_need_a_common_beginning(tmp_path: Path) -> None:
    rows = [{"id": n, "consistency_id": n // 2, "text": f"{n} is odd"} for n in range(4)]
    run_dir = finished(tmp_path, *own_task(tmp_path, rows, "exactly_one"))
    assert {one["prompt"] for one in lines(exported(run_dir, "dpo"))} == {""}
    with pytest.raises(ConfigError, match="leaves no prompt"):
        exported(run_dir, "dpo", "chat=true", "overwrite=true")


@pytest.mark.parametrize(("task", "rule"), [("topics", "the rule is different"), ("mine", "mine has no rule")])
def test_a_task_that_compares_nothing_is_refused(tmp_path: Path, task: str, rule: str) -> None:
    rows = [{"id": n, "text": f"text {n}"} for n in range(4)]
    words = own_task(tmp_path, rows) if task == "mine" else [f"task={task}", "task.limit=8"]
    run_dir = finished(tmp_path, *words)
    with pytest.raises(ConfigError, match=f"{rule}: no row is better than another; use to=sft"):
        exported(run_dir, "dpo")


@pytest.mark.parametrize("name", ["comparison", "truthfulqa-preference"])
def test_a_question_is_read_back_from_a_comparison(name: str) -> None:
    question, answers = "Human: x\nAnswer 1: y: z", ("Answer 2: \nResponse 1: b", " Response 2: a ")
    values: dict[str, Any] = {"question": question, "choice": answers[0], "choice_2": answers[1]}
    family = TASKS[name]
    assert family.compared is not None
    assert family.compared(family.example(Row("here", values), 0)) == (question, *answers)


def test_a_dialogue_is_read_back_from_its_prompt() -> None:
    assert [one["content"] for one in turns(dialogue_prompt(QUESTION))] == ["Hello?", "Hi!", "How do I boil an egg?"]
    assert turns("no speaker") == [{"role": "user", "content": "no speaker"}]
    assert turns("") == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Review: The a\nGood:", "Review: The b\nGood:", ("Review:", " The a", " The b")),
        ("a\nGood:", "b\nGood:", ("", "a", "b")),
        ("same start, other end", "same start, no end", ("same start,", " other end", " no end")),
        ("x\ny", "y", ("", "x\ny", "y")),
    ],
)
def test_two_texts_part_behind_their_common_beginning(one: str, other: str, expected: tuple[str, str, str]) -> None:
    assert parted(one, other) == expected
