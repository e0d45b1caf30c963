"""A memo's file that is damaged or lost costs requests, never the state; one that cannot be read stops the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icm_hpc.errors import CheckpointError
from icm_hpc.rundir import checkpoint
from tests.rundir.test_checkpoint import MARK, MEMO, content, memo_after, memo_of, same, save_step, saved, state


def flip_a_bit(file: Path) -> None:
    """Damage the last of its pieces."""
    held = bytearray(file.read_bytes())
    held[-1] ^= 1
    file.write_bytes(held)


def cut(file: Path) -> None:
    """Cut off half of it."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink])
def test_the_search_goes_on_from_its_newest_state_and_the_next_save_begins_a_memo_that_is_whole(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 4)
    damage(tmp_path / MEMO)
    loaded = checkpoint.load(tmp_path, MARK, patient=True)
    assert loaded
    assert same(loaded.state, state(3))
    assert "is asked again" in caplog.text
    whole = dict(content(memo_after(4)))
    assert dict(content(memo_of(loaded))).items() <= whole.items(), "what is read is what was saved"
    save_step(tmp_path, 4)
    caplog.clear()
    again = checkpoint.load(tmp_path, MARK)
    assert again
    assert same(again.state, state(4))
    assert len(content(memo_of(again))) > 0
    assert caplog.text == ""


@pytest.mark.parametrize("name", [MEMO, "state-00000004.h5"])
def test_what_is_there_and_cannot_be_read_is_refused_with_a_remedy(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 4)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: Is a directory; repair that, or move it away"):
        checkpoint.load(tmp_path, MARK, patient=True)
    (tmp_path / name).rmdir()
    assert checkpoint.load(tmp_path, MARK, patient=True)
