"""What is looked for in the user's home folder, where there is none; and names that file systems can hold."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.config import credentials, home, loading
from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import ConfigError, ServerError
from icm_hpc.jobs import launch
from icm_hpc.serving import weights
from icm_hpc.tasks import files

MODEL = loading.load(["model=8B"]).model


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in passwd, as in a container."""

    def unknown(_: int) -> Any:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "ICM_CACHE", "ICM_SECRETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "getuid", lambda: 12345)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    ("look", "variable"),
    [
        (weights.cache_folder, "ICM_CACHE"),
        (lambda: weights.hub_cache(MODEL), "HF_HOME"),
        (credentials.secrets_file, "ICM_SECRETS"),
        (lambda: credentials.addressed(loading.load(["model=8B"])), "ICM_SECRETS"),
        (lambda: files.read(TaskConfig(name="claims", data="~/a.jsonl"), None), "task.data without ~"),
        (lambda: launch.named(loading.load(["run.root=~/runs"])), "run.root without ~"),
        (lambda: loading.load(["cluster=~/site.yaml"]), "a path without ~"),
    ],
)
def test_without_a_home_folder_one_line_says_what_to_set(look: Callable[[], object], variable: str) -> None:
    with pytest.raises(ConfigError, match=f"no home folder is known .*: set {variable}") as refused:
        look()
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_what_is_set_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ICM_CACHE", "HF_HOME", "ICM_SECRETS"):
        monkeypatch.setenv(name, f"/of/{name}")
    assert weights.cache_folder() == Path("/of/ICM_CACHE/models-2")
    assert weights.hub_cache(MODEL) == Path("/of/HF_HOME/hub")
    assert credentials.secrets_file() == Path("/of/ICM_SECRETS")


def test_a_cache_folder_that_cannot_be_made_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ICM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ServerError, match=r"cannot be made: .*set ICM_CACHE"):
        weights.locate(loading.load(["model=tiny"]).model)


def test_a_run_name_over_200_letters_is_refused() -> None:
    assert loading.load([f"run.name={'a' * 200}"]).run.name == "a" * 200
    with pytest.raises(ConfigError, match=r"name=a+\.\.\.: has 201 letters; 200 or fewer"):
        loading.load([f"run.name={'a' * 201}"])


@pytest.mark.parametrize("model", ["a" * 250, "meta-llama/Llama-3.1-8B"])
def test_a_run_name_that_is_made_up_is_one_that_may_be_given(model: str) -> None:
    name = launch.named(loading.load(["model=stub", f"model.name={model}"])).run.name
    assert loading.load([f"run.name={name}"]).run.name == name


def test_a_home_folder_of_nobody_is_reported_by_its_name() -> None:
    with pytest.raises(ConfigError, match="~nosuchuser/x: there is no user nosuchuser with a home folder: set it"):
        home.expanded("~nosuchuser/x", instead="it")
