"""BCa intervals against scipy's on the same resamples, degenerate metrics, and coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from milkit.statistics import discrimination
from milkit.statistics.bca import Metric, acceleration, bca_estimate, bca_interval, leave_one_out
from milkit.statistics.intervals import bootstrap_weights, percentile_interval, without_nan


def weighted_mean(values: np.ndarray) -> Metric:
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_the_interval_of_a_mean_is_scipy_s_on_its_resamples() -> None:
    values = np.random.default_rng(0).lognormal(size=25)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(1))
    left_out = leave_one_out(weighted_mean(values), 25)
    skewness = acceleration(left_out, np.zeros(25, dtype=np.int64))
    ours = bca_interval(values.mean(), theirs.bootstrap_distribution, skewness, 0.95)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=1e-10)
    assert ours != pytest.approx(percentile_interval(theirs.bootstrap_distribution, 0.95), rel=1e-3)


def test_the_interval_of_two_strata_is_scipy_s_of_two_samples() -> None:
    generator = np.random.default_rng(2)
    up, down = generator.normal(1.5, 1, size=14), generator.normal(0, 1, size=31)

    def auroc(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return (x[..., :, None] > y[..., None, :]).mean(axis=(-1, -2))

    theirs = stats.bootstrap((up, down), auroc, n_resamples=999, method="BCa", rng=np.random.default_rng(3))
    positive, scores = np.arange(45) < 14, np.concatenate([up, down])
    left_out = leave_one_out(lambda weights: discrimination.auroc(positive, scores, weights), 45)
    skewness = acceleration(left_out, positive.astype(np.int64))
    ours = bca_interval(float(auroc(up, down)), theirs.bootstrap_distribution, skewness, 0.9)
    limits = stats.bootstrap(
        (up, down), auroc, n_resamples=0, bootstrap_result=theirs, method="BCa", confidence_level=0.9
    ).confidence_interval
    assert ours == pytest.approx(tuple(limits), rel=1e-10)


def test_without_bias_and_skewness_it_is_the_percentile_interval() -> None:
    resamples = np.arange(-500.0, 501.0)
    assert bca_interval(0.0, resamples, 0.0, 0.9) == pytest.approx(percentile_interval(resamples, 0.9))


def test_resamples_equal_to_the_estimate_count_half_as_below() -> None:
    """A metric of three values, symmetric around the estimate, has no bias."""
    resamples = np.repeat([0.4, 0.5, 0.6], [300, 400, 300])
    assert bca_interval(0.5 + 1e-15, resamples, 0.0, 0.9) == pytest.approx((0.4, 0.6))


@pytest.mark.filterwarnings("error")
def test_an_estimate_beyond_all_resamples_has_the_percentile_interval() -> None:
    resamples = np.linspace(0, 1, 101)
    assert bca_interval(2.0, resamples, 0.1, 0.9) == pytest.approx((0.05, 0.95))


def test_an_acceleration_beyond_the_transformation_s_pole_has_the_percentile_interval() -> None:
    resamples = np.linspace(0, 1, 101)
    assert bca_interval(0.5, resamples, 0.9, 0.9) == pytest.approx((0.05, 0.95))


def test_resamples_that_never_differ_leave_a_point_for_the_caller_to_widen() -> None:
    assert bca_interval(1.0, np.ones(50), 0.0, 0.95) == (1.0, 1.0)


def test_undefined_resamples_are_left_out_and_an_undefined_acceleration_is_none() -> None:
    resamples = np.linspace(-1, 1, 201)
    holes = np.concatenate([resamples, np.full(30, np.nan)])
    assert bca_interval(0.2, holes, np.nan, 0.9) == bca_interval(0.2, resamples, 0.0, 0.9)
    assert np.isnan(bca_interval(0.2, np.full(5, np.nan), 0.0, 0.9)).all()


@pytest.mark.filterwarnings("error")
def test_infinite_values_are_undefined_ones_and_give_no_warning() -> None:
    resamples = np.linspace(-1, 1, 201)
    holes = np.concatenate([resamples, [np.inf, -np.inf]])
    assert bca_interval(0.2, holes, 0.0, 0.9) == bca_interval(0.2, resamples, 0.0, 0.9)
    assert np.isnan(bca_interval(np.inf, resamples, 0.0, 0.9)).all()
    assert np.isnan(acceleration(np.array([1.0, np.inf, 2.0]), np.zeros(3, dtype=np.int64)))


def test_json_holds_nothing_in_the_place_of_nan_and_infinity() -> None:
    values = {"a": [1.0, np.nan, {"b": np.inf}], "c": np.float64("-inf"), "d": "text"}
    assert without_nan(values) == {"a": [1.0, None, {"b": None}], "c": None, "d": "text"}


@pytest.mark.filterwarnings("error")
def test_nobody_is_left_when_the_only_patient_is_left_out() -> None:
    found = bca_estimate(weighted_mean(np.array([3.0])), np.zeros(1, dtype=np.int64), n_resamples=50)
    assert found == (3.0, 3.0, 3.0)


def test_a_stratum_of_one_patient_does_not_skew_the_interval() -> None:
    """Without the patient the metric is undefined; with it, it is in every resample alike."""
    values = np.array([3.0, 1.0, 4.0, 1.0, 9.0])
    strata = np.array([0, 0, 0, 0, 1])
    left_out = leave_one_out(weighted_mean(values), 5)
    left_out[4] = np.nan
    influence = (values[:4] - values[:4].mean()) * 3 / 4 / 4  # a mean without one of four and a fixed fifth, by hand
    expected = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    assert acceleration(left_out, strata) == pytest.approx(expected)


def test_the_acceleration_of_a_mean_is_its_skewness_over_six_root_n() -> None:
    values = np.random.default_rng(5).exponential(size=40)
    left_out = leave_one_out(weighted_mean(values), 40)
    expected = stats.skew(values) / (6 * np.sqrt(40))
    assert acceleration(left_out, np.zeros(40, dtype=np.int64)) == pytest.approx(expected)
    assert acceleration(np.ones(40), np.zeros(40, dtype=np.int64)) == 0.0


def test_leaving_out_in_blocks_leaves_out_everybody_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).normal(size=23)
    expected = [np.delete(values, i).mean() for i in range(23)]
    monkeypatch.setattr("milkit.statistics.bca._WEIGHTS_AT_ONCE", 23 * 5)
    np.testing.assert_allclose(leave_one_out(weighted_mean(values), 23), expected)


def test_the_same_seed_gives_the_same_interval_around_the_estimate() -> None:
    generator = np.random.default_rng(7)
    positive, scores = np.arange(40) < 15, generator.normal(size=40)
    scores[positive] += 1

    def estimate(seed: int) -> tuple[float, float, float]:
        return bca_estimate(lambda w: discrimination.auroc(positive, scores, w), positive.astype(np.int64), seed=seed)

    assert estimate(1) == estimate(1)
    assert estimate(1) != estimate(2)
    point, low, high = estimate(1)
    assert point == pytest.approx(discrimination.auroc(positive, scores, np.ones((1, 40)))[0])
    assert low < point < high


@pytest.mark.slow
@pytest.mark.parametrize(("n_up", "n_down", "truth"), [(30, 30, 0.8), (40, 40, 0.9)])
def test_intervals_of_an_auroc_cover_the_truth(n_up: int, n_down: int, truth: float) -> None:
    """Two normal distributions whose AUROC is known: about 95 of 100 intervals hold it."""
    generator = np.random.default_rng(0)
    positive = np.arange(n_up + n_down) < n_up
    strata, covered = positive.astype(np.int64), 0
    for seed in range(600):
        scores = generator.normal(size=n_up + n_down) + np.sqrt(2) * stats.norm.ppf(truth) * positive
        _, low, high = bca_estimate(
            lambda weights, scores=scores: discrimination.auroc(positive, scores, weights),
            strata,
            n_resamples=1000,
            seed=seed,
        )
        covered += low <= truth <= high
    assert 0.92 <= covered / 600 <= 0.97


@pytest.mark.slow
def test_where_a_share_is_near_its_end_they_cover_it_more_often_than_percentile_intervals() -> None:
    """AUROC 0.95 of 24 and 165 patients, as a rare leukaemia against the rest."""
    generator, truth = np.random.default_rng(1), 0.95
    positive = np.arange(189) < 24
    strata, covered = positive.astype(np.int64), np.zeros(2)
    for seed in range(300):
        scores = generator.normal(size=189) + np.sqrt(2) * stats.norm.ppf(truth) * positive

        def auroc(weights: np.ndarray, scores: np.ndarray = scores) -> np.ndarray:
            return discrimination.auroc(positive, scores, weights)

        point, resamples = float(auroc(np.ones((1, 189)))[0]), auroc(bootstrap_weights(strata, 1000, seed))
        low, high = bca_interval(point, resamples, acceleration(leave_one_out(auroc, 189), strata), 0.95)
        plain_low, plain_high = percentile_interval(resamples, 0.95)
        covered += [low <= truth <= high, plain_low <= truth <= plain_high]
    assert covered[0] >= covered[1] + 6
    assert covered[0] / 300 >= 0.89


def test_a_metric_that_many_resamples_leave_undefined_has_no_interval() -> None:
    """Of five patients the metric needs a certain one, whom a third of the resamples lack."""

    def metric(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] > 0, weights[:, 1], np.nan)

    found = bca_estimate(metric, np.zeros(5, dtype=np.int64), n_resamples=300)
    assert found.estimate == 1
    assert np.isnan([found.ci_low, found.ci_high]).all()


def test_an_undefined_metric_has_no_interval() -> None:
    found = bca_estimate(lambda weights: np.full(len(weights), np.nan), np.zeros(5, dtype=np.int64), n_resamples=100)
    assert np.isnan(found).all()
