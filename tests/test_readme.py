"""The commands of README, CONTRIBUTING and docs/ exist, and do what the pages say."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.core import layout

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PAGES = [README, CONTRIBUTING, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]


def code_of(page: str) -> str:
    """Return the indented lines of a page."""
    return "\n".join(re.findall(r"^    (.*)$", page, flags=re.MULTILINE)).replace("\\\n", " ")


def commands_of(page: str) -> list[str]:
    return re.findall(r"^(?:\.venv/bin/)?python -m icm_hpc\.(submit .*)$", code_of(page), flags=re.MULTILINE)


# Without what the reader of CONTRIBUTING writes first; see below.
WRITTEN = ("task=jokes", "search.layout=descending")
COMMANDS = sorted(
    {command for page in PAGES for command in commands_of(page) if not any(word in command for word in WRITTEN)}
)
TARGETS = {target for page in PAGES for target in re.findall(r"^make ([a-z-]+)", code_of(page), flags=re.MULTILINE)}


def test_commands_are_found() -> None:
    assert len(commands_of(README)) >= 2
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_is_accepted(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # the task of the tutorial
    rows = [line for line in code_of(README).splitlines() if line.startswith("{")]
    more = [
        json.dumps({"question": f"Q{i // 2}?", "choice": f"C{i}.", "exclusion_group": f"x{i // 2}"}) for i in range(8)
    ]
    (tmp_path / "claims.jsonl").write_text("\n".join([*rows, *more]))  # some for a held-out share
    (tmp_path / "test.jsonl").write_text("\n".join(line.replace("C", "T") for line in more))
    (yaml,) = re.findall(r"```yaml\n(task:\n  data: shop.csv\n.*?)```", "".join(PAGES), flags=re.DOTALL)
    (tmp_path / "shop.yaml").write_text(yaml)
    (tmp_path / "shop.csv").write_text("review_id,product,text,stars\na1,lamp,Warm light.,5\na2,lamp,It flickers.,1\n")
    secrets = tmp_path / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("OPENAI_API_KEY=of-a-test\n")
    monkeypatch.setenv("ICM_SECRETS", str(secrets))
    argv = [sys.executable, "-m", "icm_hpc.submit", *shlex.split(command)[1:], "dry_run=true"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash")


def test_every_make_target_of_the_pages_exists() -> None:
    assert {"demo", "test", "check", "docs"} <= TARGETS
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert rules >= TARGETS


def python_of_contributing(part: str) -> str:
    """Return the Python of the page that has this part."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)
    return next(block for block in blocks if part in block)


def test_the_layout_of_the_contributors_page_works() -> None:
    made: dict[str, Any] = dict(vars(layout))
    exec(compile(python_of_contributing("def descending"), "layout.py", "exec"), made)
    members = np.array([1, 4, 6])
    queries = made["descending"](members, members, np.zeros(7, dtype=int), np.ones(7, dtype=int), "eval")
    assert [(query.index, query.demonstrations) for query in queries] == [(1, (6, 4)), (4, (6, 1)), (6, (4, 1))]


def test_the_task_of_the_contributors_page_works(tmp_path: Path) -> None:
    (tmp_path / "jokes.py").write_text(python_of_contributing("FAMILY = "))
    data = tmp_path / "jokes.jsonl"
    data.write_text("\n".join(json.dumps({"joke": f"Knock {i}.", "consistency_id": i // 2}) for i in range(8)))
    task = tasks.load(TaskConfig(name=str(tmp_path / "jokes.py"), data=str(data)), seed=0)
    assert len(task.examples) == 8
    assert len(task.problem().conflicts) == 4


def test_the_readme_is_short_and_runs_what_ci_runs() -> None:
    assert 700 <= len(README.split()) <= 900
    assert "make check" in (ROOT / ".ci" / "run").read_text()
    assert {"make test", "make check"} <= {" ".join(line.split()[:2]) for line in code_of(README).splitlines()}
