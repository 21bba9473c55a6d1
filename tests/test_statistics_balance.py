"""Standardised differences, against their formulas."""

import math

import numpy as np
import pandas as pd
import pytest

from milkit.statistics.balance import difference_of_levels, difference_of_numbers, largest_difference


def test_the_difference_of_numbers_is_that_of_means_over_the_pooled_spread() -> None:
    first, second = np.array([1.0, 2.0, 4.0]), np.array([5.0, 5.0, 8.0, 10.0])
    m1, m2 = 7 / 3, 7.0
    v1 = sum((x - m1) ** 2 for x in first) / 2
    v2 = sum((x - m2) ** 2 for x in second) / 3
    assert difference_of_numbers(first, second) == pytest.approx((m2 - m1) / math.sqrt((v1 + v2) / 2), rel=1e-12)


def test_two_levels_give_the_formula_of_shares() -> None:
    p, q = 3 / 10, 6 / 8
    first, second = ["F"] * 3 + ["M"] * 7, ["F"] * 6 + ["M"] * 2
    expected = abs(p - q) / math.sqrt((p * (1 - p) + q * (1 - q)) / 2)
    assert difference_of_levels(first, second) == pytest.approx(expected, rel=1e-12)


def test_three_levels_give_the_mahalanobis_distance_of_shares() -> None:
    first, second = ["a"] * 5 + ["b"] * 3 + ["c"] * 2, ["a"] * 2 + ["b"] * 2 + ["c"] * 6
    p, q = np.array([0.3, 0.2]), np.array([0.2, 0.6])
    s = sum(np.array([[x[0] * (1 - x[0]), -x[0] * x[1]], [-x[0] * x[1], x[1] * (1 - x[1])]]) for x in (p, q)) / 2
    expected = math.sqrt((p - q) @ np.linalg.inv(s) @ (p - q))
    assert difference_of_levels(first, second) == pytest.approx(expected, rel=1e-12)


def test_the_level_that_is_left_out_does_not_matter() -> None:
    first, second = ["a"] * 5 + ["b"] * 3 + ["c"] * 2, ["a"] * 2 + ["b"] * 2 + ["c"] * 6
    renamed = {"a": "z", "b": "b", "c": "c"}
    other = difference_of_levels([renamed[x] for x in first], [renamed[x] for x in second])
    assert other == pytest.approx(difference_of_levels(first, second), rel=1e-12)


@pytest.mark.parametrize(("first", "second", "expected"), [("FF", "FF", 0.0), ("FF", "MM", math.inf)])
def test_constant_groups_are_equal_or_infinitely_apart(first: str, second: str, expected: float) -> None:
    assert difference_of_levels(list(first), list(second)) == expected
    codes = {"F": 0.1, "M": 0.7}
    numbers = [np.array([codes[letter] for letter in group]) for group in (first, second)]
    assert difference_of_numbers(*numbers) == expected


def test_a_group_of_one_has_no_spread_to_compare_by() -> None:
    assert math.isnan(difference_of_numbers(np.array([1.0]), np.array([1.0, 2.0])))
    assert math.isnan(difference_of_levels([], ["F"]))


def test_of_several_groups_the_largest_difference_counts_and_missing_values_do_not() -> None:
    values = pd.Series([1.0, 2.0, 3.0, np.nan, 2.0, 3.0, 11.0, 12.0, 13.0])
    groups = pd.Series(list("aaabbbccc"))
    assert largest_difference(values, groups) == pytest.approx(9.5 / math.sqrt(0.75))  # b and c; a and c give 10
    assert math.isnan(largest_difference(values[:3], groups[:3]))
