"""The commands of docs/tutorial.md run in order, and lead from a CSV file to a table of classifiers."""

import asyncio
import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from icm_hpc.scoring import connect
from tests.conftest import Served
from tests.test_readme import ROOT, code_of

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
COMMANDS = re.findall(r"^python .*$", code_of(PAGE), flags=re.MULTILINE)
ROWS = 16


def in_short(command: str) -> str:
    """Return a command of the page with a model of random weights, on some of the rows: seconds instead of minutes."""
    return command.replace("python", sys.executable, 1).replace("model=smol", f"model=tiny task.limit={ROWS}")


async def address_of(served: Served) -> dict[str, str]:
    """Return the variables with which a command uses a server that already runs, when it does."""
    async with connect.connected(served.settings, served.run_dir, served.attempt):
        endpoint = served.run_dir.read_endpoint(served.attempt)
    assert endpoint
    return {"VLLM_BASE_URL": f"http://127.0.0.1:{endpoint.port}", "VLLM_API_KEY": endpoint.key}


def rows_of(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.vllm
def test_the_tutorial_leads_from_a_csv_file_to_a_table_of_classifiers(tiny_server: Served, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "tutorial", tmp_path / "docs" / "tutorial")
    environment, printed = {**os.environ, **asyncio.run(address_of(tiny_server))}, ""
    for command in COMMANDS:
        argv = in_short(command).split()
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed = done.stdout
    exported = {path.name: rows_of(path) for path in tmp_path.glob("*.csv")}
    assert {name: len(rows) for name, rows in exported.items()} == {"icm.csv": ROWS, "zero-shot.csv": ROWS}
    assert {row["word"] for rows in exported.values() for row in rows} == {"negative", "positive"}
    assert (tmp_path / "runs" / "icm" / "report.html").exists()
    table = [line.split()[:2] for line in printed.splitlines()[1:]]
    assert table == [["gold", "96"], ["icm", str(ROWS)], ["zero-shot", str(ROWS)]]


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) >= 8


def test_the_tutorial_shows_the_task_that_it_uses() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert shown == (ROOT / "docs" / "tutorial" / "shop.yaml").read_text()
