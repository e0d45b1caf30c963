"""Forecasts from what a server was measured to do."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import tasks
from icm_hpc.capacity.found import Plan
from icm_hpc.capacity.plan import plan
from icm_hpc.config import loading
from icm_hpc.errors import ConfigError
from icm_hpc.rundir import measured
from icm_hpc.rundir.measured import Line, Measured, Noise, Sharing, Speed
from tests.capacity.test_plan import run

SPEED = Speed(prompts=4, tokens=2000, context_tokens=500_000, seconds=2.0)
SHARING = Sharing(
    prompts=8, prompt_tokens=2048, computed_tokens=1000, least_tokens=1000, context_tokens=100_000, seconds=2.0
)
FOUND = Measured(Noise(0.0, 1e-6, 0.0), SPEED, SHARING)


def planned(*arguments: str, of: Measured | None) -> Plan:
    """Return the plan of 48 reviews."""
    config = loading.load(["model=stub", *arguments, "task=reviews", "task.limit=48"])
    return plan(config, tasks.load(config.task, seed=0), measured=of)


def seconds(found: Plan) -> float:
    """Return the time that is forecast."""
    return float(found.figures["forecast_hours"]) * 3600


def test_the_speed_of_prompts_that_share_demonstrations_comes_first() -> None:
    both, alone = planned(of=FOUND), planned(of=Measured(speed=SPEED))
    assert seconds(both) == pytest.approx(2 * seconds(alone)), "500 tokens a second, and 1,000"
    assert both.lines["time"].startswith("forecast at the speed that was measured: ")
    assert "GPU-hours" not in both.lines["time"]


def test_a_server_that_runs_already_costs_the_job_no_gpu() -> None:
    words = ("model=8B", "model.max_model_len=16384", "server.url=http://theirs:8000", "cluster.gpu_hour_price=2")
    found = planned(*words, of=FOUND)
    assert found.lines["time"].startswith("forecast at the speed that was measured: ")
    assert "GPU-hours" not in found.lines["time"]
    assert "cost" not in found.lines


def test_replicas_share_the_work() -> None:
    one, two = planned(of=FOUND), planned("server.replicas=2", of=FOUND)
    assert seconds(two) == pytest.approx(seconds(one) / 2, rel=0.2), "each replica computes what is at the beginning"


def test_where_nothing_was_measured_and_no_gpu_is_known_nothing_is_forecast() -> None:
    assert "time" not in planned(of=None).lines
    assert "time" not in planned(of=Measured(noise=FOUND.noise)).lines


@pytest.mark.parametrize("form", ["run", "lines"])
def test_plan_reads_it_of_a_run_and_of_what_verify_printed(tmp_path: Path, form: str) -> None:
    path = tmp_path / "there"
    if form == "run":
        path.mkdir()
        measured.write(path / "measured.json", FOUND)
    else:
        path.write_text("".join(f"{line}\n" for line in lines()))
    done = run("plan", "model=stub", "task.limit=24", f"measured={path}", "json=true")
    assert json.loads(done.stdout)["figures"]["forecast"] == "at the speed that was measured", done.stderr


def lines() -> list[str]:
    """Return what `verify json=true` prints of two checks."""
    parts = {"reachable": {}, "speed": asdict(SPEED)}
    return [json.dumps(asdict(Line(name, True, "", "", figures))) for name, figures in parts.items()]  # noqa: FBT003


@pytest.mark.parametrize("changes", [{"seconds": 0.0}, {"tokens": 0}, {"tokens": -5}, {"seconds": float("inf")}])
def test_a_speed_that_cannot_be_is_not_used(changes: dict[str, Any]) -> None:
    assert "time" not in planned(of=Measured(speed=replace(SPEED, **changes))).lines


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON", '{"name": "noise"}', '{"name": "speed", "figures": 3}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    done = run("plan", "model=stub", f"measured={tmp_path / 'file'}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is neither a run nor what `verify json=true` has printed"):
        measured.of_lines(tmp_path / "none")
