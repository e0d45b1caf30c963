"""The file of keys: how its lines are read, and when it is refused."""

import os
from pathlib import Path

import pytest

from icm_hpc.config import credentials, loading
from icm_hpc.errors import ConfigError
from tests.external import KEY, secrets_file


def test_a_secrets_file_gives_address_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = secrets_file(tmp_path, "# mine", "VLLM_BASE_URL = http://host:8000", f'VLLM_API_KEY="{KEY}"', "")
    monkeypatch.setenv("ICM_SECRETS", str(file))
    config, url_from = credentials.addressed(loading.load(["model=tiny"]))
    assert (config.external_url, url_from) == ("http://host:8000", f"VLLM_BASE_URL of {file}")
    found = credentials.of_server(config)
    assert found is not None
    assert (found.value, found.source) == (KEY, f"VLLM_API_KEY of {file}")
    assert KEY not in repr(found)
    chosen, url_from = credentials.addressed(loading.load(["model=tiny", "server.url=https://other"]))
    assert (chosen.external_url, url_from) == ("https://other", "server.url")
    assert credentials.addressed(loading.load(["model=stub"]))[0].external_url is None


@pytest.mark.parametrize(
    "line",
    [
        'export VLLM_API_KEY="abc"',
        "export  VLLM_API_KEY='abc'",
        "export\tVLLM_API_KEY=abc",
        "  export VLLM_API_KEY = abc  ",
        'VLLM_API_KEY="abc"  # mine',
        "VLLM_API_KEY=abc # mine",
        "VLLM_API_KEY = abc",
    ],
)
def test_a_line_of_the_secrets_file_is_read_as_a_shell_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("ICM_SECRETS", str(secrets_file(tmp_path, line)))
    found = credentials.find("VLLM_API_KEY")
    assert found is not None
    assert found.value == "abc"


@pytest.mark.parametrize(
    "line",
    [
        *(
            "export VLLM_API_KEY",
            'VLLM_API_KEY="abc',
            'VLLM_API_KEY=abc"',
            "setenv VLLM_API_KEY=abc",
            "VLLM API KEY=abc",
        ),
        *("VLLM_API_KEY=$(cat abc)", 'VLLM_API_KEY="${abc}"', "VLLM_API_KEY=`abc`", "export: abc", "=abc"),
    ],
)
def test_a_line_of_the_secrets_file_that_cannot_be_read_is_refused_by_its_number_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("ICM_SECRETS", str(secrets_file(tmp_path, "# mine", line)))
    with pytest.raises(ConfigError, match="line 2: ") as refused:
        credentials.find("VLLM_API_KEY")
    assert "abc" not in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "mode", "told"),
    [
        (["VLLM_API_KEY=k"], 0o640, r"others may use it \(mode 0640\), so no key is taken from it: chmod 600 "),
        (["VLLM_API_KEY=k"], 0o602, r"others may use it \(mode 0602\)"),
        (["VLLM_API_KEY=k", "sk-secret"], 0o600, "line 2: is not NAME=value$"),
    ],
)
def test_a_secrets_file_that_is_not_safe_is_refused_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], mode: int, told: str
) -> None:
    monkeypatch.setenv("ICM_SECRETS", str(secrets_file(tmp_path, *lines, mode=mode)))
    with pytest.raises(ConfigError, match=told) as refused:
        credentials.find("VLLM_API_KEY")
    assert "sk-secret" not in str(refused.value)


def test_a_secrets_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICM_SECRETS", str(secrets_file(tmp_path, "VLLM_API_KEY=k")))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match="is not your file"):
        credentials.find("VLLM_API_KEY")


def test_a_named_secrets_file_that_is_not_there_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICM_SECRETS", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="nowhere: there is no such file"):
        credentials.find("VLLM_API_KEY")
