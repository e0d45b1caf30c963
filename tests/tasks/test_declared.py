"""Tasks that a YAML file describes: from rows to examples, labels and rules; and the messages for what cannot be used."""

import json
import os
import subprocess
import sys
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
    assert (
        "1 gold label cannot be used: not compared; expected: a gold value of task.labels (1, 2, 4, 5.0), bad or good"
        in found.notes[0]
    )
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
    ("group: product", "group: stars", r"task\.columns\.group uses the column 'stars', which holds the gold labels"),
    ("id: review_id", "id: stars", r"task\.columns\.id uses the column 'stars', which holds the gold labels"),
    ("group: product, label: stars", "label: consistency_id", r"task\.columns\.group uses the column 'consistency_id'"),
    ("group: product", "grp: product", r"task\.columns\.grp: expected id, group, label"),
    ("group: product", "group: prodct", r"did you mean 'product'\?"),
    (
        'good: " good"',
        'good: " good", Good: " better"',
        r"the gold value 'Good' has two words: 'A' and 'a' are one",
    ),
    ('"Review: {text}\\nSentiment:"', "|\n    {text}", r"ends with a line break, .* write \|- and not \|"),
    ('good: " good"', 'good: " bad"', r"task\.labels: two words or more"),
    ('good: " good"', 'good: " Bad"', r"equal but for space or case"),
    ('good: " good"', 'good: " good", ok: " ok"', r"is of two labels, .* there are 3"),
    ("reviews.csv", "none.csv", r"there is no such file"),
    ("reviews.csv", "empty.csv", r"holds no rows"),
    ("reviews.csv", "folder", r"none of \.json"),
    ('"Review', "Review", r"line 5: mapping values are not allowed here: a text with a colon stands in quotes"),
    ("  prompt", "\tprompt", r"line 5: .*: lines are indented by spaces"),
    ('Sentiment:"', "Sentiment:", r"is a quote missing here"),
    ("Review: {text}", r"Review\d: {text}", r"in double quotes a backslash is written twice"),
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
    with pytest.raises(TaskError, match=r"task\.labels: describes a task of your own, which also has a task\.prompt"):
        loaded(word)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "task:\n", "model: {dtype: float32}\n"])
def test_a_file_that_describes_no_task_is_not_taken_for_the_built_in_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"shop\.yaml: has no section task: write task\.prompt and task\.labels"):
        loaded(written(tmp_path, text))


def test_a_description_in_latin_1_is_refused_with_the_remedy(tmp_path: Path) -> None:
    word = written(tmp_path)
    (tmp_path / "shop.yaml").write_bytes(YAML.replace("Review", "\xdcber").encode("latin-1"))
    with pytest.raises(ConfigError, match=r"shop\.yaml: is not UTF-8; convert the file, as by iconv"):
        loaded(word)


def test_a_file_of_data_in_place_of_its_description_is_refused_with_what_to_write(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match=r"is no YAML file: describe it in one, by task\.data"):
        loaded(f"task={tmp_path / 'reviews.csv'}")
    with pytest.raises(ConfigError, match=r"'shop\.yaml' is not a setting: .*did you mean task=shop\.yaml\?"):
        loading.load(["shop.yaml"])


def test_a_word_without_a_space_before_it_is_noted(tmp_path: Path) -> None:
    task = loaded(written(tmp_path, YAML.replace('" good"', "good")))
    assert task.notes == (
        "the label word 'good' follows 'Sentiment:' without a space: if one belongs there, write ' good'",
    )


def test_numbers_as_label_words_in_a_list_are_noted_with_what_each_gold_value_means(tmp_path: Path) -> None:
    listed = YAML.replace('{bad: " bad", good: " good"}', '[" 1", " 2"]')
    assert loaded(written(tmp_path, listed)).notes == (
        "the gold value 0 is the label ' 1', as in a list; if the gold value 1 is, write {1: ' 1', ...}",
    )
    for unambiguous in ('{1: " 1", 2: " 2"}', '[" 0", " 1"]', '[" one", " two"]'):
        assert loaded(written(tmp_path, listed.replace('[" 1", " 2"]', unambiguous))).notes == ()


