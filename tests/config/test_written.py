"""Values are what was typed: the declared type of a key decides how it is read, on the command line and in files."""

from pathlib import Path
from typing import Any

import pytest

from icm_hpc.config import loading
from icm_hpc.errors import ConfigError


def value(key: str, *words: str) -> Any:
    """Return the value of a key that a command line sets."""
    section, name = key.split(".")
    return getattr(getattr(loading.load(words), section), name)


def refusal(*words: str) -> str:
    """Return the words of a refusal, which are one line."""
    with pytest.raises(ConfigError) as refused:
        loading.load(words)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def preset(folder: Path, text: str) -> str:
    """Return a word that names a cluster preset with this text."""
    (folder / "site.yaml").write_text(text)
    return f"cluster={folder / 'site.yaml'}"


@pytest.mark.parametrize(
    "text",
    ["0123", "1e5", "no", "on", "true", "#proj", "1.10", "2025_11_25", "12e4567", "0x1F", "12:30:00", "2025-01-01", "~",
     "???", "a: b", "my data #2.jsonl", "[x", "{y}", "it's", ".inf", "${HOME}", r"\${HOME}", "é", "a=b", "*a", "&b", "- c",
     "!!x", "1_000", "=", "<<", "%d", "@x", "`y`", " x "],
)  # fmt: skip
def test_a_text_of_the_command_line_is_the_characters_given(text: str) -> None:
    for key in ("cluster.account", "model.revision", "task.data"):
        assert value(key, f"{key}={text}") == text


@pytest.mark.parametrize("name", ["1.10", "2025_11_25", "1e3", "0123", "no", "null"])
def test_a_runs_name_is_what_was_typed(name: str) -> None:
    assert value("run.name", f"run.name={name}") == name == value("run.name", f"run={name}")


def test_nothing_and_null_unset_what_is_optional_and_quotes_make_a_text_of_it() -> None:
    for text in ("null", ""):
        assert value("cluster.account", f"cluster.account={text}") is None
        assert value("server.mem_gb", f"server.mem_gb={text}") is None
    assert value("cluster.account", 'cluster.account="null"') == "null"
    assert value("cluster.account", "cluster.account=''") == ""
    assert value("cluster.account", "cluster.account='it''s'") == "it's"
    assert value("run.name", "run.name=") == ""


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("7", 7), ("0100", 100), ("90:00", 90), ("1:30", 2), ("24:00:00", 1440), ("00:00:01", 1), ("12:30:00", 750),
     ("1-0", 1440), ("2-12", 3600), ("1-02:03", 1563), ("1-02:03:04", 1564), ("04:00:30", 241), ("059:00", 59)],
)  # fmt: skip
def test_a_time_is_written_as_slurm_takes_it(text: str, minutes: int, tmp_path: Path) -> None:
    assert value("cluster.time_min", f"cluster.time_min={text}", "cluster.signal_s=1") == minutes
    word = preset(tmp_path, f"cluster:\n  time_min: {text}\n  signal_s: 1\n")
    assert value("cluster.time_min", word) == minutes


@pytest.mark.parametrize("text", ["UNLIMITED", "1h", "1-", "-5", "1:2:3:4", "1-1:2:3:4", "1.5", "", "12:", "٣", "[1]"])
def test_what_is_no_time_is_refused_with_slurms_forms(text: str) -> None:
    said = refusal(f"cluster.time_min={text}")
    assert said.startswith("cluster.time_min")
    assert "expected a time as Slurm's --time takes it: 90 (minutes), MM:SS, HH:MM:SS, D-HH" in said


@pytest.mark.parametrize(("text", "number"), [("042", 42), ("+7", 7), ("0", 0), ("007", 7)])
def test_whole_numbers_are_decimal_digits(text: str, number: int, tmp_path: Path) -> None:
    assert value("search.seed", f"search.seed={text}") == number
    assert value("search.seed", preset(tmp_path, f"search: {{seed: {text}}}")) == number


@pytest.mark.parametrize(
    "text",
    ["1_000", "0x10", "0o17", "2.0", "1e3", "many", "", "null", "inf", "1 2", "٣", "9" * 5000, "[1]", "1\n2", "true"],
)
def test_what_is_no_whole_number_is_refused_on_one_line(text: str) -> None:
    said = refusal(f"search.restarts={text}")
    assert said.startswith("search.restarts")
    assert "expected a whole number in decimal digits" in said
    assert len(said) < 300


