"""Rows of data files, spoilt in many ways: each is a task that can be labelled, or one error on one line."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, parquet

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import TaskError
from icm_hpc.tasks import files, gold, gsm8k, kept, unzipping
from tests.fuzzing.mutations import Raw, accepted, bounded, damaged, encoded, fuzzed, mutated, scalars, to_json, values

CLAIMS = [
    {"question": "Where is it?", "choice": f"In {place}.", "consistency_id": 1, "exclusion_group": "a", "label": 0}
    for place in ("Rome", "Paris", "Oslo")
]
SOLVED = [
    {"question": "2+2?", "choice": f"So 2+2 = {n}. The answer is: {n} apples.\n#### {n}", "answer": n, "label": 1}
    for n in (3, "4 apples", "\\frac{9}{2}", 5.5)
]
CHOSEN = [
    {
        "prompt": f"Hello {n}",
        "chosen": [{"role": "user", "content": f"Hello {n}"}, {"role": "assistant", "content": "Hi."}],
        "rejected": f"\n\nHuman: Hello {n}\n\nAssistant: Go.",
    }
    for n in range(3)
]
TALKS = [
    {"chosen": f"\n\nHuman: {n}?\n\nAssistant: Yes.", "rejected": f"\n\nHuman: {n}?\n\nAssistant: No. Never."}
    for n in "ab"
]
TWO = [
    {"instruction": f"Do {n}", "input": "it", "response_a": "x", "response_b": f"y{n}", "winner": "model_a"}
    for n in "ab"
]
SEVERAL = [
    {"prompt": f"Say {n}", "responses": ["a", "b", {"text": "c", "score": 3}], "rank": [1, 2, 3], "id": n}
    for n in range(2)
]
PUBLISHED = [
    {"question": "Why?", "choice": a, "choice_2": b, "label": a < b, "consistency_id": 7} for a, b in ("xy", "yx")
]
CHOICES = [{"question": f"{n}?", "mc1_targets": {"choices": ["b", "a"], "labels": [1, 0]}, "id": n} for n in range(2)]
TEXTS = [{"id": f"r{n}", "pair": n // 2, "text": f"Text {n}.", "label": n % 2, "weight": n / 3} for n in range(4)]

OWN: dict[str, Any] = {
    "name": "own",
    "prompt": "Text: {text} ({weight})\nGood?",
    "labels": {"0": " no", "1": " yes"},
    "columns": {"group": "pair"},
    "rule": {"same_if": "weight", "else": "exactly_one"},
}
SAMPLES: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({"name": "claims"}, CLAIMS),
    ({"name": "gsm8k"}, SOLVED),
    ({"name": "comparison"}, CHOSEN),
    ({"name": "comparison"}, TALKS),
    ({"name": "comparison"}, TWO),
    ({"name": "comparison", "limit": 4}, SEVERAL),
    ({"name": "truthfulqa-preference", "draw": "blocks"}, PUBLISHED),
    ({"name": "truthfulqa"}, CHOICES),
    ({"name": "reviews"}, TEXTS),
    ({"name": "topics", "draw": "blocks"}, TEXTS),
    (OWN, TEXTS),
    ({**OWN, "rule": {"else": "different"}, "columns": {}, "test_share": 0.3}, TEXTS),
]


def require_usable(path: Path, **settings: Any) -> None:
    """Fail unless the rows of a file are a task that can be labelled, or are refused on one line."""
    config = TaskConfig(data=str(path), **settings)
    task = accepted(lambda: tasks.load(config, seed=0))
    if task is None:
        return
    problem = task.problem()
    assert problem.n == len(task.examples) >= 2
    assert all(0 <= conflict.first < conflict.second < problem.n for conflict in problem.conflicts)
    for example in task.examples:
        assert isinstance(example.id, str | int | float)
        assert isinstance(example.group, str)
        assert isinstance(example.text, str)
        assert isinstance(example.key, str)
        (example.text + example.group + str(example.id)).encode()
    assert len(task.sha256()) == 64
    copy = path.with_name("copy.gz")
    copy.write_bytes(tasks.packed(task))
    assert (kept.unpacked(copy) == task.examples) is True
    found = accepted(lambda: gold.found(config))
    assert found is not None
    assert all(type(label) is int and 0 <= label < len(task.label_words) for label in found.labels.values())
    copy.write_bytes(gold.packed(found.labels))
    assert (gold.unpacked(copy) == found.labels) is True
    accepted(lambda: tasks.load_test(config, task, seed=0))
    accepted(lambda: tasks.premise_of(task))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the files of all examples."""
    return tmp_path_factory.mktemp("rows")


