"""The files of a run's folder, damaged in many ways: what reads them shows what there is, or ends with one error."""

import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc import evaluate, export, report, status
from icm_hpc.config import loading
from icm_hpc.config.searching import method_of
from icm_hpc.core.types import State
from icm_hpc.driver.pools import task_of_run
from icm_hpc.errors import CheckpointError
from icm_hpc.monitoring import energies, screen, state, table
from icm_hpc.monitoring.finished import is_finished
from icm_hpc.reports import collect
from icm_hpc.rundir import checkpoint, lock, memo_file, outcome, sealed
from icm_hpc.rundir.attempts import attempts, scored_anything
from icm_hpc.rundir.folder import Endpoint, Rendezvous, RunDir, ServerExit, WordPrior
from tests.exports.runs import finished
from tests.fuzzing.mutations import accepted, damaged, fuzzed, mutated, to_json

WORDS = ("task.limit=12", "search.steps=12", "search.restarts=2")
ATTEMPT = "local-1-a"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Return a finished run with every file that a driver and a server leave."""
    run_dir = finished(tmp_path_factory.mktemp("runs"), *WORDS)
    run_dir.write_endpoint(Endpoint(ATTEMPT, 0, ("n1", "10.0.0.1"), 8000, "key", "m"))
    run_dir.write_server_exit(ServerExit(ATTEMPT, "it ended", told_to_stop=True))
    run_dir.write_rendezvous(Rendezvous(ATTEMPT, 0, "10.0.0.1", 1, 2))
    run_dir.write_rank_exit(ATTEMPT, 1, 0, "it ended")
    run_dir.want_restart(ATTEMPT, 0, "it hangs")
    run_dir.write_word_prior(WordPrior("\nSentiment:", {" a": -1.0, " b": -2.0}))
    return run_dir


def readers(run_dir: RunDir) -> Iterator[Callable[[], object]]:
    """Yield all that reads a run's folder and is not the driver itself."""
    config = loading.load_file(run_dir.config)
    yield lambda: [scored_anything(one) for one in attempts(run_dir)]
    yield lambda: table.lines([state.readable_status(run_dir)])
    yield lambda: status.print_json([state.readable_status(run_dir)])
    yield lambda: screen._one(state.readable_status(run_dir), run_dir, 80)
    yield lambda: collect.collect(run_dir)
    yield lambda: evaluate.figures_of_run(config, run_dir)
    yield lambda: is_finished(run_dir, config)
    yield lambda: task_of_run(run_dir)
    yield lambda: lock.read(run_dir.lock)
    yield run_dir.read_served_model
    yield run_dir.read_word_prior
    yield lambda: run_dir.read_endpoint(ATTEMPT)
    yield lambda: run_dir.read_server_exit(ATTEMPT)
    yield lambda: run_dir.read_rendezvous(ATTEMPT)
    yield lambda: run_dir.read_rank_exit(ATTEMPT, 1, 0)
    yield lambda: run_dir.read_restart_wanted(ATTEMPT, 0)
    for to in ("csv", "jsonl"):
        yield lambda to=to: exported(run_dir, to)  # type: ignore[misc]
    for trace in run_dir.path.glob("shard-*/trace.jsonl"):
        yield lambda trace=trace: energies.sparkline([e for _, e in energies.course(trace, 20)])  # type: ignore[misc]
    yield lambda: checkpoint.load_newest(run_dir.shard(0), method_of(config.search).state)


