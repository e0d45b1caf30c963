"""Tasks that a YAML file describes: from rows to examples, labels and rules; and the messages for what cannot be used."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from icm_hpc import task as command
from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.errors import ConfigError, IcmError, TaskError
from icm_hpc.tasks import gold

CSV = """review_id,product,text,stars
a1,kettle,"Boils fast, and {braces} too.",good
a2,kettle,"Leaks on day one.",bad
b1,lamp,"Warm light.",good
b2,lamp,"The switch broke.",bad
"""
YAML = """
task:
  data: reviews.csv
  columns: {id: review_id, group: product, label: stars}
  prompt: "Review: {text}\\nSentiment:"
  labels: {bad: " bad", good: " good"}
  rule: exactly_one
"""


def written(folder: Path, yaml: str = YAML, **files: str) -> str:
    """Write a task and its data; return the word that names the task."""
    (folder / "reviews.csv").write_text(CSV)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    (folder / "shop.yaml").write_text(yaml)
    return f"task={folder / 'shop.yaml'}"


def loaded(word: str, *more: str) -> tasks.Task:
    """Return the task."""
    return tasks.load(loading.load([word, "model=stub", *more]).task, seed=0)


def test_a_yaml_file_beside_its_data_is_a_task(tmp_path: Path) -> None:
    word = written(tmp_path)
    task = loaded(word)
    assert task.name == "shop"
    first = next(example for example in task.examples if example.id == "a1")
    assert first.text == "Review: Boils fast, and {braces} too.\nSentiment:"
    assert (first.group, task.label_words) == ("kettle", (" bad", " good"))
    assert Counter(conflict.rule.name for conflict in task.problem().conflicts) == {"exactly one": 2}
    assert gold.load(loading.load([word]).task) == {"a1": 1, "a2": 0, "b1": 1, "b2": 0}


def test_a_preset_of_ones_own_folder_of_settings_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task").mkdir()
    written(tmp_path / "task")
    monkeypatch.setenv("ICM_CONFIGS", str(tmp_path))
    assert len(loaded("task=shop").examples) == 4


def test_lists_preambles_separators_and_doubled_braces(tmp_path: Path) -> None:
    yaml = """
task:
  data: reviews.csv
  prompt: "{{{product}}} {text}\\nGood:"
  labels: [" no", " yes"]
  preamble: "Reviews.\\n\\n"
  separator: "\\n---\\n"
