"""DeLong's covariance of AUROCs of the same patients: intervals and a paired test without resampling.

The AUROC is a two-sample U statistic, so its variance follows from how each positive patient stands among the negative
ones and the reverse (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837). From midranks it takes n log n instead
of all pairs (Sun and Xu 2014, IEEE Signal Processing Letters 21:1389).

Several rows of scores, one a repeat of the cross-validation, stand for one model: its AUROC is their mean, as in
``summary``, and their covariance is in the variance, so that repeats do not count as new patients.

Assumptions: independent patients; scores of one row on one scale, although the models of its folds differ; scores that
do not depend on the tested patient's label, as out-of-fold ones. On the patients that two nested models were fitted on,
the test is not valid (Demler, Pencina and D'Agostino 2012, Statistics in Medicine 31:2577). What another training set
would change is not in it. Letters: n patients, R rows of scores.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.statistics.bca import Estimate
from milkit.statistics.intervals import wilson_interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Comparison(NamedTuple):
    """The difference of two AUROCs, first less second.

    Attributes:
        difference: Of the two means over their rows.
        ci_low: Lower limit.
        ci_high: Upper limit.
        p_value: Two-sided, of no difference; NaN where the two differ without any variance.
    """

    difference: float
    ci_low: float
    ci_high: float
    p_value: float


def auroc_covariance(positive: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """AUROCs and their covariance, (n,), (R, n) -> (R,), (R, R).

    With V10 (R, n+) the share of negative patients that each positive one exceeds, ties half, and V01 (R, n-) the share
    of positive ones above each negative one: cov = cov(V10) / n+ + cov(V01) / n-. The first share is (rank among all -
    rank among the positive) / n-. NaN where a side is empty; the covariance also where a side has a single patient.
    """
    from scipy.stats import rankdata

    n_up, n_down = int(positive.sum()), int((~positive).sum())
    if not n_up or not n_down:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    ranks = rankdata(scores, axis=1)
    above = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n_down
    below = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_up
    return above.mean(axis=1), _covariance(above) / n_up + _covariance(below) / n_down


def delong_interval(positive: Bools, scores: Floats, level: float = 0.95) -> Estimate:
    """The mean AUROC of the rows with its interval, (n,), (R, n).

    Symmetric in log(A / (1 - A)), by the delta method, so that it stays within 0 and 1 and is skewed as estimates near
    1 are (Qin and Hotilovac 2008, Statistical Methods in Medical Research 17:207). Where the variance is 0, because the
    classes are apart or all scores the same, Wilson's interval over the smaller class stands in.
    """
    from scipy.stats import norm

    aurocs, covariance = auroc_covariance(positive, scores)
    area, variance = float(aurocs.mean()), float(covariance.mean())
    if np.isnan(variance):
        return Estimate(area, float("nan"), float("nan"))
    if variance < 1e-24 or not 0 < area < 1:
        return Estimate(area, *wilson_interval(area, min(positive.sum(), (~positive).sum()), level))
    half = float(norm.ppf((1 + level) / 2)) * np.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + np.exp(-(np.log(area / (1 - area)) + end))) for end in (-half, half))
    return Estimate(area, float(low), float(high))


def delong_test(positive: Bools, first: Floats, second: Floats, level: float = 0.95) -> Comparison:
    """Paired test of two models on the same patients, (n,), (R, n), (R', n).

    z = (A₁ - A₂) / sqrt(cᵀ cov c), with c = 1/R for the first model's rows and -1/R' for the second's. Two models that
    rank alike have p = 1. Where they differ without any variance (one is right about everybody, the other is constant)
    the normal approximation says nothing and p is NaN: use ``paired_tests.permutation_test``.
    """
    aurocs, covariance = auroc_covariance(positive, np.concatenate([first, second]))
    contrast = np.repeat([1 / len(first), -1 / len(second)], [len(first), len(second)])
    return comparison(float(contrast @ aurocs), float(contrast @ covariance @ contrast), level)


def comparison(difference: float, variance: float, level: float) -> Comparison:
    """A normal difference with its interval and p, which are NaN where the variance is, and where only it is 0."""
    from scipy.stats import norm

    if np.isnan(variance):
        return Comparison(difference, float("nan"), float("nan"), float("nan"))
    if variance < 1e-24:
        alike = abs(difference) < 1e-12
        return Comparison(difference, *((difference, difference, 1.0) if alike else [float("nan")] * 3))
    error = float(np.sqrt(variance))
    half = float(norm.ppf((1 + level) / 2)) * error
    return Comparison(difference, difference - half, difference + half, float(2 * norm.sf(abs(difference) / error)))


def _covariance(values: Floats) -> Floats:
    """(R, m) -> (R, R), with m - 1 in the denominator."""
    m = values.shape[1]
    if m < 2:
        return np.full((len(values), len(values)), np.nan)
    centred = values - values.mean(axis=1, keepdims=True)
    result: Floats = centred @ centred.T / (m - 1)
    return result