@pytest.mark.parametrize(("text", "number"), [("1e-5", 1e-5), ("2", 2.0), (".5", 0.5), ("3.", 3.0), ("+1E1", 10.0)])
def test_numbers_are_decimals_or_have_an_exponent(text: str, number: float, tmp_path: Path) -> None:
    assert value("search.final_temperature", f"search.final_temperature={text}") == number
    assert value("search.final_temperature", preset(tmp_path, f"search: {{final_temperature: {text}}}")) == number


@pytest.mark.parametrize(
    "text", ["nan", ".nan", "inf", ".inf", "-inf", "1e999", "0x1", "1_0", "1,5", "", "true", "1:30"]
)
def test_what_is_no_number_is_refused(text: str, tmp_path: Path) -> None:
    assert "expected a number, such as 30, 0.5 or 1e-5" in refusal(f"search.alpha={text}")
    said = refusal(preset(tmp_path, f'search:\n  alpha: "{text}"\n'))
    assert said.endswith(f"(set in {tmp_path}/site.yaml, line 2)")


@pytest.mark.parametrize("text", ["yes", "True", "1", "on", "False", "'x'"])
def test_a_truth_value_is_true_or_false(text: str, tmp_path: Path) -> None:
    assert "expected true or false" in refusal(f"model.enforce_eager={text}")
    assert "expected true or false" in refusal(preset(tmp_path, f"model: {{enforce_eager: {text}}}"))
    assert value("model.enforce_eager", "model.enforce_eager=false") is False


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[no,yes]", ["no", "yes"]),
        ("[' no',' yes']", [" no", " yes"]),
        ('[" no", " yes"]', [" no", " yes"]),
        ("[1, 2.0]", ["1", "2.0"]),
        ("[null,~]", ["null", "~"]),
        ('["a,b",c]', ["a,b", "c"]),
        ("[it's, isn't]", ["it's", "isn't"]),
        ('["\\u00e9", x]', ["é", "x"]),
        ("[a,b,]", ["a", "b"]),
    ],
)
def test_a_list_of_the_command_line_holds_what_was_typed(text: str, items: list[str]) -> None:
    assert value("task.label_words", f"task.label_words={text}") == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[--exclude=n[01-03]]", ["--exclude=n[01-03]"]),
        ("[--exclude=n[01,03],--nice=5]", ["--exclude=n[01,03]", "--nice=5"]),
        ("[--time=0100]", ["--time=0100"]),
        ("[]", []),
        ("[ ]", []),
    ],
)
def test_brackets_inside_an_item_belong_to_it(text: str, items: list[str]) -> None:
    assert value("cluster.server_flags", f"cluster.server_flags={text}") == items


def test_a_line_of_set_up_may_hold_a_colon_a_hash_and_a_shells_own_signs() -> None:
    assert value("cluster.setup", "cluster.setup=[export A: b, module load x # y]") == [
        "export A: b",
        "module load x # y",
    ]
    assert value("cluster.setup", 'cluster.setup=["export A: b"]') == ["export A: b"]
    assert value("cluster.setup", "cluster.setup=['a, b', ${x[@]}, $(f {a,b})]") == ["a, b", "${x[@]}", "$(f {a,b})"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("cluster.setup=module load x", "expected a list, such as [a,b]"),
        ("cluster.setup=[a", "[ is not closed by ]"),
        ("cluster.setup=[a[]", "[ is not closed"),
        ("cluster.setup=[a]]", "] closes nothing"),
        ("cluster.setup=['a]", "' is not closed"),
        ("cluster.setup=[a,,b]", "an item is empty"),
        ("cluster.setup=[[a],b]", "cluster.setup[0]: expected a text, and a list is given"),
        ("cluster.setup={a: b}", "expected a list, such as [a,b], and a map is given"),
        ("model.env=[A]", "expected a map, such as {a: b}, and a list is given"),
        ("model.env={A}", "'A' is not NAME: VALUE"),
        ("model.env={A: 1, A: 2}", "A stands twice"),
        ("model.env.A.B=1", "model.env.A: expected a text, and a map is given"),
        ("cluster.setup=", "cluster.setup is empty: expected a list"),
        ("search.label_prior=guess", "search.label_prior=guess: expected a list, such as [a,b], or estimated"),
        ("search.label_prior=0.8", "expected a list, such as [a,b], or estimated"),
        ("search.label_prior=", "search.label_prior is empty: expected a list, such as [a,b], or estimated"),
        ("search.label_prior={a: b}", "expected a list, such as [a,b], or estimated, and a map is given"),
        ("search.label_prior=[estimated]", "search.label_prior[0]=estimated: expected a number"),
        ("model.env=x", "model.env=x: expected a map"),
        ("cluster.account.x=1", "cluster.account.x: no such key"),
        ("cluster.account=a\nb", "cluster.account='a\\nb': has a line break"),
        ("model.env.A-B=1", "model.env: 'A-B' is not the name of a variable"),
        ("model.env.=1", "model.env: '' is not the name of a variable"),
    ],
)
def test_a_list_or_a_map_that_cannot_be_read_is_refused_on_one_line(words: str, said: str) -> None:
    assert said in refusal(words)


