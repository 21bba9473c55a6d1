"""What a decision at one threshold is worth: sensitivity, specificity, and predictive values at a declared prevalence.

Sensitivity and specificity hold for any mix of patients; predictive values do not. In a cohort of 129 patients and 60
controls a positive result is right far more often than in a clinic where one of a hundred is ill, so predictive values
are given only for a prevalence that somebody declares. Letters: n patients, B weightings.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.errors import SettingsError
from milkit.statistics.bca import Estimate
from milkit.statistics.intervals import wilson_interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class OperatingPoint(NamedTuple):
    """Sensitivity and specificity, each with Wilson's interval over its patients."""

    sensitivity: Estimate
    specificity: Estimate


class PredictiveValues(NamedTuple):
    """Probability of being ill after a positive result, and of not being ill after a negative one."""

    positive: Estimate
    negative: Estimate


def sensitivity_at(positive: Bools, scores: Floats, specificity: float, weights: Floats) -> Floats:
    """The largest sensitivity at a specificity of at least this, (n,), (n,), (B, n) -> (B,).

    The threshold is one of the scores (positive from it on), or above all. It is chosen anew under every weighting, so
    that a bootstrap holds its uncertainty too; an interval of the share of patients above a threshold found on the same
    patients would be too narrow (Platt, Hanley and Yang 2000, Statistics in Medicine 19:313). Pooling the scores of
    several folds assumes that they are on one scale. A little optimistic, by the choice on the tested patients: with
    few controls, take a threshold of inner folds and ``operating_point``. NaN where a side has weight 0.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, np.True_))  # last patient of each distinct score
    hits = np.cumsum(weights[:, order] * positive[order], axis=1)[:, ends]
    alarms = np.cumsum(weights[:, order] * ~positive[order], axis=1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        reached, wrong = hits / hits[:, -1:], alarms / alarms[:, -1:]
    best = np.where(wrong <= 1 - specificity + 1e-12, reached, 0.0).max(axis=1)
    result: Floats = np.where(np.isnan(wrong[:, -1]) | np.isnan(reached[:, -1]), np.nan, best)
    return result


def operating_point(positive: Bools, flagged: Bools, level: float = 0.95) -> OperatingPoint:
    """Sensitivity and specificity of a decision that did not see these patients' labels, (n,), (n,)."""
    sensitivity, specificity = _share(flagged[positive]), _share(~flagged[~positive])
    n_up, n_down = int(positive.sum()), int((~positive).sum())
    return OperatingPoint(
        Estimate(sensitivity, *wilson_interval(sensitivity, n_up, level)),
        Estimate(specificity, *wilson_interval(specificity, n_down, level)),
    )


def predictive_values(
    positive: Bools, flagged: Bools | Floats, prevalence: float, level: float = 0.95
) -> PredictiveValues:
    """PPV and NPV at a declared prevalence π of a decision, (n,), (n,), or of several: the share that flags a patient.

        PPV = Se π / (Se π + (1 - Sp) (1 - π)),    NPV = Sp (1 - π) / (Sp (1 - π) + (1 - Se) π)

    Intervals by the delta method on the log odds, which are a sum: logit PPV = log(Se / (1 - Sp)) + logit π, with the
    variance (1 - Se) / (Se n+) + Sp / ((1 - Sp) n-), and NPV likewise (Mercaldo, Lau and Zhou 2007, Statistics in
    Medicine 26:2170). Where Se or Sp is 0 or 1, limits come from shares with z²/2 patients added to each side, as
    there, and are stretched to hold the estimate. The prevalence is taken as known, and cases and controls as like the
    clinic's. NaN where a side has no patients, or nobody is flagged (PPV), or everybody (NPV).

    Raises:
        SettingsError: The prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        msg = f"prevalence {prevalence:g}: expected a share between 0 and 1; declare that of the clinic"
        raise SettingsError(msg)
    shares = flagged.astype(np.float64)
    sensitivity, specificity = _share(shares[positive]), _share(1 - shares[~positive])
    n_up, n_down = int(positive.sum()), int((~positive).sum())
    return PredictiveValues(
        _predictive(sensitivity, n_up, 1 - specificity, n_down, prevalence, level),
        _predictive(specificity, n_down, 1 - sensitivity, n_up, 1 - prevalence, level),
    )


def _share(right: Bools | Floats) -> float:
    return float(right.mean()) if len(right) else float("nan")


def _predictive(right: float, n_right: int, wrong: float, n_wrong: int, prior: float, level: float) -> Estimate:
    """The share right x prior / (right x prior + wrong x (1 - prior)), from shares of n_right and n_wrong patients."""
    from scipy.stats import norm

    total = right * prior + wrong * (1 - prior)
    if not total > 0:  # nobody has this result, or a side is empty
        return Estimate(float("nan"), float("nan"), float("nan"))
    estimate, z = right * prior / total, float(norm.ppf((1 + level) / 2))
    if right in (0.0, 1.0) or wrong in (0.0, 1.0):
        right, wrong = ((s * n + z * z / 2) / (n + z * z) for s, n in ((right, n_right), (wrong, n_wrong)))
    centre = np.log(right / wrong) + np.log(prior / (1 - prior))
    half = z * np.sqrt((1 - right) / (right * n_right) + (1 - wrong) / (wrong * n_wrong))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (centre - half, centre + half))
    return Estimate(estimate, min(low, estimate), max(high, estimate))
