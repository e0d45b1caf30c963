"""Each format has exactly the columns that its consumer reads."""

import json
import math
from pathlib import Path

import pytest

from icm_hpc.errors import ConfigError
from tests.exports.runs import exported, finished, hostile, labels, lines

CLAIMS = [{"id": n, "question": f"Is {n} odd?", "choice": f"Yes, {n}.\nIt is."} for n in range(8)]


def test_sft_has_the_text_and_the_word_as_it_stands_behind_it(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task=topics", "task.limit=8")
    rows = labels(run_dir)
    expected = [{"prompt": row["text"], "completion": f" {row['word']}"} for row in rows]
    assert lines(exported(run_dir, "sft")) == expected
    user, assistant = (
        {"role": role, "content": rows[0][key]} for role, key in (("user", "text"), ("assistant", "word"))
    )
    chat = lines(exported(run_dir, "sft", "chat=true", "overwrite=true"))[0]
    assert chat == {"prompt": [user], "completion": [assistant]}
    assert lines(exported(run_dir, "openai"))[0] == {"messages": [user, assistant]}
    assert lines(exported(run_dir, "axolotl", "chat=true"))[0] == {"messages": [user, assistant]}


def test_openai_follows_the_rules_of_its_fine_tuning_files(tmp_path: Path) -> None:
    for one in lines(exported(hostile(tmp_path), "openai")):
        assert set(one) == {"messages"}
        assert [set(message) for message in one["messages"]] == [{"role", "content"}] * 2
        assert [message["role"] for message in one["messages"]] == ["user", "assistant"]
        assert all(isinstance(message["content"], str) and message["content"] for message in one["messages"])


def test_axolotl_trains_the_word_only(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    for one, row in zip(lines(exported(run_dir, "axolotl")), labels(run_dir), strict=True):
        shown, trained = {"label": False, "text": row["text"]}, {"label": True, "text": f" {row['word']}"}
        assert one == {"segments": [shown, trained]}


def test_kto_says_of_a_claim_whether_it_is_true(tmp_path: Path) -> None:
    data = tmp_path / "claims.jsonl"
    data.write_text("\n".join(map(json.dumps, CLAIMS)))
    run_dir = finished(tmp_path, "task=claims", f"task.data={data}")
    row, one = labels(run_dir)[0], lines(exported(run_dir, "kto"))[0]
    prompt, completion = f"Human: Is {row['id']} odd?\n\nAssistant:", f" Yes, {row['id']}.\nIt is."
    assert one == {"prompt": prompt, "completion": completion, "label": row["label"] == 1}
    chat = lines(exported(run_dir, "kto", "chat=true", "overwrite=true"))[0]
    assert chat["prompt"] == [{"role": "user", "content": f"Is {row['id']} odd?"}]


def test_kto_of_another_task_asks_for_the_second_word(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    expected = [
        {"prompt": row["text"], "completion": " positive", "label": row["label"] == 1} for row in labels(run_dir)
    ]
    assert lines(exported(run_dir, "kto")) == expected
    topics = finished(tmp_path / "topics", "task=topics", "task.limit=8")
    with pytest.raises(ConfigError, match="requires a task of two labels, and this one has 4"):
        exported(topics, "kto")


def test_annotation_tools_get_the_label_as_a_suggestion(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task=topics", "task.limit=8")
    row = labels(run_dir)[0]
    likelihoods = {word: math.exp(log) for word, log in row["logprobs"].items()}
    score = likelihoods[row["word"]] / sum(likelihoods.values())
    record = json.loads(exported(run_dir, "argilla").read_text())[0]
    suggested = {"value": row["word"], "score": pytest.approx(score), "agent": "stub", "type": "model"}
    assert record == {"id": row["id"], "fields": {"text": row["text"]}, "suggestions": {"label": suggested}}
    task = json.loads(exported(run_dir, "labelstudio").read_text())[0]
    choice = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [row["word"]]}}
    prediction = {"model_version": "stub", "score": pytest.approx(score), "result": [choice]}
    assert task == {"data": {"id": row["id"], "text": row["text"]}, "predictions": [prediction]}