def test_a_backslash_and_an_n_in_place_of_a_new_line_is_noted(tmp_path: Path) -> None:
    (note,) = loaded(
        written(tmp_path, YAML.replace('"Review: {text}\\nSentiment:"', "'Review: {text}\\nSentiment:'"))
    ).notes
    assert note.startswith("task.prompt has a backslash and an n, no new line")


@pytest.mark.parametrize(
    ("data", "labels", "compared"),
    [
        ([1, 2, 3, 1], '[" bad", " mixed", " good"]', 0),
        (["1", "2", "3"], '[" 1", " 2", " 3"]', 0),
        ([0, 1, 2, 3], '[" bad", " mixed", " good"]', 3),
        ([1, 2, 3], '{1: " bad", 2: " good"}', 2),
        ([1, 2, 1], '[" bad", " mixed", " good"]', 3),
    ],
)
def test_a_list_of_labels_and_gold_values_that_count_from_one_are_not_compared(
    tmp_path: Path, data: list[object], labels: str, compared: int
) -> None:
    rows = [{"text": f"T{place}", "stars": value} for place, value in enumerate(data)]
    yaml = YAML.replace("reviews.csv", "rows.json").replace("id: review_id, group: product, ", "")
    yaml = yaml.replace('{bad: " bad", good: " good"}', labels).replace("exactly_one", "none")
    found = gold.found(loading.load([written(tmp_path, yaml, rows_json=json.dumps(rows))]).task)
    assert len(found.labels) == compared
    if not compared:
        assert "no row has 0, and task.labels is 0 to 2: write a map, as {1: " in found.notes[0]
        assert "line 3: stars is" in found.notes[0] or "row 3: stars is" in found.notes[0]


def test_columns_of_any_name_are_what_the_description_says(tmp_path: Path) -> None:
    rows = [
        {"label": f"Lamp {i}", "consistency_id": f"c{i}", "g": i // 2, "id": f"n{i}", "nr": i, "sentiment": i % 2}
        for i in range(4)
    ]
    yaml = """
task:
  data: rows.json
  columns: {id: nr, group: g, label: sentiment}
  prompt: "{label}, {consistency_id}, {id}.\\nSentiment:"
  labels: [" bad", " good"]
  rule: {same_if: label, else: different}
"""
    word = written(tmp_path, yaml, rows_json=json.dumps(rows))
    examples = {example.id: example for example in loaded(word).examples}
    assert {id_: one.text for id_, one in examples.items()} == {
        i: f"Lamp {i}, c{i}, n{i}.\nSentiment:" for i in range(4)
    }
    assert {id_: one.group for id_, one in examples.items()} == {0: "0", 1: "0", 2: "1", 3: "1"}
    assert len({one.key for one in examples.values()}) == 4
    assert gold.load(loading.load([word]).task) == {"0": 0, "1": 1, "2": 0, "3": 1}


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


def test_the_command_prints_nothing_that_a_terminal_would_obey(tmp_path: Path) -> None:
    word = written(tmp_path)
    (tmp_path / "reviews.csv").write_text(CSV.replace("Warm", "\x1b[31mWarm\x07"))
    run = [sys.executable, "-m", "icm_hpc.task", word, "model=tiny"]
    done = subprocess.run(
        run, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert "\\x1b[31mWarm\\x07" in done.stdout
    assert done.stdout.isascii()


def test_the_command_refuses_as_a_run_does(tmp_path: Path) -> None:
    with pytest.raises(IcmError, match="no row of the data has a column 'txt'"):
        dict(shown(written(tmp_path, YAML.replace("{text}", "{txt}"))))
