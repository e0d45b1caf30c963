"""The page of a run: what is on it, whatever the run was; hostile rows; nothing from a network; bounded size."""

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.reports import page
from icm_hpc.rundir.attempts import record_attempt, record_end
from icm_hpc.rundir.files import write_atomically
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.outcome import NAME as OUTCOME
from tests import offline
from tests.driver import test_whole_runs as whole_runs
from tests.exports import runs

from . import pages

REVIEWS = ("task=reviews", "task.limit=16")
SECTIONS = ["verdict", "course", "margins", "stability", "degenerate", "rows", "gold", "cost", "provenance"]


def stopped(folder: Path, *arguments: str) -> RunDir:
    """Return a run that has saved states and no result."""
    run_dir = runs.finished(folder, *arguments)
    for path in (run_dir.labels, run_dir.summary, *run_dir.path.glob(f"shard-*/{OUTCOME}")):
        path.unlink()
    record_end(run_dir, record_attempt(run_dir, "local-1"), "stopped, state saved", {})
    return run_dir


def test_a_finished_run_is_shown_in_order_with_its_plots(tmp_path: Path) -> None:
    found = pages.of(runs.finished(tmp_path, *REVIEWS, "search.restarts=3"))
    assert [values["id"] for tag, values in found.elements if tag == "section"] == SECTIONS
    assert found.count("svg") >= 8
    for words in ("agreement of restarts", "negative", "python -m icm_hpc.submit", "demonstrations, then the text"):
        assert words in found.text


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ((), []),
        (("search.label_prior=[1,3]",), ["shares of labels", "given: negative 0.250, positive 0.750"]),
        (("search.label_prior=estimated",), ["shares of labels", "estimated: negative 0."]),
        (("search.word_prior=true",), ["subtracted from log P", "negative -"]),
    ],
)
def test_the_page_shows_the_priors_that_were_used(tmp_path: Path, words: tuple[str, ...], shown: list[str]) -> None:
    text = pages.of(runs.finished(tmp_path, *REVIEWS, *words)).text
    assert [part for part in shown if part not in text] == []
    assert ("shares of labels" in text) == ("shares of labels" in shown)


def test_the_page_is_written_for_its_owner_only(tmp_path: Path) -> None:
    run_dir = runs.finished(tmp_path, *REVIEWS)
    page.write(run_dir)
    assert run_dir.report.stat().st_mode & 0o777 == run_dir.labels.stat().st_mode & 0o777 == 0o600


def test_warnings_stand_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "OfflineClient", whole_runs.OneSided)
    claims = ("task=claims", f"task.data={whole_runs.claims_file(tmp_path, 16)}")
    found = pages.of(runs.finished(tmp_path, *claims, "search.objective=margin"))
    assert found.text.index("Finished, with 1 warning") < found.text.index("no better than one label for all examples")
    assert found.text.index("do not trust it") < found.text.index("Margins by label")
    assert ("section", {"id": "verdict", "class": "bad"}) in found.elements


def test_a_stopped_run_shows_what_it_has_saved(tmp_path: Path) -> None:
    found = pages.of(stopped(tmp_path, *REVIEWS, "search.restarts=2"))
    assert "Stopped, with its state saved: no result yet." in found.text
    assert "the last saved states" in found.text
    assert "python -m icm_hpc.resume run=test" in found.text
    assert "Least certain: 16 of 16" in found.text
    assert "demonstrations, then the text" in found.text
    assert "course" in found.attributes("id")
    assert "degenerate" not in found.attributes("id")


def test_a_trace_that_ends_within_a_line_is_shown_up_to_there(tmp_path: Path) -> None:
    run_dir = stopped(tmp_path, *REVIEWS)
    with (run_dir.shard(0) / "trace.jsonl").open("a") as file:
        file.write('{"step": 99, "ener')
    assert "course" in pages.of(run_dir).attributes("id")


def test_a_run_that_has_not_started_has_a_page(tmp_path: Path) -> None:
    config, run_dir, _ = offline.prepare(tmp_path, *REVIEWS)
    write_atomically(run_dir.config, loading.to_yaml(config).encode())
    found = pages.of(run_dir)
    assert "Not started." in found.text
    assert "rows" not in found.attributes("id")


def test_hostile_rows_are_text(tmp_path: Path) -> None:
    found = pages.of(runs.hostile(tmp_path))
    assert found.scripts == [Path(page.__file__).with_name("page.js").read_text()]
    for text in ("<script>alert(1)</script>", "a,b;\t'c'|\"d\"", runs.ARABIC, "👩🏽‍🔬"):
        assert text in found.text
    assert "characters are not shown" in found.text
    assert found.text.count("x" * 2000) == 0
    assert all(values.get("dir") == "auto" for tag, values in found.elements if tag == "pre" and "aria-label" in values)
    assert [name for _, values in found.elements for name in values if name.startswith("on")] == []


