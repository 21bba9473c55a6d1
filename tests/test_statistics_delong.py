"""DeLong's covariance against all pairs written out; intervals, the paired test, and its errors under the null."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from milkit.statistics.delong import auroc_covariance, delong_interval, delong_test
from milkit.statistics.intervals import wilson_interval


def of_all_pairs(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs and covariance pair by pair, as DeLong et al. write them."""
    up, down = scores[:, positive], scores[:, ~positive]
    n_up, n_down, rows = up.shape[1], down.shape[1], range(len(scores))
    kernel = np.array(
        [[[1.0 if x > y else 0.5 if x == y else 0.0 for y in down[r]] for x in up[r]] for r in rows], dtype=np.float64
    )
    above, below, aurocs = kernel.mean(axis=2), kernel.mean(axis=1), kernel.mean(axis=(1, 2))
    covariance = np.zeros((len(scores), len(scores)))
    for a in rows:
        for b in rows:
            s10 = ((above[a] - aurocs[a]) * (above[b] - aurocs[b])).sum() / (n_up - 1)
            s01 = ((below[a] - aurocs[a]) * (below[b] - aurocs[b])).sum() / (n_down - 1)
            covariance[a, b] = s10 / n_up + s01 / n_down
    return aurocs, covariance


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray]:
    """50 patients, three rows of scores with ties, the second a better one."""
    generator = np.random.default_rng(0)
    positive = np.arange(50) < 18
    scores = generator.normal(size=(3, 50)) + np.array([[0.8], [1.6], [0.9]]) * positive
    return positive, np.round(scores, 1)


def test_the_covariance_is_that_of_all_pairs(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    aurocs, covariance = auroc_covariance(*cohort)
    expected = of_all_pairs(*cohort)
    np.testing.assert_allclose(aurocs, expected[0], atol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-14)
    np.testing.assert_allclose(aurocs, [roc_auc_score(cohort[0], row) for row in cohort[1]], atol=1e-12)


def test_the_interval_is_symmetric_in_log_odds(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = cohort
    (area,), ((variance,),) = of_all_pairs(positive, scores[:1])
    half = stats.norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    centre = np.log(area / (1 - area))
    expected = [1 / (1 + np.exp(-(centre + end))) for end in (-half, half)]
    assert tuple(delong_interval(positive, scores[:1])) == pytest.approx((area, *expected))


def test_the_test_is_that_of_the_covariance_of_two_models(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = cohort
    aurocs, covariance = of_all_pairs(positive, scores[:2])
    z = (aurocs[0] - aurocs[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    result = delong_test(positive, scores[:1], scores[1:2])
    assert result.difference == pytest.approx(aurocs[0] - aurocs[1])
    assert result.p_value == pytest.approx(2 * stats.norm.cdf(-abs(z)))
    assert (result.ci_high + result.ci_low) / 2 == pytest.approx(result.difference)


def test_a_repeat_that_says_the_same_adds_no_certainty(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = cohort
    once, again = scores[:1], np.repeat(scores[:1], 10, axis=0)
    assert tuple(delong_interval(positive, again)) == pytest.approx(tuple(delong_interval(positive, once)))
    expected = delong_test(positive, once, scores[1:2])
    assert tuple(delong_test(positive, again, scores[1:2])) == pytest.approx(tuple(expected))


def test_only_the_order_of_the_scores_counts(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = cohort
    np.testing.assert_array_equal(auroc_covariance(positive, np.exp(scores))[1], auroc_covariance(positive, scores)[1])


def test_exchanging_the_models_turns_the_difference_only(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = cohort
    one, other = delong_test(positive, scores[:1], scores[1:]), delong_test(positive, scores[1:], scores[:1])
    assert (one.difference, one.ci_low, one.p_value) == pytest.approx(
        (-other.difference, -other.ci_high, other.p_value)
    )


def test_models_that_rank_alike_do_not_differ(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = cohort
    assert tuple(delong_test(positive, scores[:1], 2 * scores[:1])) == (0.0, 0.0, 0.0, 1.0)


def test_classes_that_are_apart_have_wilson_s_interval_and_no_p_value() -> None:
    positive = np.arange(30) < 8
    perfect, constant = positive[None].astype(np.float64), np.zeros((1, 30))
    assert tuple(delong_interval(positive, perfect)) == pytest.approx((1.0, *wilson_interval(1.0, 8, 0.95)))
    result = delong_test(positive, perfect, constant)
    assert result.difference == pytest.approx(0.5)
    assert np.isnan(result.p_value)


@pytest.mark.parametrize("n_up", [0, 1])
def test_a_class_too_small_for_a_variance_has_no_interval(n_up: int) -> None:
    positive, scores = np.arange(9) < n_up, np.random.default_rng(0).normal(size=(1, 9))
    area, low, high = delong_interval(positive, scores)
    assert np.isnan(area) == (n_up == 0)
    assert np.isnan([low, high, delong_test(positive, scores, -scores).p_value]).all()


@pytest.mark.slow
def test_equal_models_are_called_different_one_time_in_twenty() -> None:
    generator, positive, found = np.random.default_rng(3), np.arange(80) < 30, 0
    for _ in range(1000):
        shared = generator.normal(size=80) + positive
        first, second = (shared[None] + generator.normal(size=(1, 80)) for _ in range(2))
        found += delong_test(positive, first, second).p_value < 0.05
    assert 0.03 <= found / 1000 <= 0.07
