"""What submit prints stays readable with many labels."""

from pathlib import Path

import pytest

from icm_hpc.driver.summary import from_json
from icm_hpc.jobs import launch
from icm_hpc.rundir import progress
from tests import offline


def test_few_labels_are_listed_with_their_counts() -> None:
    assert launch._words((" no", " yes")) == "labels ' no', ' yes'"
    assert progress.balance((3, 5)) == "3+5"
    assert launch._labels({"no": 3, "yes": 5}) == "no 3, yes 5"


def test_of_many_labels_the_commonest_are_listed() -> None:
    counts = {f"w{n}": n % 12 for n in range(77)}
    assert launch._words([f" w{n}" for n in range(77)]).startswith("77 labels ' w0', ' w1'")
    assert progress.balance(list(counts.values())) == "11+11+11+11+11+11+10+10+..., 70 of 77 labels"
    assert launch._labels(counts).startswith("w11 11, w23 11, ")
    assert launch._labels(counts).endswith("w22 10, 62 others (70 of 77 labels are used)")


@pytest.mark.parametrize(("prior", "shown"), [("[1,3]", set()), ("[]", set()), ("estimated", {"label_prior"})])
async def test_shares_of_labels_are_printed_if_they_were_estimated(tmp_path: Path, prior: str, shown: set[str]) -> None:
    words = ("task=reviews", "task.limit=8", "search.method=random", f"search.label_prior={prior}")
    summary, _, _ = await offline.label(tmp_path, *words)
    assert set(launch._shares(from_json(summary))) == shown