@given(sample=st.sampled_from(SAMPLES), data=st.data())
@fuzzed(500)
def test_rows_of_json_are_a_task_or_one_error(folder: Path, sample: Any, data: st.DataObject) -> None:
    settings, rows = sample
    changed = data.draw(mutated(rows, most=4))
    as_lines = data.draw(st.booleans()) and isinstance(changed, list)
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(to_json, changed)) if as_lines else to_json(changed))
    require_usable(path, **settings)


@given(data=st.data(), ending=st.sampled_from([*files.LINES, ".json", *files.TABLES, ".gz", ""]))
@fuzzed(250)
def test_a_file_of_any_form_is_a_task_or_one_error(folder: Path, data: st.DataObject, ending: str) -> None:
    rows = data.draw(st.sampled_from([CLAIMS, SOLVED, TEXTS]))
    shape = data.draw(st.sampled_from(["lines", "list", "split", "columns", "object", "named", "table"]))
    path = folder / f"rows{data.draw(st.sampled_from(['.json', ending])) if ending == '.gz' else ending}"
    content = data.draw(damaged(data.draw(encoded(_written(data.draw(mutated(rows)), shape)))))
    path.write_bytes(data.draw(damaged(gzip.compress(content))) if ending == ".gz" else content)
    require_usable(path, name="claims")


def _written(rows: Any, shape: str) -> str:
    """Return rows in one of the forms that are read."""
    objects = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = list(objects[0]) if objects else []
    if shape == "lines":
        return "\n".join(map(to_json, objects))
    if shape == "split":
        return to_json({"columns": names, "data": [list(row.values()) for row in objects]})
    if shape == "columns":
        return to_json({name: {str(n): row.get(name) for n, row in enumerate(objects)} for name in names})
    if shape == "object":
        return to_json({name: [row.get(name) for row in objects] for name in names})
    if shape == "named":
        return to_json({"rows": rows})
    if shape == "table":
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter="," if len(objects) % 2 else "\t")
        writer.writerows([names, *([str(item)[:500] for item in row.values()] for row in objects)])
        return buffer.getvalue()
    return to_json(rows)


@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["id", "text", "pair", "label", "weight", "x"]), scalars(), min_size=4)
    )
)
@fuzzed(100)
def test_a_row_of_any_values_is_an_example_or_one_error(folder: Path, rows: list[Any]) -> None:
    path = folder / "any.jsonl"
    path.write_text("\n".join(map(to_json, rows)))
    require_usable(path, **OWN)


@given(data=st.data(), kind=st.sampled_from(files.COLUMNS))
@fuzzed(100)
def test_a_file_of_columns_is_a_task_or_one_error(folder: Path, data: st.DataObject, kind: str) -> None:
    table = pa.table(
        {
            "text": [f"Text {n}" for n in range(4)],
            "pair": pa.array(data.draw(st.sampled_from([[1, 1, 2, 2], [b"a", b"\xff", None, b""]]))),
            "weight": data.draw(st.sampled_from(COLUMNS)),
            "label": data.draw(st.sampled_from(COLUMNS)),
        }
    )
    path = folder / f"rows{kind}"
    parquet.write_table(table, path) if kind == ".parquet" else feather.write_feather(
        table, path, compression="uncompressed"
    )
    path.write_bytes(data.draw(damaged(path.read_bytes(), most=2)))
    require_usable(path, **OWN)


