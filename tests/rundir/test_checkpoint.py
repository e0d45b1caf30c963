"""Saved state: written atomically, and the newest complete one is read."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from icm_hpc.core.memo import ENTRY_BYTES, KEY_BYTES, Memo
from icm_hpc.core.types import Labelling, LabelNumber, State, StepInfo, bytes_of, frozen_labels
from icm_hpc.errors import CheckpointError
from icm_hpc.rundir import checkpoint, sealed
from icm_hpc.rundir.checkpoint import Saved
from icm_hpc.rundir.saves import Saves
from icm_hpc.rundir.trace import Trace, read_trace
from tests.conftest import unavailable

MARK = '{"search.seed": 0}'
MEMO = "memo-00000001.bin"


def state(step: int) -> State:
    """Return a state that differs from those of other steps in everything."""
    rng = np.random.default_rng(step)
    now, best = (
        Labelling(frozen_labels(rng.integers(-1, 2, 6)), rng.normal(size=(6, 2)), float(rng.normal())) for _ in range(2)
    )
    return State(step=step, flips=step // 2, current=now, best=best)


def memo_of(loaded: Saved | None) -> Memo:
    """Return a memo as it was saved; it is full after some steps."""
    return Memo(5 * (32 + ENTRY_BYTES), purposes_differ=False, remembered=loaded.memo if loaded else ())


def learn(memo: Memo, step: int) -> None:
    """Do with a memo what another step does not: learn something, and use something."""
    rng = np.random.default_rng(step)
    memo[bytes(rng.integers(0, 256, KEY_BYTES, dtype=np.uint8))] = rng.normal(size=(2, 2))
    if step >= 3:
        memo.get(bytes(np.random.default_rng(step - 3).integers(0, 256, KEY_BYTES, dtype=np.uint8)))


def content(memo: Memo) -> list[tuple[bytes, bytes]]:
    """Return all that a memo holds, in its order."""
    return [(key, rows.tobytes()) for key, rows in memo._held.items()]


def memo_after(steps: int) -> Memo:
    """Return the memo of a search that was never stopped."""
    memo = memo_of(None)
    for step in range(steps):
        learn(memo, step)
    return memo


def save(saves: Saves, memo: Memo, step: int) -> None:
    """Do a step and save it."""
    saves.append(StepInfo(step=step, energy=0.0, flips=0, pool=6, counts=(3, 3), conflicts=0))
    learn(memo, step)
    saves.save(saves.snapshot(state(step), memo, n_labels=2))


def saved(folder: Path, steps: int) -> list[Path]:
    """Save a generation a step."""
    folder.mkdir(exist_ok=True)
    memo = memo_of(None)
    with Saves(folder, MARK, None) as saves:
        for step in range(steps):
            save(saves, memo, step)
    return checkpoint.generations(folder)


def files_of(folder: Path) -> list[str]:
    """Return the names of all files."""
    return sorted(path.name for path in folder.iterdir())


def same(a: State, b: State) -> bool:
    """Return whether two states are equal in every bit."""
    return flat(a) == flat(b)


def flat(state: State) -> list[object]:
    """Return all that a state holds, in a form that compares."""
    labellings = (state.current, state.best)
    return [state.step, state.flips, *((x.labels.tolist(), x.scores.tobytes(), x.energy) for x in labellings)]


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    loaded = checkpoint.load(tmp_path, MARK)
    assert loaded is not None
    assert same(loaded.state, state(4))
    assert content(memo_of(loaded)) == content(memo_after(5))
    assert len(list(read_trace(tmp_path))) == 5


@pytest.mark.parametrize("item_type", [np.int8, np.int16])
def test_labels_that_an_earlier_version_saved_in_a_byte_each_are_the_same_labels(
    tmp_path: Path, item_type: Any
) -> None:
    now = state(0)
    labelling = replace(now.current, labels=now.current.labels.astype(item_type))
    with Saves(tmp_path, MARK, None) as saves:
        saves.append(StepInfo(step=0, energy=0.0, flips=0, pool=6, counts=(3, 3), conflicts=0))
        saves.save(saves.snapshot(replace(now, current=labelling, best=labelling), memo_of(None), n_labels=2))
    loaded = checkpoint.load(tmp_path, MARK)
    assert loaded is not None
    for found in (loaded.state.current.labels, loaded.state.best.labels):
        assert (found.tolist(), found.dtype == LabelNumber) == (now.current.labels.tolist(), True)
        assert bytes_of(found) == bytes_of(labelling.labels) == now.current.labels.astype(np.int8).tobytes()


def test_a_long_trace_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 50)
    loaded = checkpoint.load(tmp_path, MARK)
    assert loaded is not None
    sizes: list[int] = []
    sha256 = hashlib.sha256

    class Counted:
        def __init__(self, start: bytes = b"") -> None:
            self._digest = sha256(start)

        def update(self, chunk: bytes) -> None:
            sizes.append(len(chunk))
            self._digest.update(chunk)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr("icm_hpc.rundir.trace.PIECE", 100)
    monkeypatch.setattr(hashlib, "sha256", Counted)
    trace = Trace(tmp_path, loaded.trace_bytes)
    assert trace.sync(0) == (loaded.trace_bytes, loaded.trace_sha256)
    trace.close()
    assert sum(sizes) == loaded.trace_bytes
    assert max(sizes) == 100


def test_three_generations_are_kept_and_nothing_else(tmp_path: Path) -> None:
    files = saved(tmp_path, 9)
    assert len(files) == 3
    assert files_of(tmp_path) == [MEMO, *(path.name for path in files), "trace.jsonl"]


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_generation_gives_way_to_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, *, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    newest = saved(folder, 3)[-1]
    content = bytearray(newest.read_bytes())
    at = int(place * len(content))
    content[at] ^= 1 << bit
    newest.write_bytes(content[:at] if cut else content)
    loaded = checkpoint.load(folder, MARK)
    assert loaded is not None
    # Between the checksum line and byte 512 is padding that says nothing.
    untouched = not cut and len(sealed.MAGIC) + 65 <= at < sealed.USER_BLOCK
    assert same(loaded.state, state(2 if untouched else 1))


def test_without_a_whole_generation_the_run_is_refused_and_not_begun_again(tmp_path: Path) -> None:
    for path in saved(tmp_path, 4):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no generation in .* is whole"):
        checkpoint.load(tmp_path, MARK)


def test_another_configuration_is_refused_by_the_keys_that_differ(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"search\.seed: 0 there, 1 here"):
        checkpoint.load(tmp_path, '{"search.seed": 1}')


def test_a_trace_longer_than_the_state_is_cut_to_it(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    with (tmp_path / "trace.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "half')
    save_step(tmp_path, 2)
    assert [line["step"] for line in read_trace(tmp_path)] == [0, 1, 2]


def save_step(folder: Path, step: int) -> None:
    """Go on from what is saved by one step, as a driver that has just started does."""
    loaded = checkpoint.load(folder, MARK)
    with Saves(folder, MARK, loaded) as saves:
        save(saves, memo_of(loaded), step)


def killed_at_line(folder: Path, step: int, line: int) -> bool:
    """Save in a process that is killed outright at a line of the code that saves; return whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if event == "line" and "icm_hpc" in frame.f_code.co_filename:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            save_step(folder, step)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_save_that_is_killed_at_a_line_leaves_the_state_before_or_after_it(tmp_path: Path) -> None:
    saved(tmp_path / "before", 4)
    for line in range(0, 1000, 3):
        folder = tmp_path / str(line)
        shutil.copytree(tmp_path / "before", folder)
        if not killed_at_line(folder, 4, line):
            break
        loaded = checkpoint.load(folder, MARK)
        assert loaded is not None
        assert any(same(loaded.state, state(step)) for step in (3, 4))
        after = loaded.state.step + 1
        save_step(folder, after)
        assert [line["step"] for line in read_trace(folder)] == list(range(after + 1))
        assert len(checkpoint.generations(folder)) == checkpoint.KEEP
        assert content(memo_of(checkpoint.load(folder, MARK))) == content(memo_after(after + 1))
        generations = [path.name for path in checkpoint.generations(folder)]
        assert files_of(folder) == [MEMO, *generations, "trace.jsonl"], "no halves are left"
    assert 50 < line < 999, "the lines of a save were traced, up to its end"


