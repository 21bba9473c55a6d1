"""Net benefit against counts and closed forms; declared prevalences against cohorts that have them."""

import numpy as np
import pytest

from milkit.errors import SettingsError
from milkit.statistics.decision_curve import (
    at_prevalence,
    decision_curve,
    interventions_avoided,
    moved,
    net_benefit,
    treat_everybody,
)
from milkit.statistics.intervals import bootstrap_weights

THRESHOLDS = np.linspace(0.02, 0.9, 12)


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    odds = generator.normal(-1, 1.5, size=150)
    return generator.random(150) < 1 / (1 + np.exp(-odds)), 1 / (1 + np.exp(-odds))


def by_counting(positive: np.ndarray, probabilities: np.ndarray, threshold: float) -> float:
    right = sum(p >= threshold and y for y, p in zip(positive, probabilities, strict=True))
    wrong = sum(p >= threshold and not y for y, p in zip(positive, probabilities, strict=True))
    return float(right / len(positive) - wrong / len(positive) * threshold / (1 - threshold))


def test_net_benefit_counts_right_and_wrong_treatments(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    ours = net_benefit(*cohort, THRESHOLDS, np.ones((1, 150)))[0]
    np.testing.assert_allclose(ours, [by_counting(*cohort, threshold) for threshold in THRESHOLDS], atol=1e-12)


def test_a_weighting_is_a_cohort_with_its_patients_as_often(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, probabilities = cohort
    weights = bootstrap_weights(positive.astype(np.int64), 3, seed=0)
    for row, weight in zip(net_benefit(positive, probabilities, THRESHOLDS, weights), weights, strict=True):
        drawn = np.repeat(np.arange(150), weight.astype(int))
        expected = [by_counting(positive[drawn], probabilities[drawn], threshold) for threshold in THRESHOLDS]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_treating_everybody_is_worth_the_closed_form(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, _ = cohort
    share = positive.mean()
    everybody = net_benefit(positive, np.ones(150), THRESHOLDS, np.ones((1, 150)))[0]
    closed = share - (1 - share) * THRESHOLDS / (1 - THRESHOLDS)
    np.testing.assert_allclose(everybody, closed, atol=1e-9, rtol=0)
    np.testing.assert_allclose(treat_everybody(float(share), THRESHOLDS), closed, atol=1e-9, rtol=0)


def test_treating_nobody_is_worth_nothing_and_a_perfect_model_the_prevalence(
    cohort: tuple[np.ndarray, np.ndarray],
) -> None:
    positive, ones = cohort[0], np.ones((1, 150))
    np.testing.assert_array_equal(net_benefit(positive, np.zeros(150), THRESHOLDS, ones), 0)
    np.testing.assert_allclose(net_benefit(positive, positive.astype(float), THRESHOLDS, ones), positive.mean())


def test_a_declared_prevalence_is_a_cohort_that_has_it(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    """Every control three times."""
    positive, probabilities = cohort
    larger = np.repeat(np.arange(150), np.where(positive, 1, 3))
    prevalence = float(positive[larger].mean())
    weights = at_prevalence(positive, np.ones((1, 150)), prevalence)
    assert weights.sum() == pytest.approx(150)
    np.testing.assert_allclose(
        net_benefit(positive, probabilities, THRESHOLDS, weights),
        net_benefit(positive[larger], probabilities[larger], THRESHOLDS, np.ones((1, len(larger)))),
        atol=1e-12,
    )


def test_moved_probabilities_are_the_shares_of_the_other_cohort() -> None:
    """Of 40 ill and 60 healthy a finding has 30 and 10; with every healthy patient nine times it has 30 and 90."""
    assert moved(np.array([30 / 40]), 0.4, 40 / 580)[0] == pytest.approx(30 / 120)
    np.testing.assert_allclose(moved(np.array([0.0, 0.3, 1.0]), 0.4, 0.4), [0.0, 0.3, 1.0])


def test_interventions_avoided_are_those_spared_at_no_miss() -> None:
    """100 patients, 20 ill; the model leaves 50 healthy ones alone and misses nobody."""
    positive, probabilities = np.arange(100) < 20, np.where(np.arange(100) < 50, 0.9, 0.01)
    thresholds = np.array([0.1, 0.4])
    model = net_benefit(positive, probabilities, thresholds, np.ones((1, 100)))[0]
    assert interventions_avoided(model, treat_everybody(0.2, thresholds), thresholds) == pytest.approx([50, 50])


def test_the_curve_lies_in_its_interval_beside_everybody(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    curve = decision_curve(*cohort, THRESHOLDS, n_resamples=300)
    assert curve.prevalence == pytest.approx(cohort[0].mean())
    np.testing.assert_allclose(curve.model, [by_counting(*cohort, threshold) for threshold in THRESHOLDS], atol=1e-12)
    assert (curve.ci_low <= curve.model).all()
    assert (curve.model <= curve.ci_high).all()
    assert curve.model[0] == pytest.approx(curve.everybody[0], abs=0.02)  # from 2% on, nearly everybody is treated


def test_at_a_declared_prevalence_model_and_everybody_are_of_one_clinic(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, probabilities = cohort
    curve = decision_curve(positive, probabilities, THRESHOLDS, prevalence=0.05, n_resamples=50)
    share = positive.mean()
    odds = probabilities / (1 - probabilities) * (0.05 / 0.95) / (share / (1 - share))
    for t, threshold in enumerate(THRESHOLDS):
        treated = odds / (1 + odds) >= threshold
        right, wrong = treated[positive].mean(), treated[~positive].mean()
        expected = 0.05 * right - 0.95 * wrong * threshold / (1 - threshold)
        assert curve.model[t] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(curve.everybody, treat_everybody(0.05, THRESHOLDS))


@pytest.mark.parametrize(
    ("thresholds", "prevalence", "text"),
    [
        ([0.1, 1.0], None, "thresholds from 0.1 to 1: expected between 0 and 1; choose others"),
        ([0.1, 0.2], 0.0, "prevalence from 0 to 0: expected between 0 and 1; choose others"),
    ],
)
def test_what_is_not_between_zero_and_one_is_refused(
    cohort: tuple[np.ndarray, np.ndarray], thresholds: list[float], prevalence: float | None, text: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{text}$"):
        decision_curve(*cohort, np.array(thresholds), prevalence=prevalence)


def test_a_class_without_patients_has_no_curve() -> None:
    curve = decision_curve(np.zeros(8, dtype=bool), np.linspace(0.1, 0.8, 8), THRESHOLDS, n_resamples=20)
    assert np.isnan(curve.model).all()
