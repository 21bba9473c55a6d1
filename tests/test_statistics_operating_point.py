"""Sensitivity at a specificity against every threshold tried; predictive values against natural frequencies."""

import numpy as np
import pytest
from scipy import stats

from milkit.errors import SettingsError
from milkit.statistics.bca import bca_estimate
from milkit.statistics.intervals import bootstrap_weights, wilson_interval
from milkit.statistics.operating_point import operating_point, predictive_values, sensitivity_at


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    positive = np.arange(90) < 35
    return positive, np.round(generator.normal(size=90) + 1.2 * positive, 1)


def by_trying(positive: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    best = 0.0
    for threshold in np.unique(scores):
        flagged = scores >= threshold
        if (~flagged[~positive]).mean() >= specificity - 1e-12:
            best = max(best, float(flagged[positive].mean()))
    return best


@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.95, 1.0])
def test_the_sensitivity_is_the_best_of_all_thresholds(
    cohort: tuple[np.ndarray, np.ndarray], specificity: float
) -> None:
    positive, scores = cohort
    weights = bootstrap_weights(positive.astype(np.int64), 4, seed=0)
    for value, weight in zip(sensitivity_at(positive, scores, specificity, weights), weights, strict=True):
        drawn = np.repeat(np.arange(90), weight.astype(int))
        assert value == pytest.approx(by_trying(positive[drawn], scores[drawn], specificity))


def test_where_a_healthy_patient_scores_highest_nobody_is_found_without_an_alarm() -> None:
    assert sensitivity_at(np.array([True, False]), np.array([0.1, 0.9]), 1.0, np.ones((1, 2)))[0] == 0.0


def test_a_side_without_patients_has_no_sensitivity() -> None:
    positive, weights = np.array([True, False]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert np.isnan(sensitivity_at(positive, np.array([0.9, 0.1]), 0.9, weights)).all()


def test_its_interval_comes_from_the_patients(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = cohort
    point, low, high = bca_estimate(lambda w: sensitivity_at(positive, scores, 0.9, w), positive.astype(np.int64))
    share = by_trying(positive, scores, 0.9)
    narrow_low, narrow_high = wilson_interval(share, 35, 0.95)
    assert point == pytest.approx(share)
    assert low < point < high
    assert high - low > narrow_high - narrow_low  # the threshold is uncertain too


def table(right_up: int, wrong_up: int, wrong_down: int, right_down: int) -> tuple[np.ndarray, np.ndarray]:
    """Flagged and missed ill patients, flagged and spared healthy ones."""
    positive = np.repeat([True, True, False, False], [right_up, wrong_up, wrong_down, right_down])
    return positive, np.repeat([True, False, True, False], [right_up, wrong_up, wrong_down, right_down])


def test_sensitivity_and_specificity_have_wilson_s_intervals() -> None:
    point = operating_point(*table(22, 2, 6, 54))
    assert tuple(point.sensitivity) == pytest.approx((22 / 24, *wilson_interval(22 / 24, 24, 0.95)))
    assert tuple(point.specificity) == pytest.approx((0.9, *wilson_interval(0.9, 60, 0.95)))


def test_predictive_values_are_natural_frequencies() -> None:
    """Of 1,000 patients 10 are ill and 9 of them found; of 990 healthy ones 99 are flagged."""
    values = predictive_values(*table(18, 2, 6, 54), prevalence=0.01)
    assert values.positive.estimate == pytest.approx(9 / 108)
    assert values.negative.estimate == pytest.approx(891 / 892)


def test_at_the_cohort_s_own_share_they_are_those_of_the_table() -> None:
    values = predictive_values(*table(18, 2, 6, 54), prevalence=20 / 80)
    assert values.positive.estimate == pytest.approx(18 / 24)
    assert values.negative.estimate == pytest.approx(54 / 56)


def test_their_intervals_are_symmetric_in_log_odds() -> None:
    low, high = predictive_values(*table(18, 2, 6, 54), prevalence=0.01).positive[1:]
    variance = 0.1 / (0.9 * 20) + 0.9 / (0.1 * 60)
    centre = np.log(0.9 / 0.1) + np.log(0.01 / 0.99)
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    assert (low, high) == pytest.approx(tuple(1 / (1 + np.exp(-(centre + end))) for end in (-half, half)))


def test_a_specificity_of_one_does_not_make_the_positive_value_certain() -> None:
    estimate, low, high = predictive_values(*table(18, 2, 0, 60), prevalence=0.01).positive
    assert (estimate, high) == (1.0, 1.0)
    assert low < 0.5


def test_a_result_that_nobody_has_predicts_nothing() -> None:
    assert np.isnan(predictive_values(*table(0, 20, 0, 60), prevalence=0.1).positive).all()
    assert np.isnan(predictive_values(*table(20, 0, 60, 0), prevalence=0.1).negative).all()
    assert np.isnan(predictive_values(*table(0, 0, 10, 50), prevalence=0.1).positive).all()


@pytest.mark.parametrize("prevalence", [0.0, 1.0, 60.0])
def test_a_prevalence_that_is_no_share_is_refused(prevalence: float) -> None:
    with pytest.raises(SettingsError, match=f"^prevalence {prevalence:g}: expected a share between 0 and 1; declare"):
        predictive_values(*table(18, 2, 6, 54), prevalence=prevalence)


@pytest.mark.slow
def test_intervals_of_predictive_values_cover_the_truth() -> None:
    generator, prevalence, covered = np.random.default_rng(1), 0.1, np.zeros(2)
    truth = 0.85 * 0.1 / (0.85 * 0.1 + 0.2 * 0.9), 0.8 * 0.9 / (0.8 * 0.9 + 0.15 * 0.1)
    for _ in range(2000):
        found, alarms = generator.binomial(50, 0.85), generator.binomial(60, 0.2)
        values = predictive_values(*table(found, 50 - found, alarms, 60 - alarms), prevalence=prevalence)
        covered += [value.ci_low <= true <= value.ci_high for value, true in zip(values, truth, strict=True)]
    assert ((covered / 2000 >= 0.92) & (covered / 2000 <= 0.98)).all()
