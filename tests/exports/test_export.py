"""What the command exports and where it writes: filters, order, gold labels, refusals."""

import contextlib
import csv
import dataclasses
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from icm_hpc import export
from icm_hpc.errors import ConfigError, DamagedFile
from icm_hpc.exports import FORMATS, TAKES, writing
from tests.exports.runs import exported, finished, labels, lines

ROOT = Path(__file__).parents[2]


def test_the_command_writes_the_file_for_its_owner_and_prints_what_it_holds(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    out = tmp_path / "new" / "labels.jsonl"
    argv = [sys.executable, "-m", "icm_hpc.export", f"run.root={tmp_path}", "run=test", "to=sft", f"out={out}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["records"], printed["left_out"]) == (8, {})
    assert [one["prompt"] for one in lines(out)] == [row["text"] for row in labels(run_dir)]
    assert out.stat().st_mode & 0o777 == 0o600
    assert list(out.parent.iterdir()) == [out]
    again = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.startswith("icm_hpc: out=")
    assert "overwrite=true" in again.stderr


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    "words",
    [
        ("task.limit=24", "search.pool_size=12", "search.restarts=2"),
        ("task.limit=24", "search.pool_size=8", "search.beyond=apply"),
    ],
    ids=["shards and restarts", "beyond the pool"],
)
def test_a_run_of_any_shape_is_exported_in_every_format(tmp_path: Path, to: str, words: tuple[str, ...]) -> None:
    run_dir = finished(tmp_path, *words)
    options = export.Options(to, str(tmp_path / "out"))
    found = export.export(run_dir, options)
    expected = 12 if to in ("dpo", "reward") else 24
    assert found["records"] == expected


def test_filters_leave_out_rows_and_say_how_many(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=24", "search.restarts=3")
    rows = labels(run_dir)
    bound = sorted(row["margin"] for row in rows)[6]
    options, _ = export.parsed(["to=sft", f"out={tmp_path / 'x'}", f"min_margin={bound}", "stable=1"])
    found = export.export(run_dir, options)
    sure = [row for row in rows if row["margin"] >= bound]
    kept = [row["text"] for row in sure if row["stability"] == 1]
    assert [one["prompt"] for one in lines(tmp_path / "x")] == kept
    assert 0 < len(kept) < len(sure) < len(rows)
    assert found["left_out"] == {"min_margin": 6, "stable": len(sure) - len(kept)}


def test_the_least_certain_rows_come_first_by_order_margin(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=24")
    by_margin = sorted(labels(run_dir), key=lambda row: row["margin"])
    written = json.loads(exported(run_dir, "argilla", "order=margin").read_text())
    assert [one["id"] for one in written] == [row["id"] for row in by_margin]


@pytest.mark.parametrize("to", sorted(set(FORMATS) - set(TAKES["gold"])))
def test_no_format_holds_gold_labels_unasked(tmp_path: Path, to: str) -> None:
    with pytest.raises(ConfigError, match="gold=true: only with to=parquet, hf, csv"):
        export.parsed([f"to={to}", "out=x", "gold=true"])
    run_dir = finished(tmp_path, "task.limit=8")
    run_dir.gold.write_text("damaged")
    exported(run_dir, to)


def test_gold_true_adds_a_column(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    known = json.loads(run_dir.gold.read_text())
    with exported(run_dir, "csv", "gold=true").open(newline="") as file:
        assert [row["gold"] for row in csv.DictReader(file)] == [str(known[row["id"]]) for row in labels(run_dir)]
    with exported(run_dir, "csv", "overwrite=true").open(newline="") as file:
        assert "gold" not in next(csv.reader(file))
    run_dir.gold.write_text("{}")
    with pytest.raises(ConfigError, match="no gold labels"):
        exported(run_dir, "csv", "gold=true", "overwrite=true")


def test_a_run_without_labels_or_with_damaged_ones_is_refused(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    run_dir.labels.write_text(run_dir.labels.read_text()[:-40])
    with pytest.raises(DamagedFile, match=r"labels.jsonl, line 8: is damaged; python -m icm_hpc.resume"):
        exported(run_dir, "sft")
    run_dir.labels.unlink()
    with pytest.raises(ConfigError, match="the run has not ended"):
        exported(run_dir, "sft")


def test_a_run_without_figures_is_exported_with_a_warning(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    run_dir.summary.unlink()
    options, _ = export.parsed(["to=hf", f"out={tmp_path / 'hf'}"])
    assert export.export(run_dir, options)["warnings"] == [f"{run_dir.summary} cannot be read"]
    assert "figures of the run were not there" in (tmp_path / "hf" / "README.md").read_text()


def test_filters_that_nothing_passes_are_refused_with_the_reason(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    with pytest.raises(
        ConfigError, match=r"no row is left to export \(8 by min_margin\); the largest margin of a row is"
    ):
        exported(run_dir, "sft", "min_margin=1000")
    with pytest.raises(ConfigError, match="the run had one search"):
        exported(run_dir, "sft", "stable=0.5")
    assert not (tmp_path / "out.sft").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["to=xml", "out=x"], "to=xml: one of parquet, hf"),
        (["to=csv"], "out is missing"),
        (["to=csv", "out=x", "stable=2"], "stable=2.0: a share"),
        (["to=csv", "out=x", "min_margin=much"], "min_margin=much: expected a number"),
        (["to=csv", "out=x", "order=random"], "order=random: one of data, margin"),
        (["to=csv", "out=x", "chat=true"], "chat=true: only with to=sft"),
        (["to=csv", "out=x", "gold=yes"], "gold=yes: expected true or false"),
    ],
)
def test_an_option_that_cannot_be_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export.parsed(words)


def test_nothing_but_an_export_is_replaced(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    folder = exported(run_dir, "hf")
    written = (folder / "README.md").read_bytes()
    exported(run_dir, "hf", "overwrite=true")
    assert (folder / "README.md").read_bytes() == written, "the same labels give the same bytes"
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="holds more than an export"):
        exported(run_dir, "hf", "overwrite=true")
    with pytest.raises(ConfigError, match="in the run's own folder"):
        export.export(run_dir, export.Options("csv", str(run_dir.labels), overwrite=True))
    assert (folder / "mine.txt").read_text() == "kept"


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):
        one.bind(path.name)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(os.mkfifo, "a FIFO"), (_socket, "a socket"), (Path.mkdir, "a folder")],
    ids=["FIFO", "socket", "folder"],
)
def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
    out, link = tmp_path / "out", tmp_path / "link"
    make(out)
    link.symlink_to(out)
    before = out.lstat()
    for path in (out, link):
        for overwrite in (False, True):
            with (
                pytest.raises(ConfigError, match=f"is {kind}, and a file is to be written") as refusal,
                writing.published(path, overwrite=overwrite),
            ):
                pytest.fail("it is refused before anything is written")
            assert "overwrite" not in str(refusal.value)
    assert out.lstat() == before
    assert link.is_symlink()
    assert set(tmp_path.iterdir()) == {out, link}


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    with (
        pytest.raises(ConfigError, match="is a file, and a folder is to be written"),
        writing.published(tmp_path / "out", overwrite=True, is_folder=True),
    ):
        pytest.fail("it is refused before anything is written")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device nodes can be made here")
    with pytest.raises(ConfigError, match="is a device, and a file"), writing.published(null, overwrite=True):
        pytest.fail("it is refused before anything is written")
    assert null.is_char_device()


def test_the_file_that_a_link_names_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "labels.csv", tmp_path / "latest.csv"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    with pytest.raises(ConfigError, match="say overwrite=true"), writing.published(link, overwrite=False):
        pytest.fail("it is refused before anything is written")
    with writing.published(link, overwrite=True) as made:
        made.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    target.unlink()
    with pytest.raises(ConfigError, match="is a link to nothing"), writing.published(link, overwrite=True):
        pytest.fail("it is refused before anything is written")


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = finished(tmp_path, "task.limit=8")
    out = exported(run_dir, "sft")
    before = out.read_bytes()

    def fail(path: Path, selection: object) -> int:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "sft", fail)
    with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
        exported(run_dir, "sft", "overwrite=true")
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_every_option_is_in_the_help() -> None:
    told = {name.partition("=")[0] for name in export.ARGUMENTS}
    assert told == {field.name for field in dataclasses.fields(export.Options)} | {"run", "run.root"}
