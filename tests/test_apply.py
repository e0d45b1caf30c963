"""New rows labelled with the labels of a finished run: at the cost of their own tokens, as a run of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from icm_hpc.rundir.folder import RunDir
from tests.test_submit import submit

ROWS = 40


def claims(folder: Path, name: str, numbers: range) -> Path:
    """Write claims with gold labels, two to a question; their ids are places, and so the same in each file."""
    path = folder / name
    lines = [
        {"question": f"Q{i // 2}?", "choice": f"It is {i}.", "consistency_id": i // 2 % 8, "label": i % 2}
        for i in numbers
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs that holds a finished one, `first`."""
    root = tmp_path_factory.mktemp("runs")
    data = claims(root, "first.jsonl", range(16))
    done = submit("model=stub", "task=claims", f"task.data={data}", f"run.root={root}", "run=first", "search.steps=20")
    assert done.returncode == 0, done.stderr
    return root


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of labels.jsonl."""
    return [json.loads(line) for line in (run_dir / "labels.jsonl").read_text().splitlines()]


def test_new_rows_are_labelled_by_a_run_of_their_own(finished: Path) -> None:
    more = claims(finished, "more.jsonl", range(100, 100 + ROWS))
    done = submit("run=first", f"run.root={finished}", f"task.data={more}", command="apply")
    assert done.returncode == 0, done.stderr
    assert "40 given the pool of" in done.stdout
    assert "agreement with gold" in done.stdout
    new, old = rows(finished / "first-apply"), rows(finished / "first")
    assert [set(row) for row in new] == [set(old[0])] * ROWS, "the columns are the same"
    assert {row["id"] for row in new} == {f"row-{i}" for i in range(ROWS)}, "ids that the pool has, too, are other rows"
    summary = json.loads((finished / "first-apply" / "summary.json").read_text())
    assert (summary["examples"], summary["shards"], summary["beyond"]["examples"]) == (ROWS, [], ROWS)
    assert summary["since_start"]["prompts"] == ROWS
    assert (finished / "first-apply" / "report.html").exists()


def test_one_new_row_is_labelled(finished: Path) -> None:
    one = claims(finished, "one.jsonl", range(500, 501))
    done = submit("run=first", f"run.root={finished}", f"task.data={one}", "run.name=one", command="apply")
    assert done.returncode == 0, done.stderr
    assert len(rows(finished / "one")) == 1


def test_an_applied_run_is_a_run_to_every_command(finished: Path, tmp_path: Path) -> None:
    more = claims(finished, "others.jsonl", range(200, 220))
    assert (
        submit("run=first", f"run.root={finished}", f"task.data={more}", "run.name=others", command="apply").returncode
        == 0
    )
    here = ("run=others", f"run.root={finished}")
    assert "others" in submit(*here, command="status").stdout
    assert json.loads(submit(*here, "json=true", command="evaluate").stdout)["labelled"] == 20
    exported = submit(*here, "to=csv", f"out={tmp_path / 'labels.csv'}", command="export")
    assert json.loads(exported.stdout)["records"] == 20, exported.stderr
    again = submit(*here, command="resume")
    assert again.returncode == 1
    assert "has finished: its labels are in" in again.stderr


def test_it_goes_on_without_the_run_whose_labels_it_shows(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    more = claims(tmp_path, "more.jsonl", range(100, 120))
    assert submit("run=first", f"run.root={root}", f"task.data={more}", "run.name=new", command="apply").returncode == 0
    labels = (root / "new" / "labels.jsonl").read_bytes()
    shutil.rmtree(root / "first")
    more.unlink()
    for name in ("labels.jsonl", "summary.json"):
        (root / "new" / name).unlink()
    resumed = submit("run=new", f"run.root={root}", command="resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (root / "new" / "labels.jsonl").read_bytes() == labels
    assert json.loads((root / "new" / "summary.json").read_text())["since_start"]["prompts"] == 0, "pieces were kept"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=first"], "which rows? Write task.data=FILE"),
        (["task.data=DATA"], "which run? Write run=NAME"),
        (["run=second", "task.data=DATA"], "there is no run second"),
        (["run=first", "task.data=DATA", "task=reviews"], "leave out task="),
        (["run=first", "task.data=DATA", "task.label_words=[good,bad]"], "leave out task.labels and task.label_words"),
        (["run=first", "task.data=nowhere.csv"], "task.data=nowhere.csv: there is no such file"),
        (["run=first", "task.data=DATA", "run.name=first"], "run.name=first is the finished run itself"),
        (
            ["run=first", "task.data=DATA", "search.label_prior=[0.2,0.3,0.5]"],
            "has 3 shares, and the task has 2 labels",
        ),
    ],
)
def test_what_cannot_be_applied_is_refused_with_the_remedy(finished: Path, words: list[str], message: str) -> None:
    data = claims(finished, "data.jsonl", range(300, 310))
    given = [word.replace("DATA", str(data)) for word in words]
    before = sorted(finished.rglob("*"))
    refused = submit(*given, f"run.root={finished}", command="apply")
    assert refused.returncode == 1
    assert message in refused.stderr
    assert sorted(finished.rglob("*")) == before, "nothing is left of a run that was refused"


def test_a_run_without_labels_and_one_without_a_pool_are_refused(finished: Path, tmp_path: Path) -> None:
    more = claims(tmp_path, "more.jsonl", range(100, 120))
    root = tmp_path / "runs"
    shutil.copytree(finished / "first", root / "first")
    assert submit("run=first", f"run.root={root}", f"task.data={more}", command="apply").returncode == 0
    chained = submit("run=first-apply", f"run.root={root}", f"task.data={more}", command="apply")
    assert "name that one" in chained.stderr
    (root / "first" / "labels.jsonl").unlink()
    refused = submit("run=first", f"run.root={root}", f"task.data={more}", command="apply")
    assert "to write it: python -m icm_hpc.resume run=first" in refused.stderr


def test_what_an_applied_run_has_saved_keeps_its_pool_and_its_model(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished / "first", root / "first")
    shutil.copytree(finished / "first", root / "second")
    more = claims(tmp_path, "more.jsonl", range(100, 120))
    here = (f"run.root={root}", f"task.data={more}", "run.name=new")
    assert submit("run=first", *here, command="apply").returncode == 0
    new = RunDir(root / "new")
    new.labels.unlink()  # it was stopped before its end: pieces are all that it has saved
    assert new.has_state()
    other = submit("run=second", *here, command="apply")
    assert "belongs to a run of another configuration (search.pool_run" in other.stderr
    assert new.served_model.exists()
    assert submit("run=new", f"run.root={root}", command="resume").returncode == 0
