"""Parts of a variance against sums of squares written out, and against parts that were simulated."""

import numpy as np
import pytest

from milkit.statistics.variance_parts import variance_parts

RESAMPLES = np.array([0.7, 0.8, 0.9])  # variance 0.01


def test_the_parts_are_those_of_the_analysis_of_variance() -> None:
    values = np.array([[0.80, 0.84], [0.70, 0.70], [0.90, 0.96]])
    means, grand = values.mean(axis=1), values.mean()
    between = 2 * sum((mean - grand) ** 2 for mean in means) / 2
    within = sum((value - mean) ** 2 for row, mean in zip(values, means, strict=True) for value in row) / 3
    parts = variance_parts(values, RESAMPLES)
    assert parts.seed == pytest.approx(within)
    assert parts.split == pytest.approx((between - within) / 2)
    assert parts.patients == pytest.approx(0.01)


def test_one_run_and_the_mean_are_sums_of_the_parts() -> None:
    parts = variance_parts(np.random.default_rng(0).normal(size=(4, 3)) + np.arange(4)[:, None], RESAMPLES)
    assert parts.one_run == pytest.approx(parts.patients + parts.split + parts.seed)
    assert parts.of_mean == pytest.approx(parts.patients + parts.split / 4 + parts.seed / 12)


def test_splits_that_differ_less_than_seeds_have_no_part() -> None:
    assert variance_parts(np.array([[0.0, 1.0], [1.0, 0.0]]), RESAMPLES).split == 0.0


def test_with_one_seed_the_split_s_part_holds_the_seed_s() -> None:
    parts = variance_parts(np.array([[0.7], [0.8], [0.9]]), RESAMPLES)
    assert np.isnan(parts.seed)
    assert parts.split == pytest.approx(0.01)
    assert (parts.one_run, parts.of_mean) == pytest.approx((0.02, 0.01 + 0.01 / 3))


def test_one_split_tells_nothing_of_splits() -> None:
    parts = variance_parts(np.array([[0.7, 0.8, 0.9]]), RESAMPLES)
    assert parts.seed == pytest.approx(0.01)
    assert np.isnan([parts.split, parts.one_run, parts.of_mean]).all()


def test_simulated_parts_are_found_on_average() -> None:
    generator, found = np.random.default_rng(1), []
    for _ in range(400):
        values = generator.normal(0, 0.03, size=(10, 1)) + generator.normal(0, 0.02, size=(10, 3))
        found.append(variance_parts(values, RESAMPLES)[1:3])
    assert np.mean(found, axis=0) == pytest.approx([0.0009, 0.0004], rel=0.07)
