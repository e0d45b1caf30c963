"""Finished runs to export, labelled by the stub, and the command on them."""

import asyncio
import json
from pathlib import Path
from typing import Any

from icm_hpc import export, tasks
from icm_hpc.config import loading
from icm_hpc.rundir.files import write_atomically
from icm_hpc.rundir.folder import RunDir
from icm_hpc.tasks import gold
from tests import offline

ARABIC = "\u202eمرحبا بالعالم\u202c"
HOSTILE = (
    "<script>alert(1)</script>",
    ARABIC,
    "👩🏽‍🔬 🇪🇺 e\u0301",
    "=HYPERLINK(0)",
    "+1",
    "-1",
    "@sum",
    "a,b;\t'c'|\"d\"",
    "one\n\ntwo\r\nthree\rfour\u2028five",
    "x" * 50_000,
)


def finished(folder: Path, *arguments: str) -> RunDir:
    """Label with the stub; return the run's folder with all files that `submit` leaves in it."""
    _, run_dir, _ = asyncio.run(offline.label(folder, *arguments))
    config = loading.load(["model=stub", f"run.root={folder}", "run=test", *arguments])
    task = tasks.load(config.task, seed=config.search.seed)
    files = {run_dir.config: loading.to_yaml(config).encode(), run_dir.data: tasks.packed(task)}
    for path, content in (files | {run_dir.gold: gold.packed(gold.load(config.task))}).items():
        write_atomically(path, content)
    return run_dir


def hostile(folder: Path) -> RunDir:
    """Return a run of rows with text that a format may spoil; the text begins a cell."""
    return finished(folder, *own_task(folder, [{"id": f"={n}", "text": text} for n, text in enumerate(HOSTILE)]))


def own_task(folder: Path, rows: list[dict[str, Any]], rule: str = "none", prompt: str = "{text}\nGood?") -> list[str]:
    """Return the settings of a task of these rows."""
    data = folder / "rows.jsonl"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text("\n".join(map(json.dumps, rows)))
    written = prompt.replace("\n", "\\n")
    return [
        "task.name=mine",
        f"task.data={data}",
        f'task.prompt="{written}"',
        "task.labels=[' no',' yes']",
        f"task.rule={rule}",
    ]


def exported(run_dir: RunDir, to: str, *words: str) -> Path:
    """Export a run; return what was written."""
    out = run_dir.path.parent / f"out.{to}"
    options, _ = export.parsed([f"to={to}", f"out={out}", *words])
    export.export(run_dir, options)
    return out


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the values of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def labels(run_dir: RunDir) -> list[dict[str, Any]]:
    """Return the rows of labels.jsonl."""
    return lines(run_dir.labels)
