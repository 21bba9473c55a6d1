"""Whether predicted probabilities are what happens: slope and intercept, Brier score, reliability with intervals.

A model can tell all patients apart and still be useless for a decision, if of the patients that it gives 90% only half
are ill. All figures are of one class against the rest; of several classes, take each column of probabilities in turn.

Probabilities of 0 and 1 are moved to 1e-7 from the end, the resolution of single precision, before logarithms of odds
are taken. Assumption: independent patients, out-of-fold probabilities. In a cohort of cases and controls in chosen
numbers the intercept is that of the cohort's mix, and says nothing of a clinic's (``decision_curve.at_prevalence``).
Letters: n patients, B weightings.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.statistics.intervals import wilson_interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_END = 1e-7
_STEPS = 50
_NEAR = 1e-7
"""A Newton step smaller than this has squared its distance to the maximum: it is below rounding."""


class Recalibration(NamedTuple):
    """How predicted log odds relate to what happened, each (B,).

    Attributes:
        slope: 1 is right; below 1 the probabilities are too extreme, as overfitting makes them, above 1 too timid.
        intercept: Fitted together with the slope; 0 is right.
        in_the_large: The intercept with the slope held at 1: above 0, the class is more frequent than predicted.
    """

    slope: Floats
    intercept: Floats
    in_the_large: Floats


class BrierParts(NamedTuple):
    """score = miscalibration - discrimination + uncertainty.

    Attributes:
        score: Mean of (p - y)².
        miscalibration: What recalibrating would gain; 0 is best.
        discrimination: What the ranking is worth once recalibrated; 0 is that of one probability for all.
        uncertainty: The score of the class's share, given to everyone: share x (1 - share).
    """

    score: float
    miscalibration: float
    discrimination: float
    uncertainty: float


class ReliabilityBin(NamedTuple):
    """Patients of similar predicted probability.

    Attributes:
        n: Patients.
        predicted: Mean predicted probability.
        observed: Share of them that are of the class.
        ci_low: Wilson's interval of the share.
        ci_high: Its upper limit.
    """

    n: int
    predicted: float
    observed: float
    ci_low: float
    ci_high: float


def recalibration(positive: Bools, probabilities: Floats, weights: Floats) -> Recalibration:
    """Logistic recalibration: log odds(y) = intercept + slope x log odds(p), (n,), (n,), (B, n).

    By maximum likelihood (Cox 1958, Biometrika 45:562; Van Calster et al. 2019, BMC Medicine 17:230). Slope and
    intercept are NaN where the likelihood has no maximum: where the probabilities separate the class from the rest, so
    that any larger slope fits better. ``in_the_large`` is NaN where a side has weight 0. A slope is a property of many
    patients: with 20 of a class, 1 ± 0.5 is an ordinary result of a calibrated model, so show its interval.
    """
    odds = _log_odds(probabilities)
    there = weights > 0
    up, down = there & positive, there & ~positive
    lowest_up, highest_up = np.where(up, odds, np.inf).min(axis=1), np.where(up, odds, -np.inf).max(axis=1)
    lowest_down, highest_down = np.where(down, odds, np.inf).min(axis=1), np.where(down, odds, -np.inf).max(axis=1)
    overlapping: Bools = np.logical_and(lowest_up < highest_down, lowest_down < highest_up)
    centre, scale = odds.mean(), odds.std() or 1.0  # Newton's steps need columns of like size
    design = np.stack([np.ones_like(odds), (odds - centre) / scale], axis=1)
    fitted = _logistic(design, np.zeros_like(odds), positive, weights, overlapping)
    both_there: Bools = np.logical_and(up.any(axis=1), down.any(axis=1))
    large = _logistic(design[:, :1], odds, positive, weights, both_there)
    slope = fitted[:, 1] / scale
    return Recalibration(slope, fitted[:, 0] - slope * centre, large[:, 0])


def brier(positive: Bools, probabilities: Floats, weights: Floats) -> Floats:
    """Mean squared distance of probability and truth, 0 to 1, (B,) (Brier 1950, Monthly Weather Review 78:1).

    Read it against the ``uncertainty`` of its parts: in a class of 10% of patients, 0.09 is what knowing nothing costs.
    """
    result: Floats = weights @ (probabilities - positive) ** 2 / weights.sum(axis=1)
    return result


def brier_parts(positive: Bools, probabilities: Floats) -> BrierParts:
    """The Brier score's parts by isotonic recalibration, (n,), (n,).

        miscalibration = S(p) - S(r),    discrimination = S(share) - S(r),    uncertainty = S(share)

    r is the non-decreasing function of p that is nearest to the outcomes. Unlike Murphy's parts over bins (1973, J. of
    Applied Meteorology 12:595), they add up exactly, are never negative and depend on no number of bins; where p has
    few values and the observed shares rise with it, they are Murphy's (Dimitriadis, Gneiting and Jordan 2021, PNAS
    118:e2016191118). r is fitted on the same patients, so miscalibration and discrimination are both above 0 by chance.
    """
    from sklearn.isotonic import IsotonicRegression

    truth = positive.astype(np.float64)
    recalibrated = IsotonicRegression().fit_transform(probabilities, truth)
    score, best = float(np.mean((probabilities - truth) ** 2)), float(np.mean((recalibrated - truth) ** 2))
    uncertainty = float(truth.mean() * (1 - truth.mean()))
    return BrierParts(score, score - best, uncertainty - best, uncertainty)


def reliability_bins(
    positive: Bools, probabilities: Floats, n_bins: int = 10, level: float = 0.95
) -> list[ReliabilityBin]:
    """Predicted probability and observed share in bins of equally many patients, lowest first.

    Equal probabilities stay in one bin, so there may be fewer bins, of other sizes. Each share has Wilson's interval,
    without which five patients a bin look like a miscalibrated model.
    """
    edges = np.quantile(probabilities, np.arange(1, n_bins) / n_bins)
    bins = np.searchsorted(edges, probabilities, side="right")
    result = []
    for number in np.unique(bins):
        own = bins == number
        observed, n = float(positive[own].mean()), int(own.sum())
        result.append(
            ReliabilityBin(n, float(probabilities[own].mean()), observed, *wilson_interval(observed, n, level))
        )
    return result


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Σ n_b / n |observed - predicted| over the bins (Naeini, Cooper and Hauskrecht 2015, AAAI).

    It grows with the number of bins and is above 0 for a calibrated model: show it for several, never alone.
    """
    return sum(part.n * abs(part.observed - part.predicted) for part in bins) / sum(part.n for part in bins)


