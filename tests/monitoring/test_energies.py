"""The course of an energy: from samples of a trace, as a line of blocks."""

import json
from pathlib import Path

import pytest

from icm_hpc.core.types import StepInfo
from icm_hpc.monitoring import energies
from icm_hpc.rundir.trace import Trace


def traced(folder: Path, values: list[float]) -> Path:
    """Write the trace of a search with these energies, as the driver does."""
    trace = Trace(folder, 0)
    for step, energy in enumerate(values):
        trace.append(StepInfo(step, energy, flips=0, pool=1, counts=(1, 0), conflicts=0))
    trace.sync(len(values))
    trace.close()
    return folder / "trace.jsonl"


def test_a_short_trace_is_read_in_full(tmp_path: Path) -> None:
    trace = traced(tmp_path, [-1.5, 2.0, 1e-7])
    assert energies.course(trace, 2) == ((0, -1.5), (1, 2.0), (2, 1e-7))


def test_what_a_kill_has_left_of_a_line_is_passed_over(tmp_path: Path) -> None:
    trace = traced(tmp_path, [1.0, 2.0])
    with trace.open("a") as file:
        file.write('{"step": 2, "energy": 3.0, "fl')
    assert energies.course(trace, 9) == ((0, 1.0), (1, 2.0))
    assert energies.course(tmp_path / "none", 9) == ()


def test_of_a_long_trace_only_samples_and_the_last_line_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = traced(tmp_path, [float(step) for step in range(5000)])
    monkeypatch.setattr(energies, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(energies, "LINE_BYTES", 1000)
    found = energies.course(trace, 20)
    assert 20 <= len(found) <= 21
    assert (found[0], found[-1]) == ((0, 0.0), (4999, 4999.0))
    assert all(step == energy for step, energy in found)
    assert list(found) == sorted(found)


def test_a_trace_that_has_grown_is_read_again(tmp_path: Path) -> None:
    trace = traced(tmp_path, [1.0])
    assert len(energies.course(trace, 9)) == 1
    with trace.open("a") as file:
        file.write(json.dumps({"step": 1, "energy": 4.0, "flips": 1}) + "\n")
    assert len(energies.course(trace, 9)) == 2


@pytest.mark.parametrize(
    ("points", "width", "values", "line"),
    [
        ([], 5, [], ""),
        ([(0, 1.0)], 5, [1.0], "▁"),
        ([(0, 2.0), (1, 2.0)], 5, [2.0, 2.0], "▁▁"),
        ([(0, 0.0), (1, 7.0), (2, 3.0)], 5, [0.0, 7.0, 3.0], "▁█▄"),
        ([(0, 0.0), (9, 7.0)], 5, [0.0, 0.0, 0.0, 0.0, 7.0], "▁▁▁▁█"),
        ([(step, float(step)) for step in range(8)], 4, [1.0, 3.0, 5.0, 7.0], "▁▃▆█"),
    ],
)
def test_each_column_has_the_energy_at_its_end(
    points: list[energies.Point], width: int, values: list[float], line: str
) -> None:
    assert energies.by_column(points, width) == values
    assert energies.sparkline(values) == line
