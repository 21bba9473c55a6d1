"""How good predicted survival is: concordance, Brier score beside a curve for everyone, calibration at a horizon.

Intervals are BCa over patients, all rows of a patient drawn together; models and baselines are not made again.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.statistics.bca import Estimate
from milkit.statistics.concordance import harrell, uno
from milkit.statistics.out_of_fold import Resamples
from milkit.statistics.survival import brier, calibration_at, integrated_brier, observed_to_expected
from milkit.survival.outcome import Outcome
from milkit.survival.predicted import Risks

Floats = npt.NDArray[np.float64]

N_TIMES = 51
"""At which the Brier score is taken, evenly from 0 to the horizon."""

EVENTS_PER_GROUP = 10


def brier_times(horizon: float) -> Floats:
    """Times of the Brier score, from 0, where it is 0, to the horizon."""
    return np.linspace(0.0, horizon, N_TIMES)


def concordance(outcome: Outcome, risks: Risks, horizon: float, resamples: Resamples) -> dict[str, dict[str, float]]:
    """c-indices with intervals; a higher risk is an earlier event, and 0.5 is chance.

    ``within_folds``: Harrell's, only of pairs that the same model ranked, averaged over the repeats, so that it needs
    no common scale; the one to quote. ``uno``: Uno's up to the horizon, of the same pairs; it does not depend on how
    long patients were followed. ``pooled``: Harrell's over all pairs of patients, of risks relative to their fold's
    yardstick and averaged over the repeats. The first two only where every repeat tests everybody.
    """
    time, event = outcome.time, outcome.event
    repeats = [part for _, part in outcome.predictions.groupby("repeat", sort=True)]
    folds = [part["fold"].to_numpy(dtype=np.int64) for part in repeats]
    own = [part["risk"].to_numpy(dtype=np.float64) for part in repeats]

    def within(weights: Floats) -> Floats:
        values = [harrell(time, event, risk, weights, fold) for risk, fold in zip(own, folds, strict=True)]
        return np.asarray(np.mean(values, axis=0))[:, None]

    def to_horizon(weights: Floats) -> Floats:
        values = [uno(time, event, risk, weights, horizon, fold) for risk, fold in zip(own, folds, strict=True)]
        return np.asarray(np.mean(values, axis=0))[:, None]

    def pooled(weights: Floats) -> Floats:
        return harrell(time, event, risks.mean, weights)[:, None]

    metrics = {"within_folds": within, "uno": to_horizon, "pooled": pooled}
    if any(len(part) != len(time) for part in repeats):
        metrics = {"pooled": pooled}
    n_events = int(event.sum())
    return {name: plain(resamples.estimates(metric, n_smallest=n_events)[0]) for name, metric in metrics.items()}


def brier_scores(
    outcome: Outcome, survival: Floats, everyone: Floats, at: Floats, resamples: Resamples
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Integrated Brier scores up to the horizon, and the scores at each time.

    ``model``; ``reference``, the Kaplan-Meier curve of everybody (of the patients that the model's was made from) given
    to each patient; ``gain``, 1 - model / reference: 0 says that the predictions add nothing, below 0 that they harm.
    """
    time, event = outcome.time, outcome.event

    def metric(weights: Floats) -> Floats:
        ours, theirs = (integrated_brier(time, event, curves, at, weights) for curves in (survival, everyone))
        gain = 1 - np.divide(ours, theirs, out=np.full_like(ours, np.nan), where=theirs > 0)
        return np.stack([ours, theirs, gain], axis=1)

    found = dict(zip(("model", "reference", "gain"), map(plain, resamples.estimates(metric)), strict=True))
    ones = np.ones((1, len(time)))
    both = {"model": brier(time, event, survival, at, ones)[0], "reference": brier(time, event, everyone, at, ones)[0]}
    return found, both


def calibration(outcome: Outcome, survival: Floats, horizon: float, resamples: Resamples) -> dict[str, Any]:
    """Predicted and observed events up to the horizon, in all and in groups of similar prediction.

    As many groups, two to five, as leave ten events in each on average. ``survival`` (n,) is the predicted one there.
    """
    time, event = outcome.time, outcome.event
    n_groups = int(np.clip((event & (time <= horizon)).sum() // EVENTS_PER_GROUP, 2, 5))
    rows = calibration_at(time, event, survival, horizon, n_groups, resamples.level)
    (ratio,) = resamples.estimates(
        lambda weights: observed_to_expected(time, event, survival, horizon, weights)[:, None]
    )
    return {"observed_to_expected": plain(ratio), "groups": [row._asdict() for row in rows]}


def plain(estimate: Estimate) -> dict[str, float]:
    """A figure as values of JSON."""
    return {name: float(value) for name, value in estimate._asdict().items()}