@pytest.mark.parametrize(
    ("word", "options"),
    [
        ("model.vllm_args.max-logprobs=50", {"max-logprobs": 50}),
        (
            "model.vllm_args={max-logprobs: 50, kv-sharing: no, x: true}",
            {"max-logprobs": 50, "kv-sharing": "no", "x": True},
        ),
        ('model.vllm_args.hf-overrides={"head_dtype":"float32"}', {"hf-overrides": {"head_dtype": "float32"}}),
        ("model.vllm_args.hf-overrides.head_dtype=float32", {"hf-overrides": {"head_dtype": "float32"}}),
        ('model.vllm_args.x={"a": [1, 2.5, null, "1", {"b": true}]}', {"x": {"a": [1, 2.5, None, "1", {"b": True}]}}),
        ("model.vllm_args.disable-log-stats=true", {"disable-log-stats": True}),
        ("model.vllm_args.watermark=0.05", {"watermark": 0.05}),
        ("model.vllm_args.x=0123", {"x": "0123"}),
        ("model.vllm_args.x=1_000", {"x": "1_000"}),
        ("model.vllm_args.x=24:00:00", {"x": "24:00:00"}),
        ('model.vllm_args.x="50"', {"x": "50"}),
    ],
)
def test_an_option_of_vllm_is_a_number_a_truth_value_a_map_or_a_text(word: str, options: dict[str, Any]) -> None:
    assert value("model.vllm_args", word) == options


def test_an_option_of_the_command_line_goes_over_that_of_the_preset_by_key() -> None:
    given = value("model.vllm_args", "model=8B", 'model.vllm_args.hf-overrides={"a": 1}', "model.vllm_args.x=y")
    assert given == {"hf-overrides": {"head_dtype": "float32", "a": 1}, "x": "y"}


def test_a_variable_of_the_engine_is_text() -> None:
    given = value("model.env", "model=stub", "model.env={A: 1, B: no}", "model.env.C=007", "model.env.D='8'")
    assert given == {"A": "1", "B": "no", "C": "007", "D": "8"}


@pytest.mark.parametrize(
    "text", ["0123", "1e5", "no", "on", "1.10", "2025-01-01", "12e4567", "24:00:00", "1_000", "0x1F", ".inf"]
)
def test_what_yaml_takes_for_something_else_than_a_text_is_to_be_quoted(text: str, tmp_path: Path) -> None:
    said = refusal(preset(tmp_path, f"cluster:\n  executor: slurm\n  account: {text}\n"))
    assert said.startswith(f"cluster.account={text}: expected a text, which YAML takes for a ")
    assert f'quote it, as in "{text}" (set in {tmp_path}/site.yaml, line 3)' in said
    for quote in "'\"":
        word = preset(tmp_path, f"cluster: {{account: {quote}{text}{quote}}}\n")
        assert value("cluster.account", word) == text
    assert f"task.label_words[0]={text}" in refusal(preset(tmp_path, f"task: {{label_words: [{text}, x]}}"))
    assert f"model.env.A={text}" in refusal(preset(tmp_path, f"model: {{env: {{A: {text}}}}}"))


