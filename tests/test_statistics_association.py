"""Cramér's V and its interval, against the formula and in simulations."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from milkit.statistics.association import cramers_v


def test_v_is_that_of_the_chi_square_statistic() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 3, 80), generator.integers(0, 4, 80)
    table = pd.crosstab(first, second).to_numpy()
    expected = np.sqrt(stats.chi2_contingency(table, correction=False).statistic / (80 * 2))
    assert cramers_v(pd.Series(first), pd.Series(second)).estimate == pytest.approx(expected)


def test_the_limits_are_those_under_which_the_statistic_is_a_quantile() -> None:
    first = pd.Series([0] * 40 + [1] * 40)
    second = pd.Series([0] * 30 + [1] * 10 + [0] * 12 + [1] * 28)
    found = cramers_v(first, second, 0.9)
    statistic = 80 * found.estimate**2
    assert stats.ncx2.cdf(statistic, 1, 80 * found.ci_low**2) == pytest.approx(0.95, abs=1e-6)
    assert stats.ncx2.cdf(statistic, 1, 80 * found.ci_high**2) == pytest.approx(0.05, abs=1e-6)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator, hits = np.random.default_rng(1), 0
    joint = np.array([[0.32, 0.18], [0.18, 0.32]])  # V = 0.28
    for _ in range(300):
        cells = generator.choice(4, 120, p=joint.ravel())
        found = cramers_v(pd.Series(cells // 2), pd.Series(cells % 2))
        hits += found.ci_low <= 0.28 <= found.ci_high
    assert 0.92 <= hits / 300 <= 0.98


def test_columns_that_say_the_same_are_tied_wholly_and_independent_ones_may_not_be() -> None:
    first = pd.Series(["a", "b"] * 20)
    same, other = cramers_v(first, first), cramers_v(first, pd.Series(["x", "x", "y", "y"] * 10))
    assert (same.estimate, same.ci_high) == (pytest.approx(1), pytest.approx(1))
    assert same.ci_low > 0.6
    assert (other.estimate, other.ci_low) == (0, 0)


def test_a_column_of_a_single_value_has_no_tie() -> None:
    assert np.isnan(cramers_v(pd.Series(["a"] * 6), pd.Series(["x", "y"] * 3))).all()
