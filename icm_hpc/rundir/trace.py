"""A search's trace: trace.jsonl, one JSON object a step, which only grows."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..core.json_values import from_json, hints_of, typed
from ..core.types import StepInfo
from .appended import Appended

NAME = "trace.jsonl"  # in the folder of its search
TAIL_BYTES = 8192
SHOWN = {"step", "flips", "energy"}
PIECE = 2**20  # bytes of a trace that are in memory at one time


@dataclass(frozen=True, slots=True)
class TraceLine:
    """A line of trace.jsonl: what one step did. Fields are null, or empty, where the step ended before them."""

    step: int  # 0 gives the first examples their labels
    energy: float  # after the step, as the four below
    flips: int  # accepted proposals so far
    pool: int  # labelled examples
    counts: tuple[int, ...]  # examples of each label
    conflicts: int  # pairs that break a rule
    index: int | None  # the example drawn; its place in the shard
    old: int | None  # its label before; -1: none
    new: int | None  # the label that the model proposed
    changed: tuple[tuple[int, int], ...]  # [example, label] of every label that accepting the proposal changes
    temperature: float | None
    u: float | None  # drawn from [0, 1): accepted if u < exp(energy difference / temperature)
    accepted: bool
    abandoned: bool  # no answer of the server was a score
    # Whether the step came out otherwise when scores were moved by the engine's noise; null if that was not measured.
    within_noise: bool | None
    repairs: tuple[tuple[int, int, int, int], ...]  # [example, example, label, label] of each repair that was taken
    proposed_energy: float | None  # of the proposal, accepted or not

    @classmethod
    def of(cls, info: StepInfo) -> "TraceLine":
        """Return the line of a step: all of it except the repairs that were not taken."""
        values = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
        taken = [trial for done in values.pop("rounds") for trial in done.trials if trial.taken]
        repairs = tuple((t.conflict.first, t.conflict.second, *t.pair_labels(t.best)) for t in taken)
        proposal = values.pop("proposal")
        return cls(**values, repairs=repairs, proposed_energy=proposal and proposal.labelling.energy)


class Trace:
    """A shard's trace; one JSON object a step."""

    def __init__(self, folder: Path, trace_bytes: int) -> None:
        """Open the trace after its first `trace_bytes` bytes; the rest is of steps that will be done again. Raises OSError."""
        path = folder / NAME
        self._file = Appended(path, trace_bytes)
        self._file.open()
        with path.open("rb") as file:
            self._digest = digest_of(file, trace_bytes)[0]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def append(self, info: StepInfo) -> None:
        """Add a step."""
        self._file.add(json.dumps(dataclasses.asdict(TraceLine.of(info))).encode() + b"\n")

    @property
    def waiting(self) -> int:
        """Steps that are not on the disk yet."""
        return self._file.waiting

    def sync(self, steps: int) -> tuple[int, str]:
        """Bring the first `steps` of those that wait to the disk; return the trace's bytes and SHA-256. Raises OSError."""
        self._digest.update(self._file.sync(steps))
        return self._file.size, self._digest.hexdigest()


def read_trace(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the steps of a shard's trace."""
    with (folder / NAME).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


@dataclass(frozen=True, slots=True)
class Watched:
    """What a trace says of noise, in numbers of steps."""

    steps: int = 0
    watched: int = 0  # of which it says whether the engine's noise may have decided them
    within_noise: int = 0  # which that may have


def watched(folder: Path) -> Watched:
    """Return what the trace of a search says of noise; nothing of one that is gone."""
    steps = outside = within = 0
    try:
        with (folder / NAME).open("rb") as file:
            for line in file:
                steps += 1
                outside += b'"within_noise": false' in line
                within += b'"within_noise": true' in line
    except FileNotFoundError:
        return Watched()
    return Watched(steps, outside + within, within)


def last_line(trace: Path) -> dict[str, Any] | None:
    """Return the last whole line of a trace, None if it has none; what a kill has left after it is not read."""
    with trace.open("rb") as file:
        size = file.seek(0, 2)
        length = TAIL_BYTES
        while True:
            file.seek(max(0, size - length))
            whole, newline, _ = file.read(min(size, length)).rpartition(b"\n")
            _, earlier, line = whole.rpartition(b"\n")
            if earlier or length >= size:
                break
            length *= 2
    return line_of(line) if newline else None


def line_of(line: bytes) -> dict[str, Any] | None:
    """Return a line of a trace, None for one that is none of a step; earlier versions wrote fewer fields."""
    kinds = hints_of(TraceLine)
    try:
        found = typed(dict[str, Any], from_json(line))
        return (
            {key: typed(kinds.get(key, Any), value) for key, value in found.items()} if found.keys() >= SHOWN else None
        )
    except ValueError:
        return None


def digest_of(file: IO[bytes], count: int) -> tuple["hashlib._Hash", int]:
    """Return the SHA-256 of the next `count` bytes, read in pieces, and how many of them are not there."""
    digest = hashlib.sha256()
    while count and (chunk := file.read(min(count, PIECE))):
        digest.update(chunk)
        count -= len(chunk)
    return digest, count
