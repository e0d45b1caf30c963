"""YAML files and words of the command line, spoilt in many ways: settings that are read back the same, or one error."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc import task as task_command
from icm_hpc import tasks
from icm_hpc.capacity import executor, plan
from icm_hpc.capacity.found import Plan
from icm_hpc.config import glance, loading
from icm_hpc.config.keys import HINTS
from icm_hpc.config.schema import Config
from icm_hpc.errors import ConfigError
from tests.fuzzing.mutations import TEXTS, accepted, damaged, fuzzed, mutated

STUB = ("model=stub", "cluster=local")
KEYS = sorted(f"{section}.{key}" for section, hints in HINTS.items() for key in hints)
PRESETS = [
    path for section in ("task", "model", "cluster", "preset") for path in sorted(loading.presets(section).values())
]
OWN = {
    "task": {
        "prompt": "Review: {text}\nSentiment:",
        "labels": {"0": " bad", "1": " good"},
        "columns": {"group": "pair"},
        "rule": {"same_if": "subject", "else": "exactly_one"},
        "limit": 12,
        "test_share": 0.2,
    },
    "search": {"seed": 3, "label_prior": [0.5, 0.5], "word_prior": True},
    "model": {"vllm_args": {"max-logprobs": 50, "hf-overrides": {"a": [1, "b"]}}, "env": {"HF_HOME": "/tmp/x"}},
    "cluster": {"time_min": "1-02:30", "setup": ["module load cuda"]},
    "run": {"root": "${oc.env:HOME}/runs", "name": "r"},
}
ODD = (
    *(
        "",
        "null",
        '""',
        "''",
        "'null'",
        "~",
        "true",
        "0",
        "-1",
        "1e5",
        "1e400",
        "1e-400",
        "nan",
        "inf",
        "9" * 18,
        "9" * 5000,
    ),
    *(
        "1e308",
        "-1e308",
        "1_000",
        "0x10",
        "0o17",
        "٣",
        "1.5",
        "90",
        "1-00",
        "999999-23:59:59",
        "00:00:00",
        "a",
        "a" * 300,
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        "[]",
        "{}",
        "[a,b]",
        "[a,b",
        "[a,,b]",
        "{a: b}",
        "{a}",
        "{a: b, a: c}",
        "[" * 3000,
        "[" * 500 + "]" * 500,
    ),
    *(
        "{a: " * 400 + "}" * 400,
        "[{a: [b]}]",
        '["a',
        "['a'b]",
        "[--exclude=n[01,03]]",
        '"\\UFFFFFFFF"',
        '"\\ud83d"',
        '"\\x00"',
    ),
    *(
        "a\nb",
        "a\0b",
        "\udcff",
        "\ud83d",
        "\u2028",
        "~nobody/x.yaml",
        "/" + "a/" * 3000,
        "a.yaml",
        "a" * 300 + ".yaml",
        "a\0.yaml",
    ),
    *(
        "a" * 300 + ".py",
        "/dev/null",
        ".",
        "..",
        "${oc.env:HOME}",
        "${oc.env:",
        "${a}",
        "${oc.env:X,${oc.env:Y,1}}",
        "$USER",
        "{text}",
    ),
    *(
        "${" * 500,
        "${oc.env:" * 300 + "}" * 300,
        "exact",
        "top20",
        "single",
        "reference",
        "apply",
        "blocks",
        "stub",
        "smol",
        "0.5",
    ),
    *(
        "[0.5,0.5]",
        "[1e308,1e308]",
        "[0,1]",
        "[' a',' b']",
        "[1]",
        "{x: 1}",
        "{0: ' no', 1: ' yes'}",
        "none",
        "different",
        "same",
    ),
    *(
        "{same_if: text}",
        "{else: same}",
        "{same_if: text, else: different}",
        "1000000000000000000",
        "Review: {text}\\nSentiment:",
    ),
    *(
        '"Review: {text}\\nSentiment:"',
        "{text",
        "{text!r}",
        "{text:>10}",
        "{}",
        "{0}",
        "{a.b}",
        "{a[b]}",
        "hf_" + "a" * 30,
    ),
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with no network."""
    folder = tmp_path_factory.mktemp("settings")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(tasks.files, "_hub", lambda *_: iter(()))
    return folder


def require_kept(config: Config, folder: Path) -> None:
    """Fail unless settings are read from their file as they are."""
    saved = folder / "config.yaml"
    saved.write_text(loading.to_yaml(config), encoding="utf-8")
    assert (loading.load_file(saved) == config) is True
    assert glance.has_external_server(saved) == (config.external_url is not None)
    saved.unlink()


def require_task(config: Config) -> None:
    """Fail unless the task of settings can be shown, or is refused on one line."""
    if config.task.data is None and config.model.engine == "stub":
        accepted(lambda: list(task_command.described(config)))


@given(source=st.sampled_from([*PRESETS, None]), data=st.data(), section=st.sampled_from(["task", "model", "cluster"]))
@fuzzed(150)
def test_a_preset_of_any_text_gives_settings_or_one_error(
    own_folder: Path, source: Path | None, data: st.DataObject, section: str
) -> None:
    path = own_folder / "mine.yaml"
    path.write_bytes(data.draw(damaged(source.read_bytes() if source else yaml.safe_dump(OWN).encode())))
    require_settings(own_folder, [f"{section}={path}"])