COLUMNS = [
    pa.array([0, 1, 0, 1]),
    pa.array([b"\xff", b"a", None, b""]),
    pa.array([0, 1, 2, 3], pa.timestamp("ns")),
    pa.array([0, 1, 2, 3], pa.duration("s")),
    pa.array([0, 1, 2, 3], pa.date32()),
    pa.array([2**62, 1, 2, 3], pa.timestamp("us")),
    pa.array([[1], [], None, [2]]),
    pa.array([{"a": 1}, {"a": None}, None, {"a": 2}]),
    pa.array([float("nan"), float("inf"), 0.0, None]),
    pa.array(["a", "b", "a", "b"]).dictionary_encode(),
    pa.array([True, False, None, True]),
    pa.nulls(4),
]


@given(content=mutated([["a", "g", "text", "key"], [1, "g", "text", ""], [1.5, "h", "text", ""]], most=3))
@fuzzed(100)
def test_a_runs_copy_of_its_data_is_read_whole_or_refused(folder: Path, content: Any) -> None:
    path = folder / "copy.gz"
    path.write_bytes(
        gzip.compress("\n".join(map(to_json, content if isinstance(content, list) else [content])).encode())
    )
    config = TaskConfig(name="claims")
    task = accepted(lambda: tasks.load(config, seed=0, copy=path))
    if task is not None:
        assert all(type(one) is str for example in task.examples for one in (example.group, example.text, example.key))
        assert len(task.sha256()) == 64


@given(content=st.binary(max_size=60) | st.just(gzip.compress(b'["a", "g", "text", "key"]')).flatmap(damaged))
@fuzzed(100)
def test_a_damaged_copy_is_refused(folder: Path, content: bytes) -> None:
    path = folder / "damaged.gz"
    path.write_bytes(content)
    accepted(lambda: kept.unpacked(path))


@given(content=mutated({"a": 0, "b": 1}))
@fuzzed(100)
def test_kept_gold_labels_are_labels_or_refused(folder: Path, content: Any) -> None:
    path = folder / "gold.json"
    path.write_text(to_json(content))
    found = accepted(lambda: gold.unpacked(path))
    assert all(type(label) is int for label in (found or {}).values())


@given(value=values())
@fuzzed(100)
def test_any_json_is_no_task_or_one(folder: Path, value: Any) -> None:
    path = folder / "any.json"
    path.write_text(to_json(value))
    require_usable(path, name="claims")


OTHER = '{"question": "b?", "choice": "c"}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"question": "a?", "choice": "b", "x": 1e-99999999999999999999}',
            "line 1: the exponent of a number is too large",
        ),
        ('{"columns": ["question", "choice"], "data": [["a?"]]}', "row 1: expected a list of 2, one a column"),
        ('{"columns": [["question"]], "data": [["a?"]]}', "columns must be a list of different texts"),
        (
            '{"question": "a?", "choice": "b", "x": ' + "[" * 500 + "]" * 500 + "}",
            "line 1: brackets are nested too deeply",
        ),
    ],
)
def test_rows_that_ended_in_a_traceback_are_refused(folder: Path, content: str, message: str) -> None:
    path = folder / "rows.jsonl"
    path.write_text(content if "columns" in content else f"{content}\n{OTHER}")
    path = path.rename(path.with_suffix(".json" if "columns" in content else ".jsonl"))
    with pytest.raises(TaskError, match=message):
        tasks.load(TaskConfig(name="claims", data=str(path)), seed=0)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hello", "chosen": '["a"], 1', "rejected": "b"},
        {"prompt": "Hello", "answers": ["a", "b"], "score": [10**400, 1]},
        {"prompt": "Hello", "answers": ["a", "b"], "score": [float("nan"), 1]},
        {"prompt": "Hello", "chosen": '[{"role": ' + "[" * 200 + "]" * 200 + ', "content": "a"}]', "rejected": "b"},
    ],
)
def test_pairs_that_ended_in_a_traceback_are_examples(folder: Path, row: dict[str, Any]) -> None:
    path = folder / "pairs.jsonl"
    path.write_text(json.dumps(row))
    assert len(tasks.load(TaskConfig(name="comparison", data=str(path)), seed=0).examples) == 2


