"""What submit prints stays readable with many labels."""

from icm_hpc.jobs import launch
from icm_hpc.rundir import progress


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
