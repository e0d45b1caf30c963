"""Saved state: whole or not there, and the newest that is whole is the one that is read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc import checkpoint
from icm_hpc.checkpoint import Trace
from icm_hpc.core.types import Labelling, State, StepInfo, frozen_labels
from icm_hpc.errors import CheckpointError
from icm_hpc.memo import KEY_BYTES, Remembered

MARK = '{"search.seed": 0}'


def state(step: int) -> State:
    """Return a state that differs from those of other steps in everything."""
    rng = np.random.default_rng(step)
    now, best = (
        Labelling(frozen_labels(rng.integers(-1, 2, 6)), rng.normal(size=(6, 2)), float(rng.normal())) for _ in range(2)
    )
    return State(step=step, flips=step // 2, current=now, best=best)


def remembered(step: int) -> Remembered:
    """Return a memo that differs from those of other steps."""
    rng = np.random.default_rng(step)
    lengths = rng.integers(1, 7, size=step)
    keys = rng.integers(0, 256, size=(step, KEY_BYTES), dtype=np.uint8)
    return Remembered(keys, lengths, rng.normal(size=(int(lengths.sum()), 2)))


def saved(folder: Path, steps: int) -> list[Path]:
    """Save a generation a step."""
    with Trace(folder, None) as trace:
        for step in range(steps):
            info = StepInfo(step=step, energy=0.0, flips=0, pool=6, counts=(3, 3), conflicts=0)
            trace.append(info)
            checkpoint.save(folder, state(step), remembered(step), trace, MARK)
    return checkpoint.generations(folder)


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
    for name in ("keys", "lengths", "rows"):
        np.testing.assert_array_equal(getattr(loaded.memo, name), getattr(remembered(4), name))
    assert len(list(checkpoint.read_trace(tmp_path))) == 5


def test_three_generations_are_kept_and_nothing_else(tmp_path: Path) -> None:
    files = saved(tmp_path, 9)
    assert len(files) == 3
    assert sorted(tmp_path.iterdir()) == [*files, tmp_path / "trace.jsonl"]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_generation_gives_way_to_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, cut: bool
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
    untouched = not cut and len(checkpoint.MAGIC) + 65 <= at < checkpoint.USER_BLOCK
    assert same(loaded.state, state(2 if untouched else 1))


def test_without_a_whole_generation_the_run_is_refused_and_not_begun_anew(tmp_path: Path) -> None:
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
    loaded = checkpoint.load(tmp_path, MARK)
    with Trace(tmp_path, loaded) as trace:
        trace.append(StepInfo(step=2, energy=0.0, flips=0, pool=6, counts=(3, 3), conflicts=0))
        checkpoint.save(tmp_path, state(2), remembered(2), trace, MARK)
    assert [line["step"] for line in checkpoint.read_trace(tmp_path)] == [0, 1, 2]