def test_values_of_any_type_can_be_compared_by_a_rule(folder: Path) -> None:
    settings = {**OWN, "prompt": "Text: {text}\nGood?"}
    path = folder / "rows.parquet"
    days = pa.array([0, 0, 1, 2], pa.date32())
    parquet.write_table(
        pa.table({"text": list("abcd"), "pair": [1, 1, 2, 2], "weight": days, "label": [0, 1, 0, 1]}), path
    )
    task = tasks.load(TaskConfig(data=str(path), **settings), seed=0)
    assert sorted(conflict.rule.name for conflict in task.problem().conflicts) == ["exactly one", "same"]
    path = folder / "rows.jsonl"
    rows = [
        {"text": text, "pair": 1, "label": 0, "weight": [Raw("0.1000000000000000000000000000001")]} for text in "ab"
    ]
    path.write_text("\n".join(map(to_json, rows)))
    assert tasks.load(TaskConfig(data=str(path), **settings), seed=0).has_conflicts()


@pytest.mark.parametrize(
    "ending", [" " * 50_000 + "b", "!" * 50_000 + "y", "answer: x" + "*." * 20_000 + "y", "1" + ",11" * 9_000]
)
def test_a_solution_that_repeats_a_sign_is_read_within_bounds(ending: str) -> None:
    with bounded():
        gsm8k.final_answer(None, f"The answer is: 5 {ending}")
        gsm8k.final_answer(f"5 {ending}", "")


def test_a_small_file_that_holds_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unzipping, "LEAST", 10_000)
    bomb = folder / "rows.jsonl.gz"
    bomb.write_bytes(gzip.compress(b" " * 1_000_000))
    many = folder / "rows.parquet"
    parquet.write_table(pa.table({"text": pa.nulls(1_000_000)}), many)
    for path in (bomb, many):
        with pytest.raises(TaskError, match=r"holds more than \d+ MB"):
            files.read_file(path)
    with pytest.raises(TaskError, match=r"copy of its data cannot be read: holds more than"):
        kept.unpacked(bomb)


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_a_dictionary_counts_once_however_many_batches_use_it(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unzipping, "LEAST", 2_000_000)
    values = pa.array([f"text {n} {'x' * 90}" for n in range(1000)])
    column = pa.DictionaryArray.from_arrays(pa.array([n % 1000 for n in range(10_000)], type=pa.int32()), values)
    table, path = pa.table({"text": column}), folder / f"categories{kind}"
    if kind == ".parquet":
        parquet.write_table(table, path)
    else:
        feather.write_feather(table, path, chunksize=256, compression="uncompressed")
    assert len(files.read_file(path)) == 10_000


def test_a_compressed_file_takes_the_memory_of_what_it_holds(folder: Path) -> None:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n') + b"\0" * 8_000_000)  # so that it might hold 800 MB
    with bounded(memory_bytes=200_000_000):
        assert len(files.read_file(path)) == 1


def test_a_group_of_too_many_pairs_is_refused(folder: Path) -> None:
    path = folder / "one_group.jsonl"
    path.write_text(
        "\n".join(to_json({"id": n, "pair": 1, "text": f"Text {n}.", "label": 0, "weight": n}) for n in range(7000))
    )
    with bounded(), pytest.raises(TaskError, match="The largest group, '1', has 7000 examples"):
        tasks.load(TaskConfig(data=str(path), **OWN), seed=0)
