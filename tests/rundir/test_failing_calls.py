"""Each call to the file system fails once, in a save, a load or a poll: nothing saved is lost, nothing half-written is read."""

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from icm_hpc.errors import CheckpointError, ConfigError
from icm_hpc.rundir import checkpoint
from icm_hpc.rundir.folder import Endpoint, RunDir
from icm_hpc.rundir.polling import TRANSIENT, Polled
from icm_hpc.rundir.saves import Saves
from tests.rundir.fuse_disk import Mounted, mounted_or_skipped
from tests.rundir.test_checkpoint import MARK, content, memo_after, memo_of, same, save, save_step, saved, state

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "EROFS")


@pytest.fixture(scope="module")
def disk() -> Iterator[Mounted]:
    """A disk on which a search has saved four steps; `restore` brings it back to that."""
    for found in mounted_or_skipped():
        (found.folder / "shard").mkdir()
        saved(found.folder / "shard", 4)
        found.tell("keep it")
        yield found


def failures(disk: Mounted, do: Callable[[], object]) -> Iterator[tuple[str, str]]:
    """Yield once for each call that `do` makes, and each error: the disk is as it was, and that call will fail.

    What is yielded are the error and a name of the case.
    """
    disk.tell("restore it")
    disk.tell("calm down")
    do()
    for number in range(1, disk.calls()[0] + 1):
        for error in ERRORS:
            disk.tell("restore it")
            disk.tell(f"fail {number} {error}")
            yield error, f"call {number}, {error}"
            disk.tell("calm down")


def test_a_save_that_fails_at_any_call_leaves_the_state_before_or_after_it_and_the_next_one_works(
    disk: Mounted,
) -> None:
    folder = disk.folder / "shard"
    loaded = checkpoint.load(folder, MARK)
    outcomes: Counter[tuple[str, str]] = Counter()

    def save_once() -> None:
        with Saves(folder, MARK, loaded) as saves:
            save(saves, memo_of(loaded), 4)

    for error, case in failures(disk, save_once):
        try:
            save_once()
            ended = "saved"
        except (CheckpointError, OSError) as failure:
            passes = getattr(errno, error) in TRANSIENT
            ended = {CheckpointError: "refused", OSError: "to be repeated"}[type(failure)]
            if passes != (ended == "to be repeated") or os.strerror(getattr(errno, error)) not in str(failure):
                raise AssertionError(case) from failure
        _, call = disk.calls()
        disk.tell("calm down")
        found = checkpoint.load(folder, MARK)
        assert found, case
        reached = found.state.step
        assert reached == 4 if ended == "saved" else reached in {3, 4}, case
        assert same(found.state, state(reached)), case
        assert content(memo_of(found)) == content(memo_after(reached + 1)), case
        save_step(folder, reached + 1)
        again = checkpoint.load(folder, MARK)
        assert again, case
        assert content(memo_of(again)) == content(memo_after(reached + 2)), case
        outcomes[call, f"{ended}, {'the new' if reached == 4 else 'the old'} state"] += 1
    print(*sorted(outcomes.items()), sep="\n")
    assert {"write", "fsync", "rename", "create"} <= {
        call for call, ended in outcomes if ended == "refused, the old state"
    }
    assert {call for call, ended in outcomes if ended == "refused, the new state"} == {"fsyncdir"}


def test_a_load_that_fails_at_any_call_gives_the_newest_state_or_an_error(disk: Mounted) -> None:
    folder = disk.folder / "shard"
    outcomes: Counter[tuple[str, str]] = Counter()
    for _, case in failures(disk, lambda: checkpoint.load(folder, MARK, patient=True)):
        try:
            found = checkpoint.load(folder, MARK, patient=True)
        except (OSError, CheckpointError) as error:
            outcomes[disk.calls()[1], type(error).__name__] += 1
        else:
            assert found, case
            assert same(found.state, state(3)), case
            assert content(memo_of(found)) == content(memo_after(4)), case
            outcomes[disk.calls()[1], "loaded"] += 1
        disk.tell("calm down")
        newest = checkpoint.load(folder, MARK)
        assert newest, case
        assert same(newest.state, state(3)), f"{case}: nothing is set aside"
    print(*sorted(outcomes.items()), sep="\n")


def test_a_poll_that_fails_at_any_call_keeps_what_was_read_last(disk: Mounted) -> None:
    run_dir = RunDir(disk.folder / "run")
    run_dir.create()
    endpoint = Endpoint("a", 0, ("localhost",), 1, key="k", model="stub")
    run_dir.write_endpoint(endpoint)
    disk.tell("keep it")
    for error, case in failures(disk, lambda: run_dir.read_endpoint("a")):
        polled = Polled(lambda: run_dir.read_endpoint("a"), None)
        try:
            assert polled() in (None, endpoint), case
        except OSError:
            assert getattr(errno, error) not in TRANSIENT, case
        disk.tell("calm down")
        assert polled() == endpoint, case


def test_a_folder_that_was_not_synced_when_it_was_made_is_synced_when_it_is_used_again(disk: Mounted) -> None:
    run_dir, endpoint = RunDir(disk.folder / "runs" / "new"), Endpoint("a", 0, ("localhost",), 1, key="k", model="stub")

    def start() -> None:
        run_dir.create()
        run_dir.write_endpoint(endpoint)

    for _, case in failures(disk, start):
        with contextlib.suppress(OSError, ConfigError):
            start()
        start()
        disk.tell("cut the power")
        assert run_dir.read_endpoint("a") == endpoint, case
