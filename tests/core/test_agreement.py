"""Agreement between searches."""

import numpy as np
import pytest

from icm_hpc.core import agreement
from icm_hpc.core.types import Labels, frozen_labels

A = frozen_labels([0, 0, 1, 1, 2])


def test_exchanged_names_of_labels_are_aligned() -> None:
    exchanged = frozen_labels([2, 2, 0, 0, 1])
    assert agreement.aligned(exchanged, A, 3).tolist() == A.tolist()
    assert agreement.pairwise([A, exchanged], 3) == 1.0


def test_of_equals_names_are_kept() -> None:
    half = frozen_labels([0, 1])
    assert agreement.aligned(half, frozen_labels([0, 0]), 2).tolist() == [0, 1]


def test_what_a_search_left_unlabelled_does_not_count() -> None:
    part = frozen_labels([0, -1, 1, 0, -1])
    shares = agreement.with_result(A, [part, A], 3)
    assert shares.tolist() == pytest.approx([1, 1, 1, 0.5, 1])
    assert np.isnan(agreement.with_result(A, [part], 3)[1])


def test_random_searches_agree_as_often_as_chance_and_equal_ones_more() -> None:
    rng, units = np.random.default_rng(1), [(i, i + 1) for i in range(0, 40, 2)]

    def drawn() -> Labels:
        firsts = rng.integers(2, size=20)
        return frozen_labels(np.stack([firsts, 1 - firsts], axis=1).ravel())

    above = 0
    for _ in range(40):
        searches = [drawn() for _ in range(3)]
        above += (agreement.pairwise(searches, 2) or 0) > agreement.by_chance(searches, units, 2)
    assert above <= 6, "about one in twenty"
    same = drawn()
    assert agreement.pairwise([same, same], 2) == 1 > agreement.by_chance([same, same], units, 2)


def test_one_search_says_nothing_of_agreement() -> None:
    assert agreement.pairwise([A], 3) is None
