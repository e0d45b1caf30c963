"""The state of a thousand runs: nothing is read or asked that takes long, whatever their number."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.config.schema import Config
from icm_hpc.monitoring import slurm, state, table
from icm_hpc.rundir.folder import RunDir
from tests import fake_slurm
from tests.test_status import STUB, icm

RUNS = 1000
JOBS = range(0, RUNS, 5)  # runs that were a job


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs: finished, stopped, waiting in a queue, and damaged in several ways."""
    one = tmp_path_factory.mktemp("one")
    assert icm("submit", *STUB, f"run.root={one}", "run=it").returncode == 0
    root = tmp_path_factory.mktemp("many")
    left_out = shutil.ignore_patterns("report.html", "*.log", "*.jsonl.gz", "labels.jsonl", "gold.json", "outcome.h5")
    for number in range(RUNS):
        run_dir = RunDir(root / f"run-{number:04d}")
        shutil.copytree(one / "it", run_dir.path, ignore=left_out)
        match number % 4:
            case 1:
                run_dir.summary.unlink()
                run_dir.provenance.write_text(run_dir.provenance.read_text().replace('"finished"', '"stopped"'))
            case 2:
                run_dir.provenance.write_text('{"att')
                run_dir.progress.write_text("")
            case 3 if number % 8 == 3:
                run_dir.config.write_text("search: [\n")
        if number in JOBS:
            (run_dir.submitit / f"{number}_submitted.pkl").write_bytes(b"")
    return root


def test_the_state_of_a_thousand_runs_reads_few_settings_no_saved_state_and_asks_slurm_once(
    thousand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_slurm.made(tmp_path / "bin")
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    fake.command("squeue", '#!/bin/sh\necho squeue >> "$FAKE/asked"\necho "5|PENDING|(Priority)"\n')
    fake.command("sacct", '#!/bin/sh\necho sacct >> "$FAKE/asked"\n')
    parsed: list[Path] = []
    load = loading.load_file

    def counted(path: Path) -> Config:
        parsed.append(path)
        return load(path)

    monkeypatch.setattr(loading, "load_file", counted)
    run_dirs = state.folders(thousand)
    asking = slurm.Once(state.jobs(run_dirs))
    found = {one.run: one for one in (state.readable_status(run_dir, asking) for run_dir in run_dirs)}
    states = Counter(one.driver.split(":")[0] for one in found.values())
    assert (len(found), states["unreadable"], states["PENDING"]) == (RUNS, RUNS // 8, 1)
    assert states["finished"] > 0
    assert states["stopped"] > 0
    assert len(parsed) == RUNS // 8, "only what is not as this program writes it"
    assert sorted((fake.folder / "asked").read_text().split()) == ["sacct", "squeue"]
    assert table.lines(list(found.values())).plain.count("\n") == RUNS


def test_status_opens_no_saved_state_and_loads_nothing_that_is_slow_to_load(thousand: Path) -> None:
    script = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from icm_hpc import status
sys.argv = ["status", "json=true", "run.root=" + sys.argv[1]]
sys.stdout = open("/dev/null", "w")
status.main()
inside = [path for path in opened if path.startswith(sys.argv[2].split("=")[1] + "/")]
slow = sorted({"h5py", "scipy", "submitit", "matplotlib"} & set(sys.modules))
print(json.dumps([len(inside), sum(path.endswith(".h5") for path in inside), slow]), file=sys.__stdout__)
"""
    done = subprocess.run([sys.executable, "-c", script, str(thousand)], capture_output=True, text=True, check=True)
    opened, states, slow = json.loads(done.stdout)
    assert (states, slow) == (0, [])
    assert 0 < opened <= 8 * RUNS
