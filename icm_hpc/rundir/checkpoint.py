"""A shard's saved state: HDF5 generations, each complete or absent, and a trace that only grows.

A generation is one sealed file, state-<generation>.h5. The trace is a JSONL file beside it; a generation says how many of its
bytes belong to it, and their SHA-256. What follows is of steps that will be done again.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from ..config.fingerprint import differences
from ..core.memo import Remembered
from ..core.types import State
from ..errors import CheckpointError
from . import sealed
from .files import write_atomically
from .polling import TRANSIENT
from .trace import Trace, digest_of

SCHEMA = 2
SCHEMA_WITHOUT_STATE = 3  # which no earlier version reads
KEEP = 3  # generations

D = TypeVar("D")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a generation holds."""

    reached: State | None  # None while the search is being seeded: then what it has learnt is all there is
    memo: Remembered
    fingerprint: str
    trace_bytes: int
    trace_sha256: str
    scorings: int = 0  # of the whole pool, that the search has asked for

    @property
    def state(self) -> State:
        """The state of a search that is seeded."""
        if self.reached is None:
            raise CheckpointError("the search is not seeded yet")
        return self.reached


def save(
    folder: Path, state: State | None, memo: Remembered, trace: Trace, fingerprint: str, *, scorings: int = 0
) -> Path:
    """Save the trace, then a new generation; keep the last three.

    Raises CheckpointError if it cannot be written, or OSError if it may be a moment later.
    """
    try:
        trace_bytes, trace_sha256 = trace.sync()
        saved = Saved(state, memo, fingerprint, trace_bytes, trace_sha256, scorings)
        files = generations(folder)
        path = folder / f"state-{(_number(files[-1]) if files else 0) + 1:08d}.h5"
        write_atomically(path, _encode(saved))
    except OSError as error:
        if error.errno in TRANSIENT:
            raise
        raise CheckpointError(
            f"the state cannot be saved in {folder}: {error}; the generation before is kept"
        ) from error
    for old in (*files[: 1 - KEEP], *folder.glob(".state-*")):  # what saves that were killed have left, too
        old.unlink(missing_ok=True)
    return path


def load(folder: Path, fingerprint: str, *, kind: type[State] = State, patient: bool = False) -> Saved | None:
    """Return the newest generation that is whole, or None if nothing was ever saved; to be called by the run's driver.

    `kind` is the method's state. `patient` raises OSError for a file that may be read a moment later, rather than take the
    generation before.
    Generations that are not whole are set aside, under another name. Raises CheckpointError if none of those there is
    whole, or if it is of another configuration, naming what differs.
    """
    saved, damaged = _newest(folder, kind, patient=patient)
    if saved is not None and saved.fingerprint != fingerprint:
        differing = differences(json.loads(fingerprint), json.loads(saved.fingerprint))
        raise CheckpointError(f"{folder} was saved by another configuration: {differing}; use another run.name")
    for path in damaged:
        log.warning("set aside as %s", path.with_suffix(sealed.DAMAGED).name)
        path.rename(path.with_suffix(sealed.DAMAGED))
    return saved


def load_newest(folder: Path, kind: type[State] = State) -> Saved | None:
    """Return the newest generation that is whole, whatever its configuration; None if no state was ever saved."""
    saved, _ = _newest(folder, kind)
    return saved if saved and saved.reached else None


def _newest(folder: Path, kind: type[State], *, patient: bool = False) -> tuple[Saved | None, list[Path]]:
    """Return the newest generation that is whole, and those after it, which are not."""
    files = generations(folder)
    troubles, damaged = [], []
    for path in reversed(files):
        try:
            saved = _decode(path.read_bytes(), kind)
            _require_trace(folder, saved)
        except (OSError, ValueError, KeyError) as error:
            if patient and isinstance(error, OSError) and error.errno in TRANSIENT:
                error.filename = error.filename or str(path)
                raise
            troubles.append(f"{path.name}: {error}")
            damaged.append(path)
            log.warning("%s cannot be used (%s); trying the generation before", path, error)
            continue
        return saved, damaged
    if files:
        raise CheckpointError(f"no generation in {folder} is whole: {'; '.join(troubles)}")
    return None, []


def generations(folder: Path) -> list[Path]:
    """Return the saved generations, the oldest first."""
    return sorted(folder.glob("state-*.h5"), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("state-"))


def _encode(saved: Saved) -> bytes:
    state = saved.reached

    def fill(file: Any) -> None:
        file.attrs["schema"] = SCHEMA_WITHOUT_STATE if state is None else SCHEMA
        file.attrs.update({name: getattr(saved, name) for name in ("trace_bytes", "trace_sha256", "scorings")})
        file.create_dataset("fingerprint", data=saved.fingerprint)
        if state is not None:
            _put(file, state)
        for name in ("keys", "lengths", "rows"):
            file.create_dataset(f"memo/{name}", data=getattr(saved.memo, name))

    return sealed.encoded(fill)


def _decode(content: bytes, kind: type[State]) -> Saved:
    """Read a generation; raises ValueError for one that is not whole, CheckpointError for another schema."""

    def read(file: Any) -> Saved:
        if file.attrs["schema"] not in (SCHEMA, SCHEMA_WITHOUT_STATE):
            raise CheckpointError(f"a checkpoint of schema {file.attrs['schema']}; this version reads {SCHEMA}")
        state = _got(file, kind) if file.attrs["schema"] == SCHEMA else None
        trace = (int(file.attrs["trace_bytes"]), str(file.attrs["trace_sha256"]))
        memo = Remembered(*(file[f"memo/{name}"][()] for name in ("keys", "lengths", "rows")))
        scorings = int(file.attrs.get("scorings", 0))  # earlier versions counted none
        return Saved(state, memo, file["fingerprint"].asstr()[()], *trace, scorings)

    return sealed.decoded(content, read)


def _put(group: Any, value: Any) -> None:
    """Write the fields of a dataclass: arrays as datasets, dataclasses as groups, anything else as attributes."""
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if dataclasses.is_dataclass(content):
            _put(group.create_group(field.name), content)
        elif isinstance(content, np.ndarray):
            group.create_dataset(field.name, data=content)
        else:
            group.attrs[field.name] = content


def _got(group: Any, kind: type[D]) -> D:
    """Read a dataclass that `_put` wrote; its arrays are read-only."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            values[name] = _got(group[name], hint)
        elif name in group:
            values[name] = group[name][()]
            values[name].flags.writeable = False
        elif name in group.attrs:  # else an earlier version had no such field, and its default says so
            value = group.attrs[name]
            values[name] = hint(value.tolist() if isinstance(value, np.ndarray) else value)
    return kind(**values)


def _require_trace(folder: Path, saved: Saved) -> None:
    with (folder / "trace.jsonl").open("rb") as file:
        digest, missing = digest_of(file, saved.trace_bytes)
    if missing or digest.hexdigest() != saved.trace_sha256:
        raise ValueError("the trace beside it is truncated or altered")
