"""Bias-corrected and accelerated (BCa) bootstrap intervals of any metric over patients.

Percentile intervals assume that resampled estimates scatter around the estimate as estimates scatter around the truth.
Near the end of a scale, as an AUROC of 0.95 is, they are skewed the wrong way round; BCa moves the two quantiles by
what the resamples say of the bias and what leaving out each patient says of the skewness (Efron 1987, JASA 82:171;
Davison and Hinkley 1997, section 5.3; DiCiccio and Efron 1996, Statistical Science 11:189).

Metrics are functions of patient weights, as in ``discrimination``; several repeats of a cross-validation are averaged
inside the metric, so that all rows of a patient are drawn together. Assumption: independent patients. The models are
not trained again, so what another training set would change is not in the intervals.

Few patients of a class stay few. In a simulation of 2,000 cohorts each, 95% intervals of an AUROC of 0.9 over 40 and 40
patients held the truth in 95% of them (percentile intervals in 93%), of one of 0.95 over 24 and 165 in 91% (89%), and
intervals of a balanced accuracy over 8 and 30 in 88% (85%). Letters: n patients, B weightings.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.statistics.intervals import bootstrap_weights, percentile_interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Metric = Callable[[Floats], Floats]
"""Of patient weights, (B, n) -> (B,); NaN where it is not defined."""

MOST_UNDEFINED = 0.05
"""Where more of the resamples than this leave a figure undefined, the others are a selection, and make no interval."""

_WEIGHTS_AT_ONCE = 2**22


class Estimate(NamedTuple):
    """A figure and its interval; NaN where undefined."""

    estimate: float
    ci_low: float
    ci_high: float


def bca_estimate(
    metric: Metric, strata: Ints, *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """A metric of all patients, with the BCa interval of a bootstrap within strata.

    No interval (NaN) where the metric is undefined, or is in more than ``MOST_UNDEFINED`` of the resamples.

    Args:
        metric: (B, n) -> (B,).
        strata: (n,) the class of each patient, whose sizes every resample keeps; zeros draw from all alike.
        n_resamples: 2,000 leave each limit of a 95% interval a simulation error of 3% of its half-width.
        level: Of the interval.
        seed: Of the resamples.
    """
    point = float(metric(np.ones((1, len(strata))))[0])
    resamples = metric(bootstrap_weights(strata, n_resamples, seed))
    if not np.isfinite(point) or (~np.isfinite(resamples)).mean() > MOST_UNDEFINED:
        return Estimate(point, float("nan"), float("nan"))
    return Estimate(
        point, *bca_interval(point, resamples, acceleration(leave_one_out(metric, len(strata)), strata), level)
    )


def bca_interval(estimate: float, resamples: Floats, acceleration: float, level: float) -> tuple[float, float]:
    """The quantiles α₁ and α₂ of the resampled estimates (B,), for α = (1 ∓ level) / 2.

        α₁,₂ = Φ(z₀ + (z₀ + z_α) / (1 - a (z₀ + z_α))),    z₀ = Φ⁻¹(share of resamples below the estimate)

    Resamples that equal the estimate count half as below it, without which a metric of few values, such as an accuracy,
    would be shifted. Undefined resamples (NaN, or infinite as a ratio to 0) are left out. Degenerate cases:

    * No resample differs (everybody is right): both limits are the estimate. The bootstrap knows nothing; put Wilson's
      interval over the smallest class in its place, as ``summary`` does.
    * All resamples lie on one side of the estimate, so that z₀ is infinite, or 1 - a (z₀ + z_α) <= 0, beyond which the
      transformation turns back: the percentile interval.
    * The acceleration is undefined (NaN): taken as 0, which is the bias-corrected interval.
    """
    from scipy.stats import norm

    defined = resamples[np.isfinite(resamples)]
    if not len(defined) or not np.isfinite(estimate):
        return float("nan"), float("nan")
    equal = np.isclose(defined, estimate, rtol=1e-12, atol=1e-12)
    shift = float(norm.ppf(np.mean((defined < estimate) & ~equal) + equal.mean() / 2))
    if not np.isfinite(shift):
        return percentile_interval(defined, level)
    ends = shift + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    steepness = 1 - (0.0 if np.isnan(acceleration) else acceleration) * ends
    if (steepness <= 0).any():
        return percentile_interval(defined, level)
    low, high = np.quantile(defined, norm.cdf(shift + ends / steepness))
    return float(low), float(high)


def acceleration(left_out: Floats, strata: Ints) -> float:
    """The skewness of the metric's influence function, from its values without each patient, (n,), (n,) -> a.

        a = 1/6 Σ_s Σ_i (l_si / n_s)³ / (Σ_s Σ_i (l_si / n_s)²)^(3/2),    l_si = (n_s - 1) (mean_s - t_(si))

    t_(si) is the metric without patient i of stratum s, mean_s their mean, n_s the stratum's patients (Davison and
    Hinkley 1997, section 5.3; Efron and Tibshirani 1993, equation 14.15, where there is one stratum). A stratum of a
    single patient cannot be jackknifed and counts as constant, as it is in every resample. 0 where nobody changes the
    metric; NaN where leaving somebody out makes it undefined.
    """
    influence = np.zeros(len(strata))
    for stratum in np.unique(strata):
        own = strata == stratum
        if own.sum() > 1:
            if not np.isfinite(left_out[own]).all():
                return float("nan")
            influence[own] = (own.sum() - 1) * (left_out[own].mean() - left_out[own]) / own.sum()
    spread = float((influence**2).sum())
    return 0.0 if spread < 1e-24 else float((influence**3).sum() / (6 * spread**1.5))


def leave_one_out(metric: Metric, n: int) -> Floats:
    """The metric without each patient in turn, (n,), or (n, T) of a metric of T columns; NaN without the only one."""
    if n == 1:
        return np.full_like(metric(np.ones((1, 1))), np.nan, dtype=np.float64)
    return np.concatenate([metric(weights) for weights in _without_each(n)])


def _without_each(n: int) -> Iterator[Floats]:
    """Rows of ones with a single zero, (some of n, n), until everybody was left out once."""
    step = max(1, _WEIGHTS_AT_ONCE // n)
    for first in range(0, n, step):
        rows = np.arange(first, min(first + step, n))
        weights = np.ones((len(rows), n))
        weights[rows - first, rows] = 0.0
        yield weights
