"""The README's commands are commands that exist, and do what it says."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CODE = "\n".join(re.findall(r"^    (.*)$", README, flags=re.MULTILINE)).replace("\\\n", " ")
COMMANDS = re.findall(r"^(?:\.venv/bin/)?python -m icm_hpc\.(submit .*)$", CODE, flags=re.MULTILINE)


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_accepted(command: str, tmp_path: Path) -> None:
    sample = next(line for line in CODE.splitlines() if line.strip().startswith("{"))
    (tmp_path / "claims.jsonl").write_text(f"{sample}\n{sample}\n")
    argv = [sys.executable, "-m", "icm_hpc.submit", *shlex.split(command)[1:], "dry_run=true"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash")


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^make ([a-z-]+)", CODE, flags=re.MULTILINE))
    assert targets
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert targets <= rules


def test_the_readmes_own_task_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(
        block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "FAMILY = " in block
    )
    made: dict[str, Any] = {"__package__": "icm_hpc.tasks", "__name__": "icm_hpc.tasks.jokes"}
    exec(compile(source, "jokes.py", "exec"), made)
    monkeypatch.setitem(tasks.TASKS, "jokes", made["FAMILY"])
    data = tmp_path / "jokes.jsonl"
    data.write_text("\n".join(json.dumps({"joke": f"Knock {i}.", "consistency_id": i // 2}) for i in range(8)))
    task = tasks.load(TaskConfig(name="jokes", data=str(data)), seed=0)
    assert len(task.examples) == 8
    assert len(task.problem().conflicts) == 4