def test_hostile_label_words_are_text_in_plots_too(tmp_path: Path) -> None:
    rows = [{"id": n, "text": f"Text {n}."} for n in range(12)]
    words = "task.labels=[' </svg><script>1</script>', ' $x_2$\\\"']"
    found = pages.of(runs.finished(tmp_path, *runs.own_task(tmp_path, rows)[:-2], words))
    assert len(found.scripts) == 1
    assert found.count("svg") >= 6
    assert "all $x_2$" in found.text
    assert found.text.count("</svg><script>1</script>") > 5


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    found = pages.of(runs.finished(tmp_path, *REVIEWS, "search.restarts=2"))
    links = [
        link
        for name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster")
        for link in found.attributes(name)
    ]
    assert links
    assert [link for link in links if not link.startswith("#")] == []
    assert re.findall(r"@import|url\((?!#)", found.html) == []
    assert {"link", "iframe", "img", "object", "embed", "base"}.isdisjoint(tag for tag, _ in found.elements)
    (policy,) = [values["content"] for _, values in found.elements if values.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(found.scripts[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_ids_are_unique_though_each_plot_has_its_own(tmp_path: Path) -> None:
    ids = pages.of(runs.finished(tmp_path, *REVIEWS)).attributes("id")
    assert len(ids) == len(set(ids))


def test_a_hundred_thousand_rows_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    arguments = ("task=claims", "task.data=gone.jsonl")
    config, run_dir, _ = offline.prepare(tmp_path, *arguments)
    row = {
        "text": "<" * 5000,
        "logprobs": {"False": -1.0, "True": -0.5},
        "group": "g",
        "by": "apply",
        "stability": None,
    }
    with run_dir.labels.open("w") as file:
        for n in range(100_000):
            file.write(json.dumps({"id": n, "label": n % 2, "word": "True", "margin": n % 777 / 100, **row}) + "\n")
    write_atomically(run_dir.config, loading.to_yaml(config).encode())
    found = pages.of(run_dir)
    assert len(found.html) < 1_000_000
    assert "Least certain: 50 of 100,000" in found.text


def test_many_labels_have_a_table(tmp_path: Path) -> None:
    rows = [{"id": n, "text": f"Text {n}.", "label": f"l{n % 70}"} for n in range(100)]
    labels = "task.labels={" + ", ".join(f'l{n}: " label{n}"' for n in range(77)) + "}"
    own = runs.own_task(tmp_path, rows)
    found = pages.of(runs.finished(tmp_path, *own[:-2], labels, "search.method=random"))
    assert "Table of 77 labels" in found.text
    assert "The pairs that are confused most often" in found.text
    assert len(found.html) < 600_000


def test_without_matplotlib_the_page_has_no_plots_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = runs.finished(tmp_path, *REVIEWS)
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    found = pages.of(run_dir)
    assert found.count("svg") == 0
    assert "Without plots: matplotlib cannot be used here" in found.text
    assert "rows" in found.attributes("id")


def test_conflicts_that_are_left_are_shown_in_pairs(tmp_path: Path) -> None:
    run_dir = runs.finished(tmp_path, *REVIEWS)
    lines = runs.labels(run_dir)
    run_dir.labels.write_text("\n".join(json.dumps({**line, "label": 1, "word": "positive"}) for line in lines) + "\n")
    found = pages.of(run_dir)
    assert "Conflicts that are left: 8" in found.text
    assert found.attributes("class").count("pair") == 8


def test_gold_labels_are_compared_with_an_interval(tmp_path: Path) -> None:
    run_dir = runs.finished(tmp_path, *REVIEWS)
    right = {line["id"]: line["label"] for line in runs.labels(run_dir)}
    run_dir.gold.write_text(json.dumps(right))
    found = pages.of(run_dir)
    assert "16 of 16 labels agree: 1.000, 95 % interval 0.806 to 1.000" in found.text
    assert found.attributes("class").count("differs") == 0


def test_without_gold_labels_there_is_no_comparison(tmp_path: Path) -> None:
    run_dir = runs.finished(tmp_path, *REVIEWS)
    run_dir.gold.write_text("{}")
    found = pages.of(run_dir)
    assert "gold" not in found.attributes("id")
    assert "agreement with gold" not in found.text
