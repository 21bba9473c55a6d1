"""Survival figures against lifelines, sums written out, and predictions that are right or wrong by design."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter

from milkit.statistics.intervals import bootstrap_weights, wilson_interval
from milkit.statistics.survival import (
    breslow_survival,
    brier,
    calibration_at,
    integrated_brier,
    kaplan_meier,
    observed_to_expected,
    still_followed,
)

AT = np.array([1.0, 3.0, 4.5, 8.0])


def simulated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, events and log hazards; a third is censored."""
    generator = np.random.default_rng(seed)
    risk = generator.normal(size=n)
    death, leaving = generator.exponential(np.exp(-risk)), generator.exponential(2.0, size=n)
    return np.minimum(death, leaving), death <= leaving, risk


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray]:
    """Whole times, so that deaths and censorings fall together."""
    time, event, _ = simulated(50)
    return np.ceil(8 * time), event


def test_the_curve_is_that_of_lifelines_under_every_weighting(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    weights = np.concatenate([np.ones((1, 50)), bootstrap_weights(np.zeros(50, dtype=np.int64), 3, seed=0)])
    ours = kaplan_meier(*cohort, AT, weights)
    for row, weight in zip(ours, weights, strict=True):
        time, event = (values[np.repeat(np.arange(50), weight.astype(int))] for values in cohort)
        fitter = KaplanMeierFitter().fit(time, event)
        np.testing.assert_allclose(row, fitter.survival_function_at_times(AT), atol=1e-12)


def test_the_curve_of_censoring_lets_the_dead_go_first() -> None:
    """Ten patients; at time 2 two die and four are censored, of the eight that could be."""
    time = np.array([2.0] * 6 + [5.0] * 4)
    event = np.array([True, True, False, False, False, False, True, True, False, False])
    ones = np.ones((1, 10))
    assert still_followed(time, event, np.array([1.9, 2.0, 4.0]), ones)[0] == pytest.approx([1.0, 0.5, 0.5])
    assert still_followed(time, event, np.array([2.0, 2.1, 5.0]), ones, before=True)[0] == pytest.approx([1, 0.5, 0.5])


def test_without_ties_censoring_is_lifelines_curve_of_it() -> None:
    time, event, _ = simulated(40)
    fitter = KaplanMeierFitter().fit(time, ~event)
    at = np.array([0.2, 0.5, 1.0])
    expected = fitter.survival_function_at_times(at)
    np.testing.assert_allclose(still_followed(time, event, at, np.ones((1, 40)))[0], expected, atol=1e-12)


def test_breslow_s_survival_is_that_of_a_fitted_cox_model() -> None:
    time, event, risk = simulated(60)
    model = CoxPHFitter().fit(pd.DataFrame({"time": time, "event": event, "x": risk}), "time", "event")
    tested = pd.DataFrame({"x": [-1.0, 0.0, 2.0]})
    beta, at = float(model.params_["x"]), np.sort(time)[[5, 20, 40]]  # between times, lifelines interpolates
    expected = model.predict_survival_function(tested, times=at).to_numpy().T
    ours = breslow_survival(time, event, beta * risk, beta * tested["x"].to_numpy(), at)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def by_hand(time: np.ndarray, event: np.ndarray, survival: np.ndarray, at: float) -> float:
    """Graf's score, patient by patient."""

    def followed(when: float, strictly: bool) -> float:
        result = 1.0
        for moment in np.unique(time[~event]):
            if moment < when or (moment == when and not strictly):
                left = ((time == moment) & ~event).sum()
                result *= 1 - left / ((time >= moment).sum() - ((time == moment) & event).sum())
        return result

    total = 0.0
    for t, died, s in zip(time, event, survival, strict=True):
        if died and t <= at:
            total += s**2 / followed(t, strictly=True)
        elif t > at:
            total += (1 - s) ** 2 / followed(at, strictly=False)
    return total / len(time)


def test_the_brier_score_is_graf_s(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    survival = np.random.default_rng(1).random((50, 4))
    ours = brier(*cohort, survival, AT, np.ones((1, 50)))[0]
    np.testing.assert_allclose(ours, [by_hand(*cohort, survival[:, k], AT[k]) for k in range(4)], atol=1e-12)


def test_a_weighted_brier_score_is_that_of_the_drawn_patients(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    survival = np.random.default_rng(1).random((50, 4))
    weights = bootstrap_weights(np.zeros(50, dtype=np.int64), 2, seed=3)
    for row, weight in zip(brier(*cohort, survival, AT, weights), weights, strict=True):
        drawn = np.repeat(np.arange(50), weight.astype(int))
        expected = [by_hand(cohort[0][drawn], cohort[1][drawn], survival[drawn, k], AT[k]) for k in range(4)]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_without_censoring_it_is_the_mean_squared_distance(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    time, event = cohort[0], np.ones(50, dtype=bool)
    survival = np.random.default_rng(1).random((50, 4))
    expected = (((time[:, None] > AT) - survival) ** 2).mean(axis=0)
    np.testing.assert_allclose(brier(time, event, survival, AT, np.ones((1, 50)))[0], expected, atol=1e-12)


def test_the_integrated_score_is_the_area_over_the_span(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    survival, ones = np.random.default_rng(1).random((50, 4)), np.ones((1, 50))
    scores = brier(*cohort, survival, AT, ones)[0]
    area = sum((scores[k] + scores[k + 1]) / 2 * (AT[k + 1] - AT[k]) for k in range(3))
    assert integrated_brier(*cohort, survival, AT, ones)[0] == pytest.approx(area / 7)


def test_the_right_curves_score_best_and_censoring_does_not_change_the_score() -> None:
    time, event, risk = simulated(4000)
    at, ones = np.linspace(0.1, 2.0, 20), np.ones((1, 4000))
    right = np.exp(-at * np.exp(risk)[:, None])
    nothing = np.repeat(kaplan_meier(time, event, at, ones), 4000, axis=0)
    scores = [integrated_brier(time, event, curves, at, ones)[0] for curves in (right, nothing, 1 - right)]
    assert scores[0] < scores[1] < scores[2]
    expected = np.trapezoid((right * (1 - right)).mean(axis=0), at) / 1.9  # of a probability that is right: p (1 - p)
    assert scores[0] == pytest.approx(expected, abs=0.005)


def test_events_come_as_often_as_expected_where_the_model_is_right() -> None:
    time, event, risk = simulated(4000)
    ones, right = np.ones((1, 4000)), np.exp(-0.8 * np.exp(risk))
    assert observed_to_expected(time, event, right, 0.8, ones)[0] == pytest.approx(1, abs=0.05)
    halved = 1 - (1 - right) / 2
    expected = 2 * observed_to_expected(time, event, right, 0.8, ones)[0]
    assert observed_to_expected(time, event, halved, 0.8, ones)[0] == pytest.approx(expected)
    assert np.isnan(observed_to_expected(time, event, np.ones(4000), 0.8, ones)[0])


def test_groups_of_a_right_model_lie_on_the_diagonal() -> None:
    time, event, risk = simulated(4000)
    groups = calibration_at(time, event, np.exp(-0.8 * np.exp(risk)), 0.8, n_groups=4)
    assert [group.n for group in groups] == [1000] * 4
    assert sum(group.n_events for group in groups) == (event & (time <= 0.8)).sum()
    for group in groups:
        assert group.observed == pytest.approx(group.predicted, abs=0.05)
        assert group.ci_low < group.observed < group.ci_high
    assert np.all(np.diff([group.predicted for group in groups]) > 0)


def test_a_group_s_interval_is_that_of_lifelines(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    (group,) = calibration_at(*cohort, np.full(50, 0.5), 4.0)
    fitter = KaplanMeierFitter().fit(*cohort)
    low, high = (1 - fitter.confidence_interval_.loc[4.0]).sort_values()
    assert group.observed == pytest.approx(1 - fitter.predict(4.0))
    assert (group.ci_low, group.ci_high) == pytest.approx((low, high))


def test_a_group_without_events_has_wilson_s_interval_over_those_who_were_followed() -> None:
    time, event = np.array([1.0, 2.0, 6.0, 7.0, 8.0]), np.zeros(5, dtype=bool)
    (group,) = calibration_at(time, event, np.full(5, 0.9), 5.0)
    assert group[3:] == pytest.approx((0.0, *wilson_interval(0.0, 3, 0.95)))


def test_a_group_that_all_died_has_wilson_s_interval_too() -> None:
    time, event = np.array([1.0, 2.0, 2.5, 3.0]), np.array([True, True, False, True])
    (group,) = calibration_at(time, event, np.full(4, 0.1), 5.0)
    assert group[3:] == pytest.approx((1.0, *wilson_interval(1.0, 3, 0.95)))


def test_a_group_that_nobody_followed_to_the_horizon_shows_nothing() -> None:
    time, event = np.array([1.0, 2.0, 3.0]), np.array([True, False, False])
    (group,) = calibration_at(time, event, np.full(3, 0.9), 5.0)
    assert np.isnan(group[3:]).all()
