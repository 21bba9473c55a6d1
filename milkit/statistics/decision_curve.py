"""Whether acting on a model does more good than acting on everybody or on nobody: net benefit (Vickers and Elkin 2006).

A threshold pt says what a missed patient weighs against one treated in vain: who treats from a probability of 0.1 on
holds a miss to be nine times as bad. Suspected APL is treated at a low one. The range of thresholds is declared before
the curve is seen; outside what a clinician would choose, the curve means nothing.

Assumptions: calibrated probabilities, and a cohort with the clinic's share of patients. A cohort of cases and controls
in chosen numbers has no prevalence of its own, so one must be declared: patients are then weighted to it, and their
probabilities moved to it. Letters: n patients, B weightings, T thresholds.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.errors import SettingsError
from milkit.statistics.bca import acceleration, bca_interval, leave_one_out
from milkit.statistics.intervals import bootstrap_weights

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class DecisionCurve(NamedTuple):
    """Net benefit over thresholds, each (T,); that of treating nobody is 0.

    Attributes:
        thresholds: pt.
        model: Net benefit of treating those whose probability is at least pt, in true positives per patient.
        ci_low: BCa interval over patients, at each threshold on its own, stretched to hold the model.
        ci_high: Its upper limit.
        everybody: Net benefit of treating everybody.
        prevalence: The declared one, or the class's share of the cohort.
    """

    thresholds: Floats
    model: Floats
    ci_low: Floats
    ci_high: Floats
    everybody: Floats
    prevalence: float


def net_benefit(positive: Bools, probabilities: Floats, thresholds: Floats, weights: Floats) -> Floats:
    """True positives less false ones at their exchange rate, per patient: (n,), (n,), (T,), (B, n) -> (B, T).

        NB(pt) = TP / n - FP / n x pt / (1 - pt)

    treating where p >= pt (Vickers and Elkin 2006, Medical Decision Making 26:565).
    """
    treated = probabilities[:, None] >= thresholds
    worth = np.where(positive[:, None], 1.0, -_odds(thresholds))
    result: Floats = weights @ (treated * worth) / weights.sum(axis=1, keepdims=True)
    return result


def treat_everybody(prevalence: float, thresholds: Floats) -> Floats:
    """Net benefit of treating everybody, prevalence - (1 - prevalence) pt / (1 - pt), (T,)."""
    return prevalence - (1 - prevalence) * _odds(thresholds)


def interventions_avoided(model: Floats, everybody: Floats, thresholds: Floats) -> Floats:
    """Patients of 100 whom the model spares a treatment in vain, no more patients being missed for it, (T,).

    100 x (NB(model) - NB(everybody)) / (pt / (1 - pt)); negative where treating everybody is better.
    """
    result: Floats = 100 * (model - everybody) / _odds(thresholds)
    return result


def at_prevalence(positive: Bools, weights: Floats, prevalence: float) -> Floats:
    """Weightings (B, n) in which the positive patients have this share of the weight; their total is kept.

    NaN where a side has weight 0, since nothing can be given to it. Assumes that cases and controls are each like those
    of the clinic, only in other numbers.
    """
    sides = np.stack([weights @ ~positive, weights @ positive])  # (2, B)
    shares = np.array([[1 - prevalence], [prevalence]]) * sides.sum(axis=0)
    factors = np.divide(shares, sides, out=np.full_like(sides, np.nan), where=(sides > 0).all(axis=0))
    result: Floats = weights * factors[positive.astype(np.int64)].T
    return result


def moved(probabilities: Floats, cohort: float, prevalence: float) -> Floats:
    """Probabilities that were learned where the class had one share, for where it has another, (n,).

    odds' = odds x [prevalence / (1 - prevalence)] / [cohort / (1 - cohort)], by Bayes' rule (Elkan 2001, IJCAI;
    Saerens, Latinne and Decaestecker 2002, Neural Computation 14:21). Not for models trained with weighted or balanced
    classes, whose probabilities are for other shares than the cohort's.
    """
    up, down = probabilities * prevalence * (1 - cohort), (1 - probabilities) * (1 - prevalence) * cohort
    with np.errstate(invalid="ignore"):
        result: Floats = up / (up + down)
    return result


def decision_curve(
    positive: Bools,
    probabilities: Floats,
    thresholds: Floats,
    *,
    prevalence: float | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> DecisionCurve:
    """Net benefit of a model beside treating everybody, (n,), (n,) or (R, n), (T,); NaN where a side is empty.

    Args:
        positive: Of the class.
        probabilities: Out-of-fold, of the cohort's mix; several rows are repeats, over which the benefit is averaged.
        thresholds: The declared range, each between 0 and 1.
        prevalence: The declared one; by default the cohort's, which only a cohort of consecutive patients has.
        n_resamples: Of the stratified bootstrap over patients.
        level: Of the intervals.
        seed: Of the resamples.

    Raises:
        SettingsError: A threshold or the prevalence is not between 0 and 1.
    """
    for name, values in (
        ("thresholds", thresholds),
        ("prevalence", np.array([0.5 if prevalence is None else prevalence])),
    ):
        if not ((values > 0) & (values < 1)).all():
            msg = f"{name} from {values.min():g} to {values.max():g}: expected between 0 and 1; choose others"
            raise SettingsError(msg)
    share = float(positive.mean())
    declared = share if prevalence is None else prevalence
    repeats = np.atleast_2d(moved(probabilities, share, declared))

    def metric(weights: Floats) -> Floats:
        own = at_prevalence(positive, weights, declared)
        result: Floats = np.mean([net_benefit(positive, row, thresholds, own) for row in repeats], axis=0)
        return result

    n, strata = len(positive), positive.astype(np.int64)
    model = metric(np.ones((1, n)))[0]
    resamples = metric(bootstrap_weights(strata, n_resamples, seed))
    left_out = leave_one_out(metric, n)
    limits = [
        bca_interval(float(model[t]), resamples[:, t], acceleration(left_out[:, t], strata), level)
        for t in range(len(thresholds))
    ]
    low, high = np.array(limits).reshape(-1, 2).T
    low, high = np.minimum(low, model), np.maximum(high, model)
    return DecisionCurve(thresholds, model, low, high, treat_everybody(declared, thresholds), declared)


def _odds(thresholds: Floats) -> Floats:
    result: Floats = thresholds / (1 - thresholds)
    return result