def exported(run_dir: RunDir, to: str) -> None:
    """Export a run."""
    options, _ = export.parsed([f"to={to}", f"out={run_dir.path.parent / 'out'}", "overwrite=true"])
    export.export(run_dir, options)


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Have a file hold something else for a while."""
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_bytes(before)


def require_readable(run_dir: RunDir) -> None:
    """Fail for a reader that does neither show what there is nor end with one error."""
    with redirect_stdout(io.StringIO()):
        for read in list(accepted(lambda: list(readers(run_dir))) or ()):
            accepted(read)


def files_of(run_dir: RunDir, *endings: str) -> list[Path]:
    """Return the files of a run by the ends of their names."""
    return sorted(path for path in run_dir.path.rglob("*") if path.is_file() and path.name.endswith(endings))


@given(data=st.data())
@fuzzed(40)
def test_json_of_a_run_with_other_values_is_shown_or_refused(run: RunDir, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files_of(run, ".json", ".jsonl")))
    if path.suffix == ".json":
        content = to_json(data.draw(mutated(json.loads(path.read_bytes()))))
    else:
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        changed = data.draw(mutated(lines[:3]))
        rest = [*changed, *lines[3:]] if isinstance(changed, list) else [changed, *lines]
        content = "".join(f"{to_json(line)}\n" for line in (rest if data.draw(st.booleans()) else rest[::-1]))
    with replaced(path, content.encode(errors="surrogatepass")):
        require_readable(run)


@given(data=st.data())
@fuzzed(40)
def test_a_damaged_file_of_a_run_is_shown_or_refused(run: RunDir, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files_of(run, ".json", ".jsonl", ".yaml", ".h5", ".bin", ".gz", ".lock")))
    with replaced(path, data.draw(damaged(path.read_bytes()))):
        require_readable(run)


@given(data=st.data())
@fuzzed(40)
def test_a_damaged_search_is_a_state_as_it_was_saved_or_one_error(run: RunDir, data: st.DataObject) -> None:
    kind = method_of(loading.load_file(run.config).search).state
    folder = run.shard(0)
    mark = read_saved(folder, kind)
    copy = run.path.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    path = data.draw(st.sampled_from(sorted(copy.iterdir())))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = accepted(lambda: checkpoint.load(copy, mark.fingerprint, kind=kind))
    if found is not None and found.reached is not None:
        assert np.isfinite(found.state.current.scores[found.state.current.labels >= 0]).all()
        assert all(np.isfinite(piece.rows).all() for piece in found.memo)


def read_saved(folder: Path, kind: type[State]) -> checkpoint.Saved:
    """Return the newest generation."""
    found = checkpoint.load_newest(folder, kind)
    assert found is not None
    return found


def changed_hdf5(content: bytes, change: Callable[[Any], None]) -> bytes:
    """Return a sealed file with another content, sealed as this program does it."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        change(file)
    body = buffer.getvalue()
    return resealed(body)


def resealed(content: bytes) -> bytes:
    """Return a file whose checksum is that of its content."""
    body = content[sealed.USER_BLOCK :]
    head = (sealed.MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n").ljust(sealed.USER_BLOCK, b"\0")
    return head + body


VALUES = (
    1,
    -1,
    2**62,
    float("nan"),
    "text",
    b"\xff",
    [1, 2],
    np.array([[1.5]]),
    np.zeros((0, 3)),
    np.array(["a"], dtype=object),
)


@given(data=st.data())
@fuzzed(40)
def test_a_sealed_file_of_other_values_is_refused_without_a_traceback(run: RunDir, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files_of(run, ".h5")))
    content = path.read_bytes()
    with h5py.File(io.BytesIO(content)) as file:
        names: list[str] = []
        file.visit(names.append)
        attributes = sorted(file.attrs)
    name = data.draw(st.sampled_from([*names, *(f"@{one}" for one in attributes)]))
    value = data.draw(st.sampled_from([None, "huge", *VALUES]))

    def change(file: Any) -> None:
        if name.startswith("@"):
            del file.attrs[name[1:]]
            if value is not None:
                file.attrs[name[1:]] = value
            return
        del file[name]
        if isinstance(value, str) and value == "huge":
            file.create_dataset(name, shape=(2**40,), dtype="f8", chunks=(1024,))
        elif value is not None:
            file[name] = value

    try:
        other = changed_hdf5(content, change)
    except (TypeError, ValueError, OSError):
        return
    with replaced(path, other):
        kind = method_of(loading.load_file(run.config).search).state
        accepted(lambda: checkpoint.load_newest(path.parent, kind))
        accepted(lambda: sealed_read(other))


def sealed_read(content: bytes) -> object:
    """Return what the outcome of a shard is said to be; of another file, an error."""
    try:
        return sealed.decoded(content, outcome._decoded)
    except (ValueError, KeyError, OSError) as error:  # what sealed.load sets aside
        raise CheckpointError(" ".join(str(error).split()) or "damaged") from error


@given(
    content=st.binary(max_size=200) | st.just(memo_file.MAGIC + b"\0" * 60).flatmap(damaged), size=st.integers(0, 2**40)
)
@fuzzed(200)
def test_a_memo_of_any_bytes_is_read_as_far_as_it_is_whole(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    memo_file.path_of(folder, 1).write_bytes(content)
    found = accepted(lambda: memo_file.read(folder, memo_file.Place(1, size), patient=False))
    assert found is not None
    assert found[0] == []


@pytest.mark.parametrize("command", [evaluate, report, status])
def test_a_command_on_a_damaged_run_ends_with_one_line(
    run: RunDir, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "run=test", f"run.root={run.path.parent}"])
    with replaced(run.labels, b"[1]\n"), replaced(run.provenance, b"[" * 5000):
        ended = end_of(command.main)
    assert ended is None or len(str(ended).splitlines()) == 1


def end_of(main: Callable[[], None]) -> object:
    """Return what a command exits with."""
    try:
        main()
    except SystemExit as end:
        return end.code
    return None
