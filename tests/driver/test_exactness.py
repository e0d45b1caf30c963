"""How exactly a run can be repeated, as its summary and its trace say it."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from icm_hpc.driver.exactness import Exactness, warnings
from icm_hpc.driver.summary import from_json
from icm_hpc.rundir import measured
from icm_hpc.rundir.attempts import record_attempt
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.measured import Measured, Noise
from icm_hpc.rundir.trace import read_trace
from tests import offline

SETTINGS = ("task.limit=12", "search.restarts=2", "search.scorings=12")


def with_noise(folder: Path, nats: float) -> None:
    """Make the folder of a run whose server was measured to have so much noise."""
    settings, run_dir, _ = offline.prepare(folder, *SETTINGS)
    measured.write(run_dir.measured, Measured(noise=Noise(0.0, nats, nats / 2), of=measured.served_by(settings)))


def with_steps(watched: int, within: int, *, noise: float) -> Exactness:
    """Return what is said of a run that nothing has recorded a start of."""
    return Exactness(
        reproducible=False, starts=0, noise=noise, steps=watched, steps_watched=watched, steps_within_noise=within
    )


def steps(run_dir: RunDir) -> list[dict[str, object]]:
    """Return the steps of all searches."""
    return [step for restart in range(2) for step in steps_of(run_dir, restart)]


def steps_of(run_dir: RunDir, restart: int) -> list[dict[str, object]]:
    """Return the steps of one search."""
    return list(read_trace(run_dir.shard(0, restart)))


async def test_steps_that_noise_may_decide_are_counted_over_all_searches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with_noise(tmp_path, 2.0)
    summary, run_dir, _ = await offline.label(tmp_path, *SETTINGS)
    within = sum(step["within_noise"] is True for step in steps(run_dir))
    assert within > 0
    assert from_json(summary).exactness == with_steps(len(steps(run_dir)), within, noise=2.0)
    assert f"{within} of {len(steps(run_dir))} steps came out otherwise" in caplog.text


async def test_what_is_measured_changes_no_label_and_no_step(tmp_path: Path) -> None:
    plain, of_plain, _ = await offline.label(tmp_path / "plain", *SETTINGS)
    with_noise(tmp_path / "noise", 2.0)
    noisy, of_noisy, _ = await offline.label(tmp_path / "noise", *SETTINGS)
    assert of_plain.labels.read_bytes() == of_noisy.labels.read_bytes()
    assert plain["exactness"]["noise"] is None
    assert noisy["since_start"]["prompts"] == plain["since_start"]["prompts"]
    for one, other in zip(steps(of_plain), steps(of_noisy), strict=True):
        assert {**other, "within_noise": None} == one


async def test_a_run_that_was_resumed_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with_noise(tmp_path, 2.0)
    _, run_dir, _ = offline.prepare(tmp_path, *SETTINGS)
    for attempt in ("a", "b"):
        record_attempt(run_dir, attempt)
    summary, _, _ = await offline.label(tmp_path, *SETTINGS)
    assert summary["exactness"]["starts"] == 2
    assert "which began 2 times, may have ended otherwise than without the interruptions" in caplog.text


def test_noise_where_none_was_promised_is_warned_of() -> None:
    (warning,) = warnings(replace(with_steps(10, 0, noise=1e-3), reproducible=True))
    assert "model.reproducible=true, and log-probabilities still differ by up to 0.001 nats" in warning
    assert not list(warnings(replace(with_steps(10, 0, noise=0.0), reproducible=True)))
    assert not list(warnings(with_steps(10, 0, noise=1e-3)))


async def test_a_file_of_measurements_that_is_gone_or_damaged_stops_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_noise(tmp_path, 2.0)
    _, run_dir, _ = await offline.label(tmp_path, *SETTINGS)
    run_dir.measured.write_text('{"noise": {}, "of a later version": 1}')
    summary, _, _ = await offline.label(tmp_path, *SETTINGS)
    assert "the server is measured again" in caplog.text
    assert summary["exactness"]["noise"] is None
    assert summary["exactness"]["steps_within_noise"] > 0
    assert "was not measured" in str(from_json(summary).exactness)
    run_dir.measured.unlink()
    (run_dir.shard(0) / "trace.jsonl").unlink()
    summary, _, _ = await offline.label(tmp_path, *SETTINGS)
    assert 0 < summary["exactness"]["steps"] < len(steps_of(run_dir, 1)) + 1


def test_steps_that_were_not_watched_are_named() -> None:
    assert "0 of 10 steps may depend on it" in str(with_steps(10, 0, noise=0.0))
    assert "1 of 10 steps watched, of 30, may depend on it" in str(replace(with_steps(10, 1, noise=0.5), steps=30))
    assert "steps" not in str(with_steps(0, 0, noise=0.5)), "a run without a search has none"