def _log_odds(probabilities: Floats) -> Floats:
    inside = np.clip(probabilities, _END, 1 - _END)
    result: Floats = np.log(inside) - np.log1p(-inside)
    return result


def _logistic(design: Floats, offset: Floats, positive: Bools, weights: Floats, defined: Bools) -> Floats:
    """Coefficients of largest likelihood, (n, k), (n,), (n,), (B, n), (B,) -> (B, k); NaN where not defined.

    Newton's method for all weightings at once, from the solution of their mean, those that have arrived being left
    alone; a step that lowers the likelihood is halved, until it does not.
    """
    result = np.full((len(weights), design.shape[1]), np.nan)
    every = weights[defined]
    coefficients = np.zeros((len(every), design.shape[1]))
    if len(every) > 1:
        coefficients += _logistic(design, offset, positive, every.mean(axis=0, keepdims=True), np.array([True]))
    pairs = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)

    def losses(values: Floats, own: Floats) -> tuple[Floats, Floats]:
        odds = offset + values @ design.T
        small = np.exp(-np.abs(odds))
        loss: Floats = (own * (np.maximum(odds, 0.0) + np.log1p(small) - positive * odds)).sum(axis=1)
        return loss, np.where(odds >= 0, 1.0, small) / (1 + small)

    moving = np.arange(len(every))
    loss, predicted = losses(coefficients, every)
    for _ in range(_STEPS):
        now, own = coefficients[moving], every[moving]
        gradient = (own * (positive - predicted)) @ design
        curvature = ((own * predicted * (1 - predicted)) @ pairs).reshape(len(own), *2 * [design.shape[1]])
        curvature += 1e-12 * own.sum(axis=1)[:, None, None] * np.eye(design.shape[1])  # where all p are saturated
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        reached, predicted = losses(now + step, own)
        for _ in range(_STEPS):
            worse = np.flatnonzero(reached > loss + 1e-12 * np.abs(loss))
            if not len(worse):
                break
            step[worse] /= 2
            reached[worse], predicted[worse] = losses(now[worse] + step[worse], own[worse])
        coefficients[moving] = now + step
        far = np.abs(step).max(axis=1) >= _NEAR
        moving, loss, predicted = moving[far], reached[far], predicted[far]
        if not len(moving):
            break
    result[defined] = coefficients
    return result
