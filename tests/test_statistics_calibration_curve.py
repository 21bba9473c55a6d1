"""Calibration against scikit-learn, closed forms, and probabilities whose fault is known."""

import numpy as np
import pytest
from scipy.optimize import root
from sklearn.metrics import brier_score_loss

from milkit.statistics.calibration_curve import (
    brier,
    brier_parts,
    expected_calibration_error,
    recalibration,
    reliability_bins,
)
from milkit.statistics.intervals import bootstrap_weights, wilson_interval


def calibrated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and log odds of the probabilities that they were drawn with."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(-0.5, 1.5, size=n)
    return generator.random(n) < 1 / (1 + np.exp(-odds)), odds


def probability(odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-odds)))


def by_solving(positive: np.ndarray, odds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Intercept and slope where the likelihood is flat, by a general solver."""

    def score(values: np.ndarray) -> list[float]:
        left = weights * (positive - probability(values[0] + values[1] * odds))
        return [float(left.sum()), float(left @ odds)]

    return np.asarray(root(score, [0.0, 0.5], tol=1e-12).x)


def test_calibrated_probabilities_have_slope_one_and_intercept_zero() -> None:
    positive, odds = calibrated(20_000)
    result = recalibration(positive, probability(odds), np.ones((1, 20_000)))
    assert result.slope[0] == pytest.approx(1, abs=0.1)
    assert result.intercept[0] == pytest.approx(0, abs=0.1)
    assert result.in_the_large[0] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(("factor", "shift"), [(2.0, 0.0), (0.5, 0.0), (1.0, 1.0), (2.0, -1.0)])
def test_a_fault_of_the_probabilities_is_told_exactly(factor: float, shift: float) -> None:
    """Log odds of factor x odds + shift need a slope of 1 / factor, and an intercept that undoes the shift."""
    positive, odds = calibrated(300)
    ones = np.ones((1, 300))
    right, wrong = (recalibration(positive, probability(f), ones) for f in (odds, factor * odds + shift))
    assert wrong.slope[0] == pytest.approx(right.slope[0] / factor, rel=1e-6)
    assert wrong.intercept[0] == pytest.approx(right.intercept[0] - right.slope[0] * shift / factor, abs=1e-6)


def test_every_weighting_has_the_likelihood_s_maximum() -> None:
    positive, odds = calibrated(80)
    weights = bootstrap_weights(positive.astype(np.int64), 5, seed=1)
    result = recalibration(positive, probability(odds), weights)
    expected = [by_solving(positive, odds, row) for row in weights]
    np.testing.assert_allclose(np.stack([result.intercept, result.slope], axis=1), expected, atol=1e-6)


def test_wild_probabilities_do_not_lead_the_search_astray() -> None:
    """Nearly certain, and wrong, about some: full Newton steps would overshoot."""
    positive = np.array([True, False, True, False, True, False, False, False])
    odds = np.array([15.0, 14.0, -15.0, -14.0, 0.1, 0.0, -16.0, -9.0])
    result = recalibration(positive, probability(odds), np.ones((1, 8)))
    expected = by_solving(positive, odds, np.ones(8))
    assert (result.intercept[0], result.slope[0]) == pytest.approx(tuple(expected), abs=1e-5)


def test_the_intercept_of_one_probability_for_all_is_the_distance_of_the_log_odds() -> None:
    positive = np.arange(40) < 10
    result = recalibration(positive, np.full(40, 0.5), np.ones((1, 40)))
    assert result.in_the_large[0] == pytest.approx(np.log(1 / 3))
    assert np.isnan(result.slope[0])


def test_separated_classes_have_no_slope() -> None:
    positive = np.arange(6) >= 3
    for probabilities in (np.linspace(0.1, 0.9, 6), np.linspace(0.9, 0.1, 6), np.array([0.1, 0.2, 0.5, 0.5, 0.8, 0.9])):
        result = recalibration(positive, probabilities, np.ones((1, 6)))
        assert np.isnan([result.slope[0], result.intercept[0]]).all()
        assert np.isfinite(result.in_the_large[0])


def test_a_weighting_without_the_class_is_undefined_and_leaves_the_others() -> None:
    positive, odds = calibrated(50)
    weights = np.stack([np.ones(50), (~positive).astype(np.float64)])
    result = recalibration(positive, probability(odds), weights)
    assert np.isnan([values[1] for values in result]).all()
    assert np.isfinite([values[0] for values in result]).all()


def test_probabilities_of_zero_and_one_are_endured() -> None:
    positive, odds = calibrated(60)
    probabilities = np.clip(np.round(probability(odds), 1), 0, 1)
    probabilities[:2], positive[:2] = (0.0, 1.0), (True, False)
    assert np.isfinite([values[0] for values in recalibration(positive, probabilities, np.ones((1, 60)))]).all()


def test_the_brier_score_is_scikit_learn_s_under_every_weighting() -> None:
    positive, odds = calibrated(70)
    weights = bootstrap_weights(positive.astype(np.int64), 3, seed=0)
    expected = [brier_score_loss(positive, probability(odds), sample_weight=row) for row in weights]
    assert brier(positive, probability(odds), weights) == pytest.approx(expected)


def test_the_parts_of_the_brier_score_add_up_and_none_is_negative() -> None:
    positive, odds = calibrated(70)
    parts = brier_parts(positive, probability(2 * odds + 1))
    assert parts.score == pytest.approx(parts.miscalibration - parts.discrimination + parts.uncertainty, abs=1e-12)
    assert parts.score == pytest.approx(brier(positive, probability(2 * odds + 1), np.ones((1, 70)))[0])
    assert min(parts) >= 0


def test_where_probabilities_have_few_values_the_parts_are_murphy_s() -> None:
    values, sizes, ill = np.array([0.2, 0.5, 0.9]), np.array([20, 10, 30]), np.array([3, 6, 24])
    probabilities = np.repeat(values, sizes)
    positive = np.concatenate([np.arange(size) < k for size, k in zip(sizes, ill, strict=True)])
    share, observed = ill.sum() / 60, ill / sizes
    reliability, resolution = (
        (sizes * (values - observed) ** 2).sum() / 60,
        (sizes * (observed - share) ** 2).sum() / 60,
    )
    parts = brier_parts(positive, probabilities)
    assert parts[1:] == pytest.approx((reliability, resolution, share * (1 - share)), abs=1e-12)


def test_recalibrating_takes_away_the_miscalibration_and_leaves_the_rest() -> None:
    positive, odds = calibrated(5000)
    right, wrong = (brier_parts(positive, probability(f)) for f in (odds, 3 * odds))
    assert right.miscalibration < 0.005 < wrong.miscalibration
    assert wrong.discrimination == pytest.approx(right.discrimination)


def test_bins_hold_equally_many_patients_with_wilson_s_interval_of_each() -> None:
    positive, odds = calibrated(100)
    order = np.argsort(odds)
    bins = reliability_bins(positive, probability(odds), n_bins=5)
    assert [part.n for part in bins] == [20] * 5
    for part, own in zip(bins, np.split(order, 5), strict=True):
        assert part.predicted == pytest.approx(probability(odds[own]).mean())
        assert part.observed == pytest.approx(positive[own].mean())
        assert part[3:] == pytest.approx(wilson_interval(positive[own].mean(), 20, 0.95))


def test_equal_probabilities_stay_together() -> None:
    probabilities = np.repeat([0.1, 0.7], [30, 10])
    bins = reliability_bins(np.arange(40) < 8, probabilities, n_bins=10)
    assert [(part.n, round(part.predicted, 9)) for part in bins] == [(30, 0.1), (10, 0.7)]


def test_the_expected_error_is_the_mean_distance_of_the_bins() -> None:
    bins = reliability_bins(np.array([True, False, True, True]), np.array([0.1, 0.1, 0.6, 0.6]), n_bins=2)
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
