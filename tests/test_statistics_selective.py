"""When a classifier abstains: the rules against what they say, and what they promise, simulated."""

import numpy as np
import pytest

from milkit.statistics.false_discovery import adjusted
from milkit.statistics.selective import conformal_p, probability_threshold

PROBABILITY = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5])
RIGHT = np.array([True, True, True, False, True, False])


@pytest.mark.parametrize(("accuracy", "value"), [(0.99, 0.8), (0.8, 0.6), (0.76, 0.6), (4 / 6, 0.0)])
def test_the_threshold_is_the_lowest_that_is_accurate_enough(accuracy: float, value: float) -> None:
    assert probability_threshold(PROBABILITY, RIGHT, accuracy) == (value, True)


def test_equal_probabilities_are_kept_or_left_together() -> None:
    right = np.array([True, True, False, True, True, True])
    assert probability_threshold(PROBABILITY, right, 0.99, keep=0.1) == (0.9, True)


def test_an_accuracy_out_of_reach_keeps_half_of_the_items_and_says_so() -> None:
    assert probability_threshold(PROBABILITY, ~RIGHT, 0.9) == (0.8, False)


def test_the_order_of_the_items_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(6)
    assert probability_threshold(PROBABILITY[order], RIGHT[order], 0.8) == (0.6, True)


def test_the_conformal_p_counts_those_at_least_as_far() -> None:
    known = np.array([3.0, 1.0, 2.0, 2.0])
    distances = [0.5, 1.0, 2.0, 2.5, 3.0, 9.0]
    expected = [(1 + sum(k >= distance for k in known)) / 5 for distance in distances]
    assert conformal_p(np.array(distances), known).tolist() == expected


def test_at_most_a_share_of_like_items_is_unlike() -> None:
    generator = np.random.default_rng(0)
    rejected = [
        (conformal_p(generator.gamma(2, size=50), generator.gamma(2, size=39)) <= 0.05).mean() for _ in range(400)
    ]
    assert np.mean(rejected) == pytest.approx(2 / 40, abs=0.006)


def test_few_known_items_make_nothing_unlike() -> None:
    assert (conformal_p(np.full(5, np.inf), np.ones(18)) > 0.05).all()


def test_adjusted_p_are_those_of_benjamini_and_hochberg() -> None:
    p = np.random.default_rng(1).random((4, 5)) ** 2
    flat, m = np.sort(p.ravel()), p.size
    expected = {value: min(flat[j] * m / (j + 1) for j in range(i, m)) for i, value in enumerate(flat)}
    np.testing.assert_allclose(adjusted(p), np.vectorize(expected.get)(p))


def test_what_was_not_tested_is_no_test() -> None:
    p = np.array([0.01, np.nan, 0.04, np.nan])
    np.testing.assert_allclose(adjusted(p), [0.02, np.nan, 0.04, np.nan])
    assert np.isnan(adjusted(np.full(3, np.nan))).all()
