"""The figures of held-out rows: those of scikit-learn and SciPy where these have them, and intervals that know groups."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from icm_hpc.core.energy import each_label, margins
from icm_hpc.heldout import statistics
from icm_hpc.heldout.statistics import Given, Ints


def some(n: int, n_labels: int = 2, seed: int = 0) -> tuple[Ints, Given]:
    """Return gold labels of rows, and labels that agree with most of them; scores have ties."""
    rng = np.random.default_rng(seed)
    true = rng.integers(n_labels, size=n)
    probabilities = np.round(rng.dirichlet(np.ones(n_labels), size=n) + 0.5 * np.eye(n_labels)[true], 1) + 0.05
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return true, Given(probabilities.argmax(axis=1), np.log(probabilities))


@pytest.mark.parametrize("n_labels", [2, 4])
def test_figures_are_those_of_scikit_learn(n_labels: int) -> None:
    true, given = some(80, n_labels)
    found = statistics.figures(true, np.arange(80), [given], 0)
    odds = each_label(margins, given.logprobs)
    areas = [roc_auc_score(true == label, odds[:, label]) for label in range(n_labels)]
    assert found.accuracy.value == pytest.approx((given.labels == true).mean())
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(true, given.labels))
    assert found.auroc is not None
    assert found.auroc.value == pytest.approx(np.mean(areas), abs=1e-9)
    for one in (found.accuracy, found.balanced_accuracy, found.auroc, found.calibration_error):
        assert one.low < one.value < one.high


def test_the_interval_of_independent_rows_is_that_of_the_binomial() -> None:
    true = np.zeros(400, dtype=np.int64)
    labels = (np.arange(400) % 4 == 0).astype(np.int64)  # three in four are right
    found = statistics.figures(true, np.arange(400), [Given(labels, np.zeros((400, 2)))], 0)
    error = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((0.75 - error, 0.75 + error), abs=0.01)
    assert found.auroc is None, "there is one gold label"


def test_rows_of_one_group_do_not_say_how_much_groups_differ() -> None:
    true, labels = np.array([0, 1, 1]), np.array([0, 1, 0])
    found = statistics.figures(true, np.zeros(3, dtype=np.int64), [Given(labels, np.zeros((3, 2)))], 0)
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert (found.accuracy.low, found.accuracy.high) == (0, 1)


def test_rows_of_a_group_are_drawn_together() -> None:
    true = np.zeros(200, dtype=np.int64)
    labels = (np.arange(200) // 10 % 2).astype(np.int64)  # groups of ten, wholly right or wholly wrong
    given = [Given(labels, np.zeros((200, 2)))]
    alone = statistics.figures(true, np.arange(200), given, 0).accuracy
    grouped = statistics.figures(true, np.arange(200) // 10, given, 0).accuracy
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)


def test_the_calibration_error_is_the_mean_distance_of_probability_and_agreement() -> None:
    logprobs = np.log(np.tile([0.2, 0.8], (100, 1)))
    labels, true = np.ones(100, dtype=np.int64), (np.arange(100) % 10 < 6).astype(np.int64)
    found = statistics.figures(true, np.arange(100), [Given(labels, logprobs)], 0)
    assert sum(one.count for one in found.reliability) == 100
    assert all(one.probability == pytest.approx(0.8) for one in found.reliability)
    assert found.calibration_error.value == pytest.approx(0.2)


def test_seeds_have_a_mean_and_its_standard_error() -> None:
    true, first = some(50)
    second = Given(np.where(np.arange(50) < 10, 1 - true, true), first.logprobs)
    found = statistics.figures(true, np.arange(50), [first, second], 1)
    shares = [float((one.labels == true).mean()) for one in (first, second)]
    assert list(found.accuracies) == shares
    assert found.accuracy.value == pytest.approx(np.mean(shares))
    assert found.seed_error == pytest.approx(abs(shares[0] - shares[1]) / 2)
    assert statistics.figures(true, np.arange(50), [first], 0).seed_error is None


def test_mcnemar_counts_the_rows_in_which_two_conditions_differ() -> None:
    true = np.zeros(40, dtype=np.int64)
    first, second = np.zeros(40, dtype=np.int64), np.zeros(40, dtype=np.int64)
    second[:10], first[10:12] = 1, 1
    none = np.zeros((40, 2))
    found = statistics.mcnemar(true, ("icm", Given(first, none)), ("random", Given(second, none)))
    assert (found.only_first, found.only_second) == (10, 2)
    assert found.p == pytest.approx(2 * sum([1, 12, 66]) / 2**12)
    same = statistics.mcnemar(true, ("icm", Given(first, none)), ("gold", Given(first, none)))
    assert same.p == 1


def test_the_same_labels_have_the_same_intervals() -> None:
    true, given = some(60)
    one, other = (statistics.figures(true, np.arange(60), [given], 0) for _ in range(2))
    assert one == other