@given(tree=mutated(OWN, most=4), section=st.sampled_from(["task", "cluster"]), flow=st.booleans())
@fuzzed(150)
def test_a_preset_of_any_values_gives_settings_or_one_error(
    own_folder: Path, tree: Any, section: str, *, flow: bool
) -> None:
    path = own_folder / "mine.yaml"
    path.write_text(yaml.safe_dump(plain(tree), default_flow_style=flow, allow_unicode=True), errors="surrogatepass")
    require_settings(own_folder, [f"{section}={path}", *STUB[:1]])


def plain(value: Any) -> Any:
    """Return a value of plain types, as YAML is written of."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str.__str__(value) if isinstance(value, str) else value


def require_settings(folder: Path, words: list[str]) -> None:
    """Fail unless words give settings that are kept, whose task can be shown, or one error."""
    config = accepted(lambda: loading.load(words))
    if config is not None:
        require_kept(config, folder)
        require_task(config)


def test_aliases_that_multiply_are_refused(own_folder: Path) -> None:
    path = own_folder / "mine.yaml"
    for item in ("[{}, {}]", "{{a: {}, b: {}}}", "{{<<: [{}, {}]}}"):
        lines = [f"l{n}: &l{n} {item.format(f'*l{n - 1}', f'*l{n - 1}')}" for n in range(1, 64)]
        path.write_text("\n".join(["l0: &l0 {x: y}", *lines]))
        assert accepted(lambda: loading.load([f"task={path}"])) is None


@given(saved=st.just(loading.to_yaml(loading.load(STUB)).encode()).flatmap(damaged))
@fuzzed(150)
def test_a_damaged_config_of_a_run_gives_settings_or_one_error(own_folder: Path, saved: bytes) -> None:
    path = own_folder / "damaged.yaml"
    path.write_bytes(saved)
    config = accepted(lambda: loading.load_file(path))
    accepted(lambda: glance.has_external_server(path))
    if config is not None:
        require_kept(config, own_folder)


def words() -> st.SearchStrategy[list[str]]:
    """Return words of a command line, keys mostly spelt right."""
    names = st.sampled_from(
        [*KEYS] * 4 + ["task", "model", "cluster", "preset", "run", "engine", "replicas", "x", "task.", ".", ""]
    )
    longer = st.builds("{}.{}".format, names, st.sampled_from(["a", "", "0", "a.b", "TOKEN", "-x", "\0"]))
    values = (
        st.sampled_from(ODD)
        | st.sampled_from(TEXTS)
        | st.text(max_size=6)
        | st.integers().map(str)
        | st.floats().map(str)
    )
    pair = st.builds("{}={}".format, names | names | longer, values)
    return st.lists(pair | pair | pair | st.sampled_from(ODD) | st.text(max_size=10), min_size=1, max_size=4)


@given(given_words=words())
@fuzzed(600)
def test_words_of_any_kind_give_settings_or_one_error(own_folder: Path, given_words: list[str]) -> None:
    require_settings(own_folder, [*STUB, *given_words])


@given(given_words=words())
@fuzzed(80)
def test_a_plan_of_any_settings_is_made_or_one_error(given_words: list[str]) -> None:
    def made() -> Plan | None:
        config, _ = executor.resolved(loading.load([*STUB, "task.limit=8", *given_words]))
        if config.task.data is not None or config.task.test is not None:
            return None
        task = tasks.load(config.task, seed=config.search.seed)
        return plan.plan(config, task, tasks.load_test(config.task, task, seed=config.search.seed))

    accepted(made)


@given(
    content=st.just(yaml.safe_dump({"model": "stub", "run": {"root": "/tmp/${oc.env:HOME}"}}).encode()).flatmap(damaged)
)
@fuzzed(80)
def test_a_file_of_defaults_gives_settings_or_one_error(own_folder: Path, content: bytes) -> None:
    path = own_folder / "defaults.yaml"
    path.write_bytes(content)
    os.environ["ICM_DEFAULTS"] = str(path)
    try:
        require_settings(own_folder, [])
    finally:
        del os.environ["ICM_DEFAULTS"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (f"task={'a' * 300}", "no such preset"),
        (f"model.download_dir={'a' * 300}", "is no name that a file can have"),
        ("search.memo_mb=1e308", "at most 1000000"),
        ("run.root=a\0b", "is no name that a file can have"),
        (f"task={'a' * 300}.yaml", "there is no such file"),
        (f"task.label_words={'[' * 500}{']' * 500}", "brackets are nested too deeply"),
        ('task.preamble="\\ud83d"', "is no text that UTF-8 can hold"),
        ("task.preamble=\udcff", "is no text that UTF-8 can hold"),
    ],
)
def test_words_that_ended_in_a_traceback_are_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loading.load([*STUB, word])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('task: {preamble: "\\UFFFFFFFF"}', "is not YAML"),
        ('task: {preamble: "\\ud83d"}', "line 1: .* is no text that UTF-8 can hold"),
        (f"%YAML 1.{'9' * 5000}\n---\ntask: {{}}", "is not YAML"),
        ("task: &a {<<: *a}", "line 1: an alias refers to what it is a part of"),
        ("task: {labels: {<<: {[a]: b}}}", "line 1: a list or a map cannot be a key"),
    ],
)
def test_yaml_that_ended_in_a_traceback_is_refused(own_folder: Path, content: str, message: str) -> None:
    path = own_folder / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        loading.load([*STUB, f"task={path}"])