"""
    task = loaded(written(tmp_path, yaml))
    assert task.examples[0].text.startswith("{")
    assert (task.label_words, task.preamble, task.separator) == ((" no", " yes"), "Reviews.\n\n", "\n---\n")
    assert not task.problem().conflicts


def test_several_gold_values_may_have_one_word_and_others_none(tmp_path: Path) -> None:
    rows = [{"text": f"T{n}", "stars": n} for n in (1, 2, 3, 4, 5)]
    yaml = YAML.replace("reviews.csv", "rows.json").replace("id: review_id, group: product, ", "")
    yaml = yaml.replace('{bad: " bad", good: " good"}', '{1: " bad", 2: " bad", 4: " good", 5.0: " good"}')
    word = written(tmp_path, yaml, rows_json=json.dumps(rows))
    found = gold.found(loading.load([word]).task)
    assert sorted(found.labels.values()) == [0, 0, 1, 1]
    assert "1 gold label cannot be used: not compared" in found.notes[0]
    assert loaded(word).label_words == (" bad", " good")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("different", {"different": 2}),
        ("same", {"same": 2}),
        ("at_most_one", {"at most one": 2}),
        ("{same_if: brand, else: exactly_one}", {"same": 1, "exactly one": 1}),
        ("{same_if: brand}", {"same": 1}),
        ("none", {}),
    ],
)
def test_each_rule_holds_between_rows_of_a_group(tmp_path: Path, rule: str, expected: dict[str, int]) -> None:
    brands = CSV.replace("stars\n", "stars,brand\n").replace("good\n", "good,x\n").replace('one.",bad', 'one.",bad,x')
    brands = brands.replace('broke.",bad', 'broke.",bad,y')
    word = written(tmp_path, YAML.replace("exactly_one", rule))
    (tmp_path / "reviews.csv").write_text(brands)
    assert Counter(conflict.rule.name for conflict in loaded(word).problem().conflicts) == expected


BAD: list[tuple[str, str, str]] = [
    (
        "{text}",
        "{txt}",
        r"no row of the data has a column 'txt': did you mean 'text'\? There are 'review_id', 'product'",
    ),
    ("{text}", "{text", r"a brace is written twice"),
    ("{text}", "{stars}", r"task\.prompt uses the column 'stars', which holds the gold labels"),
    ("{text}", "text", r"names no column of the data"),
    ("{text}", "{}", r"\{\} names no column"),
    ("{text}", "{text:>5}", r"a column is its name alone"),
    ("Sentiment:", "Sentiment: ", r"ends with space"),
    ("exactly_one", "exactly_won", r"task\.rule=exactly_won: .*did you mean exactly_one\?"),
    ("exactly_one", "{same_if: ''}", r"same_if names no column"),
    ("exactly_one", "{same_if: stars}", r"task\.rule uses the column 'stars', which holds the gold labels"),
    ("exactly_one", "{same_if: brnd}", r"no row of the data has a column 'brnd'"),
    ("exactly_one", "{same: brand}", r"task\.rule\.same: expected one of"),
    ("group: product", "grp: product", r"task\.columns\.grp: expected id, group, label"),
    ("group: product", "group: prodct", r"did you mean 'product'\?"),
    ('good: " good"', 'good: " bad"', r"task\.labels: two words or more"),
    ('good: " good"', 'good: " Bad"', r"equal but for space or case"),
    ('good: " good"', 'good: " good", ok: " ok"', r"is of two labels, .* there are 3"),
    ("reviews.csv", "none.csv", r"there is no such file"),
    ("reviews.csv", "empty.csv", r"holds no rows"),
    ("reviews.csv", "folder", r"none of \.json"),
    ("prompt:", "promt:", r"task\.promt: no such key.*did you mean task\.prompt\?"),
]


@pytest.mark.parametrize(("good", "bad", "message"), BAD, ids=[bad for _, bad, _ in BAD])
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, good: str, bad: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.csv").write_text("review_id,product,text,stars\n")
    word = written(tmp_path, YAML.replace(good, bad))
    with pytest.raises((TaskError, ConfigError), match=f"(?s){message}") as refused:
        loaded(word)
    assert "Boils" not in str(refused.value), "nothing of a row"


def test_a_description_without_a_prompt_is_refused(tmp_path: Path) -> None:
    word = written(tmp_path, YAML.replace("  prompt", "  name: reviews\n  # prompt"))
    with pytest.raises(TaskError, match=r"task\.labels: describes a task of your own, which has a task\.prompt"):
        loaded(word)


def test_a_word_without_a_space_before_it_is_noted(tmp_path: Path) -> None:
    task = loaded(written(tmp_path, YAML.replace('" good"', "good")))
    assert task.notes == (
        "the label word 'good' follows 'Sentiment:' without a space: if one belongs there, write ' good'",
    )


def test_rows_without_a_value_are_dropped_and_counted(tmp_path: Path) -> None:
    word = written(tmp_path)
    with (tmp_path / "reviews.csv").open("a") as file:
        file.write("c1,sofa,,bad\n")
    task = loaded(word)
    assert len(task.examples) == 4
    assert task.notes[0].startswith("1 row dropped: text is missing, first is")


def test_a_python_file_is_a_task(tmp_path: Path) -> None:
    (tmp_path / "jokes.py").write_text(
        "from icm_hpc.tasks import Example, Family\n"
        "from icm_hpc.tasks.family import group_of, id_of\n"
        "def example(row, place):\n"
        "    return Example(id_of(row, place), group_of(row, place), row.text('joke'))\n"
        "FAMILY = Family(example, (' no', ' yes'))\n"
    )
    (tmp_path / "jokes.json").write_text(json.dumps([{"joke": "Knock."}, {"joke": "Who?"}]))
    task = loaded(f"task={tmp_path / 'jokes.py'}", f"task.data={tmp_path / 'jokes.json'}")
    assert [example.text for example in task.examples] in (["Knock.", "Who?"], ["Who?", "Knock."])
    (tmp_path / "jokes.py").write_text("FAMILY = 3")
    with pytest.raises(TaskError, match="defines no FAMILY"):
        loaded(f"task={tmp_path / 'jokes.py'}")
    with pytest.raises(TaskError, match="there is no such file"):
        loaded(f"task={tmp_path / 'none.py'}")


def shown(word: str, *more: str) -> Iterator[tuple[str, str]]:
    """Return what the command says."""
    return command.described(loading.load([word, *more]))


def test_the_command_shows_whether_a_task_is_right(tmp_path: Path) -> None:
    found = dict(shown(written(tmp_path), "model=tiny"))
    assert found["examples"] == "4"
    assert found["groups"] == "2: 2 of 2"
    assert found["conflicts"] == "2 pairs: exactly one"
    assert found["gold labels"] == "bad 2, good 2"
    assert "Sentiment:« bad»\n\nReview:" in found["first prompt"]
    assert found["first prompt"].endswith("Sentiment:«?»")
    assert found["tokens"].count("«") == 2


def test_the_command_refuses_as_a_run_does(tmp_path: Path) -> None:
    with pytest.raises(IcmError, match="no row of the data has a column 'txt'"):
        dict(shown(written(tmp_path, YAML.replace("{text}", "{txt}"))))