def test_nothing_and_null_in_a_file_unset_what_is_optional(tmp_path: Path) -> None:
    for text in ("", "~", "null"):
        assert value("cluster.account", preset(tmp_path, f"cluster:\n  account: {text}\n")) is None
        assert "run.name" in refusal(preset(tmp_path, f"run:\n  name: {text}\n"))
    assert value("cluster.account", preset(tmp_path, "cluster:\n  account: 'null'\n")) == "null"
    assert value("cluster.account", preset(tmp_path, "cluster:\nsearch: {steps: 3}\n")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster: {account: a\nsearch: {}", "is not YAML: line 2: "),
        ("cluster:\n\taccount: a", "is not YAML: line 2: "),
        ("cluster:\n  account: a\n  account: b", "line 3: account stands twice"),
        ("cluster: &a [*a]", "line 1: an alias refers to what it is a part of"),
        ("[" * 100000, "brackets are nested too deeply"),
        ("? [a]\n: b", "line 1: a list or a map cannot be a key"),
        ("cluster: !!python/object:os.system {a: b}", "cluster.a: no such key"),
        ("a: 1\n---\nb: 2", "is not YAML: line 2"),
    ],
)
def test_a_file_that_is_not_yaml_is_refused_by_file_and_line(text: str, said: str, tmp_path: Path) -> None:
    refused = refusal(preset(tmp_path, text))
    assert said in refused
    assert "site.yaml" in refused


def test_a_map_of_a_file_may_be_merged_into_another(tmp_path: Path) -> None:
    word = preset(tmp_path, "cluster: &c {account: a}\nserver: {nodes: 1}\nrun: {name: r}\n")
    assert value("cluster.account", word) == "a"
    text = "model:\n  path: x\n  vllm_args: {one: &x {a: 1}, two: {<<: *x, b: 2}}\n"
    assert value("model.vllm_args", preset(tmp_path, text))["two"] == {"a": 1, "b": 2}


def test_a_sites_root_may_name_a_variable_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICM_TEST_USER", "ann")
    word = preset(tmp_path, "run: {root: '/scratch/${oc.env:ICM_TEST_USER}/runs'}\n")
    assert value("run.root", word) == "/scratch/ann/runs"
    assert value("run.root", "run.root=/d/${oc.env:NOT_SET_HERE,x}/${USER}") == "/d/x/${USER}"
    word = preset(tmp_path, "run: {root: '${oc.env:NOT_SET_HERE}/runs'}\n")
    said = refusal(word)
    assert "run.root=${oc.env:NOT_SET_HERE}/runs: " in said
    assert "'NOT_SET_HERE' not found" in said
    assert f"(set in {tmp_path}/site.yaml, line 1)" in said
    assert refusal("run.root=${oc.env:X").startswith("run.root=${oc.env:X: ")


def test_a_runs_own_file_is_read_back_whatever_its_texts_look_like(tmp_path: Path) -> None:
    texts = [
        "0123",
        "1e5",
        "no",
        "null",
        "",
        "2025-01-01",
        "12e4567",
        "1_000",
        "0o17",
        "a\nb",
        "#x",
        " y ",
        "${HOME}",
        "\\${X}",
    ]
    saved = tmp_path / "config.yaml"
    for text in texts:
        words = [f"{key}='{text}'" for key in ("run.root", "model.revision", "model.env.A", "model.vllm_args.x")]
        given = loading.load(
            [*words, f"cluster.setup=['{text}']", "model.vllm_args.y=1e-07", "search.final_temperature=1e-7"]
        )
        saved.write_text(loading.to_yaml(given))
        assert loading.load_file(saved) == given
    assert (given.run.root, given.cluster.setup) == ("\\${X}", ["\\${X}"])


def test_a_runs_file_of_an_older_version_is_read_as_it_was_meant(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    saved.write_text(
        "format: 2\nmodel: {path: x, revision: 12e4567, env: {HF_TOKEN: old}, vllm_args: {port: 5, kv-cache-dtype: fp8}}\n"
        "cluster: {account: 1e5, qos: '0123', time_min: 83}\nsearch: {final_temperature: 1.0e-05}\n"
        "run: {root: '/a/${oc.env:X}'}\n"
    )
    given = loading.load_file(saved)
    assert (given.model.revision, given.cluster.account, given.cluster.qos) == ("12e4567", "1e5", "0123")
    assert (given.cluster.time_min, given.search.final_temperature) == (83, 1e-5)
    assert given.run.root == "/a/${oc.env:X}"
    assert given.model.vllm_args == {"port": 5, "kv-cache-dtype": "fp8"}


def test_every_preset_of_the_package_is_read() -> None:
    for section in loading.PRESET_SECTIONS:
        for name in loading.presets(section):
            loading.load([f"{section}={name}"])