class SavesKillsAndLoads(RuleBasedStateMachine):
    """A driver that saves and is killed, a disk that spoils what is newest: what is loaded was saved, and little is lost."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.steps = 0  # saved for good
        self.whole: list[int] = []  # steps whose generations are whole, the oldest first

    def teardown(self) -> None:
        self._temporary.cleanup()

    @rule()
    def save(self) -> None:
        save_step(self.folder, self.steps)
        self.whole = [*self.whole, self.steps][-checkpoint.KEEP :]
        self.steps += 1

    @rule(line=st.integers(0, 150))
    def kill(self, line: int) -> None:
        killed_at_line(self.folder, self.steps, line)
        self._look()

    @precondition(lambda self: len(self.whole) > 1)
    @rule(share=st.floats(0, 1, exclude_max=True), cut=st.booleans())
    def spoil_the_newest(self, share: float, *, cut: bool) -> None:
        newest = checkpoint.generations(self.folder)[-1]
        content = bytearray(newest.read_bytes())
        at = sealed.USER_BLOCK + int(share * (len(content) - sealed.USER_BLOCK))
        content[at] ^= 1
        newest.write_bytes(content[:at] if cut else content)
        self.whole.pop()
        self._look()

    @precondition(lambda self: self.whole)
    @rule(added=st.binary(min_size=1, max_size=20))
    def spoil_the_end_of_the_trace(self, added: bytes) -> None:
        with (self.folder / "trace.jsonl").open("ab") as file:
            file.write(added)

    def _look(self) -> None:
        """Take over what is there now: a killed save may have come through, and has then thrown an old one away."""
        loaded = checkpoint.load(self.folder, MARK)
        self.steps = loaded.state.step + 1 if loaded else 0
        if loaded and loaded.state.step not in self.whole:
            self.whole = [*self.whole, loaded.state.step][-checkpoint.KEEP :]

    @invariant()
    def what_is_loaded_was_saved(self) -> None:
        loaded = checkpoint.load(self.folder, MARK)
        if not self.whole:
            assert loaded is None
            return
        assert loaded is not None
        assert same(loaded.state, state(self.whole[-1]))
        assert content(memo_of(loaded)) == content(memo_after(self.whole[-1] + 1))


TestSavesKillsAndLoads = SavesKillsAndLoads.TestCase
TestSavesKillsAndLoads.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


@contextmanager
def small_disk(kib: int) -> Iterator[Path]:
    """Yield a file system of its own that is soon full; needs root."""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder]
        mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
        if mounted.returncode:
            unavailable(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def saved_until_full(folder: Path) -> int:
    """Save step after step until it fails as it should; return the first that failed."""
    for step in range(1000):
        try:
            save_step(folder, step)
        except CheckpointError as error:
            if "No space left on device" not in str(error):
                raise
            return step
    raise AssertionError("the disk was never full")


def test_on_a_full_disk_a_save_fails_in_plain_words_and_the_state_before_is_kept() -> None:
    with small_disk(256) as folder:
        (folder / "filler").write_bytes(bytes(180 * 1024))
        step = saved_until_full(folder)
        loaded = checkpoint.load(folder, MARK)
        assert loaded is not None
        assert same(loaded.state, state(step - 1))
        (folder / "filler").unlink()
        save_step(folder, step)
        assert [line["step"] for line in read_trace(folder)] == list(range(step + 1))


def test_in_a_read_only_folder_a_save_fails_in_plain_words_and_the_state_before_is_kept() -> None:
    with small_disk(1024) as folder:
        save_step(folder, 0)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(CheckpointError, match="Read-only file system"):
            save_step(folder, 1)
        loaded = checkpoint.load(folder, MARK)
        assert loaded is not None
        assert same(loaded.state, state(0))


def test_a_checkpoint_of_another_schema_is_refused_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SCHEMA", 99)
    saved(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="a checkpoint of schema 99; this version reads 4"):
        checkpoint.load(tmp_path, MARK)


@pytest.mark.parametrize("locking", ["TRUE", "FALSE"])
def test_hdf5s_own_file_locking_changes_nothing(tmp_path: Path, locking: str) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.rundir import test_checkpoint as t; f = Path(sys.argv[1]);"
        "t.saved(f, 3); assert t.same(t.checkpoint.load(f, t.MARK).state, t.state(2))"
    )
    environment = {**os.environ, "HDF5_USE_FILE_LOCKING": locking}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, cwd=Path(__file__).parents[2], check=True
    )
