"""The reference protocol is the published search; and the comparison that shows it would show a difference."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import TRACES, compare, replayed
from tests.conformance.trace import Different, read
from tests.conftest import unavailable


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A recorded run, unpacked, that a test may alter."""
    source = TRACES / "p9_pref16_hash_fixK1.jsonl.gz"
    if not source.exists():
        unavailable(f"{source} is not there")
    header, events = read(source)
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, [header, *events])))
    return path


def test_the_reference_protocol_does_what_was_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    if not TRACES.is_dir():
        unavailable(f"{TRACES} is not there")
    assert compare(TRACES) == 0, capsys.readouterr().out
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len([*TRACES.rglob("*.jsonl*"), *TRACES.rglob("unit_cases.json")])


@pytest.mark.parametrize(
    ("kind", "key", "alter"),
    [
        ("score", "sha", lambda sha: ["0" * len(sha[0]), *sha[1:]]),
        ("score", "score", lambda score: [score[0] + 1e-6, *score[1:]]),
        ("metric", "energy", lambda energy: energy * (1 + 1e-8)),
        ("shuffle", "before", lambda pairs: pairs[::-1]),
        ("choose", "taken", lambda taken: not taken),
        ("try", "set", lambda labels: labels[::-1]),
        ("choices", "weights", lambda weights: [2.0, *weights[1:]]),
        ("proposal", "new", lambda new: 1 - new),
        ("accept", "accept", lambda accept: not accept),
        ("accept", "T", lambda temperature: temperature * 1.001),
        ("iter_end", "labels", lambda labels: [1 - (labels[0] or 0), *labels[1:]]),
        ("end", "accepted", lambda accepted: accepted + 1),
    ],
)
def test_a_recording_altered_in_one_place_is_found_to_differ(trace: Path, kind: str, key: str, alter: Any) -> None:
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    place = next(i for i, e in enumerate(lines) if e["t"] == kind and (key != "before" or len(e["before"]) > 1))
    lines[place][key] = alter(lines[place][key])
    trace.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(Different, match=f"{kind}.*, {key}: ours is"):
        replayed(trace)


def test_a_recording_that_ends_early_or_late_is_found_to_differ(trace: Path) -> None:
    lines = trace.read_text().splitlines()
    trace.write_text("\n".join(lines[:-1]))
    with pytest.raises(Different, match="ours goes on with end"):
        replayed(trace)
    trace.write_text("\n".join([*lines, lines[-2]]))
    with pytest.raises(Different, match="ours ends where iter_end was recorded"):
        replayed(trace)


def test_a_folder_without_traces_is_no_proof(tmp_path: Path) -> None:
    assert compare(tmp_path) == 1
