"""A run on a disk that forgets what was not synced: it is killed, its power is cut, and it starts again, until it ends.

The disk kills the driver at a call that changes something, drawn at random, before that is done.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.driver import run
from icm_hpc.rundir import attempts, checkpoint, lock, outcome, progress
from icm_hpc.rundir.checkpoint import Saved
from icm_hpc.rundir.folder import Endpoint, RunDir, ServedModel
from icm_hpc.rundir.logs import log_to_files
from icm_hpc.scoring import connect, identity
from tests import offline
from tests.driver.test_power_cuts import ENDPOINT, Slow, results
from tests.rundir.fuse_disk import Mounted, mounted_or_skipped

WANTED = os.environ.get("ICM_POWER_CUTS", "")
CUTS = int(WANTED) if WANTED.isdigit() else 300 if WANTED == "all" else 24
SHARE_CUT = 0.7  # of the kills; after the others the machine goes on, and what was not synced is lost at a later one
ARGUMENTS = ("task.limit=16", "search.pool_size=4", "search.restarts=2", "search.scorings=16", "run.save_interval_s=0")


@pytest.fixture(scope="module")
def disk() -> Iterator[Mounted]:
    """A disk with nothing on it."""
    yield from mounted_or_skipped()


class Quick(Slow):
    """Leaves less time."""

    pause_s = 0.005


class Diary:
    """What a driver has noted before it was killed, on another disk, which loses nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, kind: str, *of: Any) -> None:
        """Add an entry."""
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps([kind, *of]).encode() + b"\n")

    def take(self) -> list[list[Any]]:
        """Return the entries, and forget them."""
        entries = [json.loads(line) for line in self._path.read_bytes().splitlines()]
        self._path.write_bytes(b"")
        return entries


def drive(folder: Path, diary: Diary, boot: int, number: int) -> None:
    """Start the run, or go on with it, to its end: all that a driver does, with answers but without a server."""
    patch = pytest.MonkeyPatch()  # for as long as this process lasts
    noting(diary, patch)
    # After a power cut the boot id is another one: the driver waits for a heartbeat of the holder, here not for half a minute.
    patch.setattr(lock, "_machine", lambda: f"boot {boot}")
    patch.setattr(lock, "HEARTBEAT_S", 0.1)
    patch.setattr(lock, "LEASE_S", 0.2)
    patch.setattr(lock, "SETTLE_S", 0.02)
    patch.setattr(progress, "REPORT_S", 0.2)
    config, run_dir, _ = offline.prepare(folder, *ARGUMENTS)
    log_to_files(run_dir)
    attempt = f"start {number}"
    run_dir.write_endpoint(Endpoint(**{**asdict(ENDPOINT), "attempt": attempt}))
    with progress.to_file(run_dir, attempt) as watch:
        run.drive(config, run_dir, attempt=attempt, watch=watch)


@asynccontextmanager
async def connected(*_: Any) -> AsyncIterator[Quick]:
    """Yield a client of no server."""
    yield Quick()


async def served(*_: Any) -> ServedModel:
    """Return whose scores its answers are."""
    return ServedModel("stub")


def noting(diary: Diary, patch: pytest.MonkeyPatch) -> None:
    """Note what this process has saved once that is reported, and what it finds; there is no server."""
    save, load, save_outcome, load_outcome = checkpoint.save, checkpoint.load, outcome.save, outcome.load

    def saved(folder: Path, number: int, what: Saved) -> Path:
        path = save(folder, number, what)
        diary.note("saved", folder.name, number, content(what))
        return path

    def loaded(folder: Path, *more: Any, **options: Any) -> Saved | None:
        found = load(folder, *more, **options)
        number = checkpoint.next_number(folder) - 1
        diary.note("loaded", folder.name, number, found and content(found))
        diary.note("memo loaded", folder.name, found is None or found.memo_first_bytes is not None)
        return found

    def outcome_saved(folder: Path, *more: Any) -> None:
        save_outcome(folder, *more)
        diary.note("outcome saved", folder.name)

    def outcome_loaded(folder: Path, *more: Any) -> Any:
        found = load_outcome(folder, *more)
        diary.note("outcome loaded", folder.name, found is not None)
        return found

    def recorded(run_dir: RunDir, attempt: str) -> int:
        place = attempts.record_attempt(run_dir, attempt)
        diary.note("start", place)
        return place

    patch.setattr(connect, "connected", connected)
    patch.setattr(identity, "of_server", served)
    patch.setattr(run, "record_attempt", recorded)
    patch.setattr(checkpoint, "save", saved)
    patch.setattr(checkpoint, "load", loaded)
    patch.setattr(outcome, "save", outcome_saved)
    patch.setattr(outcome, "load", outcome_loaded)


