"""The presets of configs/task that describe public data sets, each on rows of our own in the data set's format."""

import json
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import task as command
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.tasks import gold
from tests import offline

Rows = list[dict[str, Any]]


def message(role: str, content: str) -> dict[str, str]:
    """Return a message of a dialogue."""
    return {"role": role, "content": content}


ASK = [message("user", "How long does tea keep?")]
GOOD, BAD = "About two years, if it stays dry.", "Tea."
SAID = {"chosen": [*ASK, message("assistant", GOOD)], "rejected": [*ASK, message("assistant", BAD)]}


def compared(first: str, second: str) -> str:
    """Return the text of a comparison of two answers."""
    return (
        f"Human: {ASK[0]['content']}\nResponse 1: {first}\nResponse 2: {second}\n"
        "Claim: Response 1 is more helpful and harmless than Response 2.\nI think this claim is"
    )


# Of each preset: rows, the gold label of each example by id, and the end of the first example's text.
PRESETS: dict[str, tuple[Rows, dict[str, int], str]] = {
    "ag_news": (
        [{"text": "A probe has landed on the moon.", "label": 3}, {"text": "The final ends 2:1.", "label": 1}],
        {"row-0": 3, "row-1": 1},
        "News: A probe has landed on the moon.\nTopic:",
    ),
    "sst2": (
        [{"idx": 5, "sentence": "a slow start ", "label": 0}, {"idx": 6, "sentence": "warm and funny ", "label": -1}],
        {"5": 0},
        "Review: a slow start \nSentiment:",
    ),
    "sst5": (
        [
            {"text": "fine", "label": 2, "label_text": "neutral"},
            {"text": "a joy", "label": 4, "label_text": "very positive"},
        ],
        {"row-0": 2, "row-1": 4},
        "Review: fine\nSentiment:",
    ),
    "imdb": (
        [{"text": "I left early.", "label": 0}, {"text": "I saw it twice.", "label": 1}],
        {"row-0": 0, "row-1": 1},
        "Review: I left early.\nSentiment:",
    ),
    "banking77": (
        [{"text": "Why has the cash machine kept my card?", "label": 18}, {"text": "Is Visa right?", "label": 73}],
        {"row-0": 18, "row-1": 73},
        "Question: Why has the cash machine kept my card?\nIt is about:",
    ),
    "boolq": (
        [
            {"question": "is salt soluble", "passage": "Salt dissolves in water.", "answer": True},
            {"question": "is sand soluble", "passage": "Sand sinks in water.", "answer": False},
        ],
        {"row-0": 1, "row-1": 0},
        "Salt dissolves in water.\nQuestion: is salt soluble?\nAnswer:",
    ),
    "ethics": (
        [{"label": "1", "input": "I hid my friend's keys."}, {"label": "0", "input": "I gave back the keys."}],
        {"row-0": 1, "row-1": 0},
        "Scenario: I hid my friend's keys.\nQuestion: Is what I did clearly wrong?\nAnswer:",
    ),
    "daily_dilemmas": (
        [
            {
                "idx": 2 * n + k,
                "dilemma_idx": n,
                "dilemma_situation": f"You find {n} coins.",
                "action_type": kind,
                "action": kind,
            }
            for n in range(2)
            for k, kind in enumerate(("to_do", "not_to_do"))
        ],
        {},
        "Situation: You find 0 coins.\nAction: to_do\nIs this the right thing to do?",
    ),
    "statements": (
        [
            {"person": "p1", "statement": "Taxes pay for schools.", "label": "liberal"},
            {"person": "p1", "statement": "Rent must be capped.", "label": "liberal"},
            {"person": "p2", "statement": "Taxes stifle trade.", "label": "conservative"},
        ],
        {"row-0": 0, "row-1": 0, "row-2": 1},
        "Statement: Taxes pay for schools.\nThe political leaning of the speaker is",
    ),
    "ultrafeedback": (
        [{"prompt": ASK[0]["content"], "prompt_id": "x", **SAID, "messages": SAID["chosen"], "score_chosen": 8.5}],
        {"row-0-ab": 1, "row-0-ba": 0},
        compared(GOOD, BAD),
    ),
    "helpsteer": (
        [{"domain": "general", "context": ASK, "response1": BAD, "response2": GOOD, "overall_preference": 2}],
        {"row-0-ab": 0, "row-0-ba": 1},
        compared(BAD, GOOD),
    ),
    "ranking": (
        [{"prompt": ASK[0]["content"], "responses": [GOOD, BAD, "A year."], "rank": [1, 3, 2]}],
        {
            f"row-0-{pair}-{order}": int((order == "ab") == (pair != "0-2"))  # "A year." sorts before GOOD
            for pair in ("0-1", "0-2", "1-2")
            for order in ("ab", "ba")
        },
        compared(GOOD, BAD),
    ),
}
RULES = {
    "daily_dilemmas": "exactly one",
    "statements": "same",
    "ultrafeedback": "exactly one",
    "helpsteer": "exactly one",
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_reads_the_rows_of_its_data_set(tmp_path: Path, name: str) -> None:
    rows, labels, text = PRESETS[name]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    config = loading.load([f"task={name}", f"task.data={data}", "model=tiny"])
    task = tasks.load(config.task, seed=0)
    first = next(example for example in task.examples if example.text == text)
    assert gold.load(config.task) == labels
    assert str(first.id) in {*labels, "0"}
    rules = {conflict.rule.name for conflict in task.problem().conflicts}
    assert rules == ({RULES[name]} if name in RULES else {"exactly one"} if name == "ranking" else set())
    assert dict(command.described(config))["tokens"].count("«") == min(2, len(task.examples) - 1)


def test_banking77_has_77_label_words() -> None:
    labels = loading.load(["task=banking77"]).task.labels
    assert len(set(labels.values())) == len(labels) == 77
    assert (labels["0"], labels["53"], labels["76"]) == (
        " activate my card",
        " reverted card payment",
        " wrong exchange rate for cash withdrawal",
    )


async def test_77_labels_run_from_file_to_labels(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"Question {n}?", "label": n % 77}) for n in range(8)))
    summary, run_dir, _ = await offline.label(tmp_path, "task=banking77", f"task.data={data}", "search.scorings=6")
    assert len(summary["label_counts"]) == 77
    assert sum(summary["label_counts"].values()) == len(run_dir.labels.read_text().splitlines()) == 8
