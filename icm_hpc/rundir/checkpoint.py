"""A search's saved state: HDF5 generations, each complete or absent, beside a trace and a memo that only grow.

A generation is one sealed file, state-<generation>.h5. It says how many bytes of the trace belong to it, and their SHA-256, and
what of which file it remembers (memo_file). What follows is of steps that will be done again.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

from ..config.fingerprint import differences
from ..core.memo import Remembered
from ..core.types import State
from ..errors import CheckpointError
from . import memo_file, sealed
from .files import write_atomically
from .memo_file import Place
from .polling import TRANSIENT
from .trace import digest_of

SCHEMA = 4
OLDER_SCHEMAS = {2: True, 3: False}  # which hold their memo; by schema, whether it holds a state
KEEP = 3  # generations

D = TypeVar("D")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a generation holds."""

    reached: State | None  # None while the search is being seeded: then what it has learnt is all there is
    fingerprint: str
    trace_bytes: int
    trace_sha256: str
    scorings: int = 0  # of the whole pool, that the search has asked for
    memo_place: Place | None = None  # None in a generation that holds its memo itself
    memo: Sequence[Remembered] = ()  # read by `load` alone
    memo_first_bytes: int | None = None  # of the memo's file; None where it is to be begun again

    @property
    def state(self) -> State:
        """The state of a search that is seeded."""
        if self.reached is None:
            raise CheckpointError("the search is not seeded yet")
        return self.reached


def save(folder: Path, number: int, saved: Saved) -> Path:
    """Save a generation, and keep the last three; the trace and the memo that it needs are on the disk.

    Raises OSError if it cannot be written.
    """
    path = folder / f"state-{number:08d}.h5"
    write_atomically(path, _encode(saved))
    with contextlib.suppress(OSError):  # it is saved: what cannot be removed now is after a later save
        kept = generations(folder)
        for old in (*kept[:-KEEP], *folder.glob(".state-*")):  # what saves that were killed have left, too
            old.unlink(missing_ok=True)
        memo_file.remove_unneeded(folder, _number(kept[-KEEP:][0]))
    return path


def next_number(folder: Path) -> int:
    """Return the number of the next generation."""
    files = generations(folder)
    return _number(files[-1]) + 1 if files else 1


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
    return saved and _with_memo(folder, saved, patient=patient)


def _with_memo(folder: Path, saved: Saved, *, patient: bool) -> Saved:
    """Return a generation with what it remembers; files of generations that were never saved are removed."""
    if saved.memo_place is None:
        return saved
    memo_file.remove_later(folder, saved.memo_place)
    memo, first_bytes = memo_file.read(folder, saved.memo_place, patient=patient)
    return dataclasses.replace(saved, memo=memo, memo_first_bytes=first_bytes)


def load_newest(folder: Path, kind: type[State] = State) -> Saved | None:
    """Return the newest generation that is whole, whatever its configuration, without its memo; None if no state was saved."""
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
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
                error.filename = error.filename or str(path)
                if error.errno not in TRANSIENT:
                    raise memo_file.unreadable(path, error) from error
                if patient:
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
    state, place = saved.reached, saved.memo_place

    def fill(file: Any) -> None:
        file.attrs.update({"schema": SCHEMA, "is_seeded": state is not None})
        file.attrs.update({name: getattr(saved, name) for name in ("trace_bytes", "trace_sha256", "scorings")})
        if place is not None:
            file.attrs.update({"memo_number": place.number, "memo_bytes": place.size})
        file.create_dataset("fingerprint", data=saved.fingerprint)
        if state is not None:
            _put(file, state)

    return sealed.encoded(fill)


def _decode(content: bytes, kind: type[State]) -> Saved:
    """Read a generation; raises ValueError for one that is not whole, CheckpointError for another schema."""

    def read(file: Any) -> Saved:
        schema, attributes = file.attrs["schema"], file.attrs
        if schema != SCHEMA and schema not in OLDER_SCHEMAS:
            raise CheckpointError(f"a checkpoint of schema {schema}; this version reads {SCHEMA}")
        is_seeded = attributes["is_seeded"] if schema == SCHEMA else OLDER_SCHEMAS[schema]
        place: Place | None = None
        memo: tuple[Remembered, ...] = ()
        if "memo_number" in attributes:
            place = Place(int(attributes["memo_number"]), int(attributes["memo_bytes"]))
        elif schema in OLDER_SCHEMAS:
            memo = (Remembered(*(file[f"memo/{name}"][()] for name in ("keys", "lengths", "rows"))),)
        return Saved(
            reached=_got(file, kind) if is_seeded else None,
            fingerprint=file["fingerprint"].asstr()[()],
            trace_bytes=int(attributes["trace_bytes"]),
            trace_sha256=str(attributes["trace_sha256"]),
            scorings=int(attributes.get("scorings", 0)),  # earlier versions counted none
            memo_place=place,
            memo=memo,
        )

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
            values[name] = group[name][()].astype(_item_type(hint))  # labels of earlier versions have a byte each
            values[name].flags.writeable = False
        elif name in group.attrs:  # else an earlier version had no such field, and its default says so
            value = group.attrs[name]
            values[name] = hint(value.tolist() if isinstance(value, np.ndarray) else value)
    return kind(**values)


def _item_type(hint: Any) -> Any:
    """Return the type of the items of what is declared as an NDArray."""
    _, dtype = get_args(hint)
    return get_args(dtype)[0]


def _require_trace(folder: Path, saved: Saved) -> None:
    with (folder / "trace.jsonl").open("rb") as file:
        digest, missing = digest_of(file, saved.trace_bytes)
    if missing or digest.hexdigest() != saved.trace_sha256:
        raise ValueError("the trace beside it is truncated or altered")
