"""What is read of a run's settings without all of them."""

from pathlib import Path

import pytest

from icm_hpc.config import glance, loading
from icm_hpc.config.schema import Config
from icm_hpc.errors import ConfigError

OURS, THEIRS = "is started", "runs already"
URL = "http://localhost:8000"


def saved(folder: Path, *words: str) -> Path:
    """Return a file of settings as a run has it."""
    path = folder / "config.yaml"
    path.write_text(loading.to_yaml(loading.load([*words])))
    return path


@pytest.mark.parametrize(
    ("words", "server"),
    [
        (("model=stub",), OURS),
        (("model=stub", f"server.url={URL}"), THEIRS),
        (("engine=openai", "model.name=gpt"), THEIRS),
        (("model=tiny", "model.env.A='x\n  engine: openai\n'", "cluster.setup=['server:', '  url: http://a']"), OURS),
        (("model=tiny", f"server.url={URL}/{'long/' * 60}"), THEIRS),
    ],
)
def test_a_glance_at_the_settings_agrees_with_reading_all(tmp_path: Path, words: tuple[str, ...], server: str) -> None:
    path = saved(tmp_path, *words)
    assert (loading.load_file(path).external_url is not None) == (server == THEIRS)
    assert glance.has_external_server(path) == (server == THEIRS)


@pytest.mark.parametrize("style", ["quoted", "with a comment", "earlier format"])
def test_settings_that_a_person_has_edited_are_read_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    path = saved(tmp_path, "model=stub", f"server.url={URL}")
    text = path.read_text()
    edits = {
        "quoted": text.replace(f"url: {URL}", f"url: '{URL}'"),
        "with a comment": text.replace(f"url: {URL}", f"url: {URL} # mine"),
        "earlier format": text.replace(f"format: {loading.FORMAT}\n", ""),
    }
    path.write_text(edits[style])
    parsed = []
    load = loading.load_file

    def counted(file: Path) -> Config:
        parsed.append(file)
        return load(file)

    monkeypatch.setattr(loading, "load_file", counted)
    assert glance.has_external_server(path)
    assert parsed == [path]


@pytest.mark.parametrize("text", ["", "server: [\n", "format: 99\nserver:\n  url: null\nmodel:\n  engine: stub\n"])
def test_settings_that_cannot_be_read_are_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        glance.has_external_server(path)
