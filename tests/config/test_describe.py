"""The settings page and `--help` come from the schema, and are complete."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from icm_hpc.config import describe, keys, loading
from icm_hpc.errors import ConfigError

ROOT = Path(__file__).parents[2]
COMMANDS = ("submit", "resume", "status", "plan", "verify", "evaluate", "export", "report", "apply", "compare")
TAKE_SETTINGS = ("submit", "resume", "plan", "apply")
KEYS = [f"{section}.{f.name}" for section, kind in keys.SECTIONS.items() for f in dataclasses.fields(kind)]


def help_of(command: str, *words: str) -> str:
    argv = [sys.executable, "-m", f"icm_hpc.{command}", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_settings_page_is_the_one_that_make_docs_writes() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == describe.markdown()


def test_every_setting_has_a_meaning() -> None:
    assert [f"{one.section}.{one.name}" for one in describe.settings()] == KEYS
    assert [one.name for one in describe.settings() if len(one.meaning) < 5] == []


def test_choices_defaults_and_limits_are_those_of_the_schema() -> None:
    found = {f"{one.section}.{one.name}": one for one in describe.settings()}
    assert found["search.schedule"].allowed == "log, exp, constant"
    assert found["search.protocol"].allowed == "default, reference"
    assert found["search.pool_size"].allowed == "2 or more"
    assert found["cluster.time_min"].default == "1440"
    assert found["model.trust_remote_code"].type == "true or false, or null"


def test_a_default_on_the_page_is_one_that_the_command_line_accepts() -> None:
    words = [f"{one.section}.{one.name}={one.default}" for one in describe.settings() if one.default]
    words = [word for word in words if not word.startswith("model.embedded")]  # smol names its weights
    assert loading.load(words).search == loading.load([]).search


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_the_arguments_of_a_command_with_their_defaults(command: str) -> None:
    text = help_of(command, "--help")
    assert f"python -m icm_hpc.{command}" in text
    arguments = sys.modules.get(f"icm_hpc.{command}") or __import__(f"icm_hpc.{command}", fromlist=["ARGUMENTS"])
    assert all(name in text for name in arguments.ARGUMENTS)
    assert ("search.seed=0" in text) == (command in TAKE_SETTINGS)
    assert max(map(len, text.splitlines())) <= 128


@pytest.mark.parametrize("word", ["--help=all", "help=all"])
def test_help_of_all_lists_every_setting(word: str) -> None:
    text = help_of("plan", word)
    assert [key for key in KEYS if f"  {key}=" not in text] == []


def test_help_of_a_section_lists_its_settings_only() -> None:
    text = help_of("submit", "--help=search")
    assert "search.alpha=30 " in text
    assert "cluster.account" not in text


def test_help_of_an_unknown_section_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="--help=serach: one of all, model, server, task, search, cluster, run"):
        describe.text("serach")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_into_a_closed_pipe_prints_no_traceback(command: str) -> None:
    argv = [sys.executable, "-m", f"icm_hpc.{command}", "--help"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
