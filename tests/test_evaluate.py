"""Labels beside gold labels: agreement, balanced accuracy, AUROC and confusions."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from icm_hpc import evaluate
from icm_hpc.config.loading import load
from icm_hpc.rundir.folder import RunDir
from icm_hpc.tasks import gold


def figures(folder: Path, gold_labels: list[int], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a run that ended with these lines."""
    run_dir = RunDir(folder)
    run_dir.labels.write_text("".join(json.dumps({"id": i, **row}) + "\n" for i, row in enumerate(rows)))
    run_dir.gold.write_bytes(gold.packed({str(i): label for i, label in enumerate(gold_labels)}))
    return evaluate.figures_of_run(load(["model=stub"]), run_dir)


def row(label: int, *logprobs: float, words: str = "no yes maybe") -> dict[str, Any]:
    """Return a line of labels.jsonl."""
    return {"label": label, "logprobs": dict(zip(words.split(), logprobs, strict=False))}


def test_one_label_for_all_agrees_often_and_is_no_better_than_chance() -> None:
    found = evaluate.compared({str(i): int(i < 2) for i in range(10)}, {str(i): 0 for i in range(10)})
    assert found is not None
    assert (found.share, found.majority, found.balanced_accuracy) == (0.8, 0.8, 0.5)


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true, labels = rng.integers(4, size=60).tolist(), rng.integers(4, size=60).tolist()
    found = evaluate.compared(
        dict(zip(map(str, range(60)), true, strict=True)), {str(i): x for i, x in enumerate(labels)}
    )
    assert found is not None
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, labels))


def test_of_two_labels_auroc_ranks_by_the_margin_of_label_1() -> None:
    logprobs = np.log([[0.9, 0.1], [0.6, 0.3], [0.5, 0.4], [0.1, 0.2], [0.2, 0.8]])
    true = [0, 0, 1, 0, 1]
    expected = roc_auc_score(true, logprobs[:, 1] - logprobs[:, 0])
    assert evaluate.auroc(true, logprobs.tolist()).value == pytest.approx(expected)


def test_of_more_labels_auroc_is_the_mean_of_each_gold_label_against_the_others() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), size=30)
    true = np.arange(30) % 3  # no example of the fourth
    each = [roc_auc_score(true == label, probabilities[:, label]) for label in range(3)]
    assert evaluate.auroc(true.tolist(), np.log(probabilities).tolist()).value == pytest.approx(np.mean(each))


def test_the_figures_name_the_most_frequent_confusions(tmp_path: Path) -> None:
    rows = [row(0, -1, -2, -3), row(1, -1, -2, -3), row(1, -3, -1, -1), row(2, -3, -2, -1), row(2, -3, -1, -2)]
    found = figures(tmp_path, [0, 0, 0, 2, 1], rows)
    assert (found["labelled"], found["agreeing"], found["agreement"]) == (5, 2, 0.4)
    assert found["confusions"] == [
        {"gold": "no", "label": "yes", "examples": 2},
        {"gold": "yes", "label": "maybe", "examples": 1},
    ]
    assert 0 <= found["auroc"] <= 1
    assert "auroc_left_out" not in found


@pytest.mark.parametrize("missing", [{"label": 1}, {"label": 1, "logprobs": {"no": -1.0}}, row(1, -1, float("-inf"))])
def test_without_all_log_probabilities_auroc_is_left_out_and_says_why(tmp_path: Path, missing: dict[str, Any]) -> None:
    found = figures(tmp_path, [1, 0, 0], [missing, row(0, -1, -2), missing])
    assert found["auroc"] is None
    assert found["auroc_left_out"] == evaluate.NOT_KEPT
    assert found["balanced_accuracy"] == 0.75


def test_of_one_gold_label_there_is_no_auroc(tmp_path: Path) -> None:
    found = figures(tmp_path, [1, 1], [row(1, -2, -1), row(0, -1, -2)])
    assert (found["auroc"], found["auroc_left_out"]) == (None, evaluate.ONE_LABEL)


def test_a_run_without_gold_labels_is_compared_with_nothing(tmp_path: Path) -> None:
    assert figures(tmp_path, [], [row(1, -2, -1)]) == {"labelled": 0}


def test_no_command_imports_scikit_learn_before_it_is_used() -> None:
    code = "import sys, icm_hpc.evaluate, icm_hpc.submit; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
