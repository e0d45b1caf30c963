"""The shares of labels that zero-shot scores give."""

import numpy as np
import pytest

from icm_hpc.core import shares


def scores_of(margins: list[float]) -> np.ndarray:
    """Return scores of two labels with these margins of the second."""
    return np.stack([np.zeros(len(margins)), np.array(margins)], axis=1)


def test_a_model_that_is_certain_gives_the_counts_of_its_labels_and_one_example_of_each() -> None:
    assert shares.estimated(scores_of([50.0] * 15 + [-50.0] * 3)) == pytest.approx((4 / 20, 16 / 20))


def test_a_model_that_knows_nothing_gives_equal_shares() -> None:
    assert shares.estimated(np.full((12, 3), -7.0)) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


@pytest.mark.parametrize("n", [1, 256])
def test_no_share_is_0_or_1_even_if_all_examples_get_one_label(n: int) -> None:
    low, high = shares.estimated(scores_of([200.0] * n))
    assert 0 < low < high < 1
    assert low + high == pytest.approx(1)


def test_a_constant_added_to_all_words_of_an_example_changes_nothing() -> None:
    scores = np.log(np.random.default_rng(0).dirichlet((2.0, 1.0, 1.0), size=20))
    assert shares.estimated(scores - np.arange(20)[:, None]) == pytest.approx(shares.estimated(scores))