def content(saved: Saved) -> list[Any]:
    """Return what tells a generation from others."""
    step = saved.reached.step if saved.reached else -1
    place = [saved.memo_place.number, saved.memo_place.size] if saved.memo_place else None
    return [step, saved.scorings, saved.trace_bytes, saved.trace_sha256, place]


@dataclass
class Reported:
    """What a run has reported as saved."""

    saved: dict[str, tuple[int, list[Any]]] = field(default_factory=dict)  # by folder: the last generation
    finished: set[str] = field(default_factory=set)  # shards
    starts: int = 0

    def require(self, entries: list[list[Any]], case: str) -> None:
        """Check that a start found what was reported as saved, or what was being saved after it; add what it reports."""
        for kind, *of in entries:
            if kind == "saved":
                self.saved[of[0]] = (of[1], of[2])
            elif kind == "loaded":
                number, held = self.saved.get(of[0], (0, None))
                assert of[1] >= number, f"{case}: {of[0]} went on from generation {of[1]}, but {number} was saved"
                assert of[1] > number or of[2] == held, f"{case}: generation {number} of {of[0]} is another"
            elif kind == "memo loaded":
                assert of[1], f"{case}: the memo of {of[0]} is not whole"
            elif kind == "outcome saved":
                self.finished.add(of[0])
            elif kind == "outcome loaded":
                assert of[1] or of[0] not in self.finished, f"{case}: the outcome of {of[0]} is lost"
            elif kind == "start":
                assert of[0] >= self.starts, f"{case}: starts are lost from provenance.json"
                self.starts = of[0] + 1


def started(folder: Path, diary: Diary, reported: Reported, case: str, *, boot: int, number: int) -> bool:
    """Return whether a start of the driver, in a process of its own, reached the end of the run; else it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            drive(folder, diary, boot, number)
        except BaseException:
            diary.note("failed", traceback.format_exc())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    entries = diary.take()
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), entries[-1]
    reported.require(entries, case)
    return status == 0


def test_a_run_whose_power_is_cut_again_and_again_ends_as_the_undisturbed_one(tmp_path: Path, disk: Mounted) -> None:
    _, undisturbed, _ = asyncio.run(offline.label(tmp_path / "undisturbed", *ARGUMENTS))
    expected, diary = results(undisturbed), Diary(tmp_path / "diary")
    run_dir = RunDir(disk.folder / "test")
    disk.tell("keep nothing")
    assert started(disk.folder, diary, Reported(), "undisturbed", boot=0, number=0)
    (calls, _), (changes, _) = disk.calls(), disk.changes()
    assert (results(run_dir) == expected) is True
    cuts = kills = runs = 0
    at: Counter[str] = Counter()
    while cuts < CUTS:
        draws, reported, boot = random.Random(runs), Reported(), 0
        disk.tell("restore nothing")
        for number in itertools.count():
            moment = draws.randint(1, changes)
            case = f"run {runs}, start {number}, killed at change {moment}"
            disk.tell(f"kill {moment}")
            if started(disk.folder, diary, reported, case, boot=boot, number=number):
                break
            kills += 1
            at[disk.changes()[1]] += 1
            if draws.random() < SHARE_CUT:
                disk.tell("cut the power")
                cuts, boot = cuts + 1, boot + 1
        disk.tell("cut the power")
        cuts, runs = cuts + 1, runs + 1
        assert (results(run_dir) == expected) is True, case
    print(
        f"{runs} runs of {calls} calls ({changes} of them changes), {kills} kills, {cuts} cuts; killed at: {dict(at)}"
    )
    assert kills > runs, "a run is cut more than once"
