"""After a power cut at any moment, whatever of the unsynced writes arrived, a search finds its last save, or a newer one."""

from collections import Counter
from pathlib import Path

import pytest

from icm_hpc.rundir import checkpoint, memo_file
from icm_hpc.rundir.saves import Saves
from tests.rundir.power_cuts import Disk, Event, Recorder, crash_states, make, recorded
from tests.rundir.test_checkpoint import MARK, content, memo_after, memo_of, same, save, save_step, state


def states_of(*events: Event) -> set[tuple[tuple[str, bytes], ...]]:
    """Return what files a power cut may leave after some events in the folder /f, which is safe."""
    disk = Disk()
    for event in (Event("mkdir", "/f"), Event("sync all"), *events):
        disk.do(event)
    return {tuple(sorted(files.items())) for _, files in disk.states()}


def test_a_file_that_was_not_synced_may_be_missing_empty_or_torn() -> None:
    found = states_of(Event("write", "/f/a", b"ab"))
    assert found == {(), (("/f/a", b""),), (("/f/a", b"a"),), (("/f/a", b"ab"),), (("/f/a", b"\0\0"),)}


def test_a_name_is_safe_once_its_folder_was_synced() -> None:
    written = (Event("write", "/f/.a", b"ab"), Event("sync", "/f/.a"), Event("rename", "/f/.a", "/f/a"))
    assert states_of(*written) == {(), (("/f/.a", b"ab"),), (("/f/a", b"ab"),)}
    assert states_of(*written, Event("sync", "/f")) == {(("/f/a", b"ab"),)}


def test_a_rename_that_overtakes_the_data_leaves_an_empty_file() -> None:
    written = (Event("write", "/f/.a", b"ab"), Event("rename", "/f/.a", "/f/a"), Event("sync", "/f"))
    assert (("/f/a", b""),) in states_of(*written)


def saved(recorder: Recorder, folder: Path, steps: int) -> None:
    """Save a generation a step, and note when each was saved."""
    memo = memo_of(None)
    with Saves(folder, MARK, None) as saves:
        for step in range(steps):
            save(saves, memo, step)
            recorder.mark(step)


def test_from_every_state_a_power_cut_may_leave_the_last_save_or_a_newer_one_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo_file, "SLACK_BYTES", 0)  # the memo's file is begun again and again
    root = tmp_path / "run"
    (root / "shard").mkdir(parents=True)
    events = recorded(root, lambda recorder: saved(recorder, root / "shard", 8))
    assert len({event.path for event in events if "memo-" in event.path}) > 2
    outcomes: Counter[str] = Counter()
    for number, (marks, folders, files) in enumerate(crash_states(events)):
        place = tmp_path / str(number)
        make(root, place, folders, files)
        steps = [mark for mark in marks if mark != "end"]
        loaded = checkpoint.load(place / "shard", MARK)
        reached = loaded.state.step if loaded else -1
        assert reached >= (steps[-1] if steps else -1)
        if loaded:
            assert same(loaded.state, state(reached))
            outcomes["the last save" if steps and reached == steps[-1] else "the save under way"] += 1
        assert content(memo_of(loaded)) == content(memo_after(reached + 1))
        save_step(place / "shard", reached + 1)
        again = checkpoint.load(place / "shard", MARK)
        assert again
        assert content(memo_of(again)) == content(memo_after(reached + 2))
    assert outcomes["the last save"] > 150
    assert outcomes["the save under way"]
