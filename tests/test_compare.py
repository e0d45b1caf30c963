"""Runs beside one another: series over seeds, settings that differ, agreement of labels; as tables, page, picture and CSV."""

import csv
from pathlib import Path

import pytest

from icm_hpc.reports import beside, together
from icm_hpc.rundir.folder import RunDir
from tests.reports import pages
from tests.test_submit import submit

RUN = (
    "model=stub",
    "task.test_share=0.3",
    "task.limit=16",
    "search.steps=10",
    "evaluate.conditions=[icm,gold,zero_shot]",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two seeds of a run with held-out rows, and a baseline without."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        done = submit(*RUN, f"run.root={folder}", f"run=icm-{seed}", f"search.seed={seed}")
        assert done.returncode == 0, done.stderr
        assert "held-out accuracy" in done.stdout
    baseline = submit("model=stub", "task.limit=16", "search.method=random", f"run.root={folder}", "run=chance")
    assert baseline.returncode == 0, baseline.stderr
    return folder


def test_runs_that_differ_in_their_seed_alone_are_one_series(root: Path) -> None:
    found = beside.beside([RunDir(root / name) for name in ("icm-0", "icm-1", "chance")])
    series = {tuple(one.runs): {bar.condition: bar for bar in one.bars} for one in found.series}
    assert set(series) == {("icm-0", "icm-1"), ("chance",)}
    seeds = series["icm-0", "icm-1"]
    assert list(seeds) == ["icm", "gold", "zero_shot"]
    for bar in seeds.values():
        assert bar.accuracy.value == pytest.approx(sum(bar.accuracies) / 2)
        assert 0 <= bar.accuracy.low <= bar.accuracy.value <= bar.accuracy.high <= 1
    assert list(series["chance",]) == ["pool"], "without held-out rows, its own labels are compared"
    differing = dict(found.differing)
    assert differing["search.seed"] == {"icm-0": 0, "icm-1": 1, "chance": 0}
    assert differing["search.method"]["chance"] == "random"
    assert [one.name for one in found.series] == ["stub, method blocks", "stub, method random"]


def test_labels_of_runs_are_compared_on_the_rows_that_both_have(root: Path) -> None:
    found = beside.beside([RunDir(root / name) for name in ("icm-0", "chance")])
    (pair,) = found.agreements
    assert pair.shared == 16
    assert pair.share is not None
    assert 0 <= pair.share <= 1
    same = beside.beside([RunDir(root / "icm-0"), RunDir(root / "icm-0")])
    assert (same.agreements[0].share, same.agreements[0].kappa) == (1, 1)


def test_the_page_loads_nothing_and_names_what_differs(root: Path) -> None:
    found = beside.beside([RunDir(root / name) for name in ("icm-0", "icm-1", "chance")])
    page = pages.read(together.page(found).decode())
    assert page.count("svg") == 1
    assert page.scripts == []
    assert not [one for one in page.attributes("src") + page.attributes("href") if not one.startswith("#")]
    for words in ("search.method", "stub, method random", "Cohen's kappa"):
        assert words in page.text


def test_the_command_prints_tables_and_writes_files(root: Path, tmp_path: Path) -> None:
    printed = submit("runs=icm-*,chance", f"run.root={root}", command="compare")
    assert printed.returncode == 0, printed.stderr
    assert "search.seed: icm-0 0, icm-1 1, chance 0" in printed.stdout
    for kind, begins in ((".png", b"\x89PNG"), (".html", b"<!DOCTYPE html>"), (".csv", b"series,condition")):
        out = tmp_path / f"figure{kind}"
        written = submit("runs=icm-*,chance", f"run.root={root}", f"out={out}", command="compare")
        assert written.stdout.strip() == str(out), written.stderr
        assert out.read_bytes().startswith(begins)
    with (tmp_path / "figure.csv").open() as file:
        assert [row["condition"] for row in csv.DictReader(file)] == ["icm", "gold", "zero_shot", "pool"]


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.csv"
    out.write_text("precious")
    here = ("runs=chance", f"run.root={root}", f"out={out}")
    refused = submit(*here, command="compare")
    assert refused.returncode == 1
    assert "is there already: name another path, or say overwrite=true" in refused.stderr
    assert out.read_text() == "precious"
    assert submit(*here, "overwrite=true", command="compare").returncode == 0
    assert out.read_text().startswith("series,condition")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which runs? Write runs=A,B,C"),
        (["runs=nowhere"], "runs=nowhere: there is no such run"),
        (["runs=chance", "out=figure.jpg"], "ends in .html, .png or .csv"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_remedy(root: Path, words: list[str], message: str) -> None:
    refused = submit(*words, f"run.root={root}", command="compare")
    assert refused.returncode == 1
    assert message in refused.stderr


def test_the_report_of_a_run_shows_its_held_out_rows(root: Path) -> None:
    page = pages.of(RunDir(root / "icm-0"))
    assert "held-out" in page.attributes("id")
    assert "McNemar" in page.text
    assert "held-out" not in pages.of(RunDir(root / "chance")).attributes("id")


def test_evaluate_prints_a_line_for_each_condition(root: Path) -> None:
    printed = submit("run=icm-0", f"run.root={root}", command="evaluate").stdout
    for words in ("held-out:", "condition", "zero_shot", "icm and gold:", "labels agree with gold"):
        assert words in printed


def test_conditions_can_be_added_to_a_finished_run(root: Path) -> None:
    here = ("run=icm-1", f"run.root={root}")
    assert "has finished" in submit(*here, command="resume").stderr
    labels = (root / "icm-1" / "labels.jsonl").read_bytes()
    more = submit(*here, "evaluate.conditions=[icm,gold,zero_shot,random]", command="resume")
    assert more.returncode == 0, more.stderr
    assert (root / "icm-1" / "labels.jsonl").read_bytes() == labels
    assert "random" in submit(*here, command="evaluate").stdout
