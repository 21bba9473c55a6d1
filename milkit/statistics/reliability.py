"""Calibration of a run, class by class against the rest, as ``metrics.json`` holds it.

The probabilities are those that people see. Where a model was trained with weighted classes they are for classes of
equal frequency, so that ``in_the_large`` is below 0 for a rare class by intention, and the slope tells what is wrong.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.statistics.calibration_curve import (
    brier,
    brier_parts,
    expected_calibration_error,
    recalibration,
    reliability_bins,
)
from milkit.statistics.intervals import wilson_interval
from milkit.statistics.out_of_fold import OutOfFold, Resamples

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = (5, 10, 20)
"""The expected calibration error depends on the number of bins, so it is given for three."""

_IN_A_BIN = 10
"""A share of fewer patients has an interval wider than 0.5, and shows nothing."""


def calibration(pooled: OutOfFold, resamples: Resamples) -> dict[str, Any]:
    """By class: slope, intercept, intercept in the large and Brier score with intervals, its parts, and reliability.

    Figures are means over the repeats, but for the expected calibration error and ``reliability``, which put the
    predictions of all repeats together into bins of equally many. Those of ``reliability`` are at most 10, of 10
    patients or more; ``n`` is their mean number a repeat, over which Wilson's interval is taken, so that repeats are
    not counted as new patients.
    """
    return {name: _of_class(pooled, resamples, c) for c, name in enumerate(pooled.classes)}


def _of_class(pooled: OutOfFold, resamples: Resamples, c: int) -> dict[str, Any]:
    positive, n_repeats = pooled.labels == c, len(pooled.predicted)

    def fit(_: Ints, probabilities: Floats, weights: Floats) -> Floats:
        return np.stack(recalibration(positive, probabilities[:, c], weights), axis=1)

    def score(_: Ints, probabilities: Floats, weights: Floats) -> Floats:
        return brier(positive, probabilities[:, c], weights)[:, None]

    slope, intercept, in_the_large = resamples.estimates(pooled.mean_of(fit))
    smallest = int(min(positive.sum(), (~positive).sum()))
    (loss,) = resamples.estimates(pooled.mean_of(score), n_smallest=smallest)
    parts = np.mean([brier_parts(positive, shares[:, c]) for shares in pooled.probabilities], axis=0)
    every_truth, every_share = np.tile(positive, n_repeats), pooled.probabilities[:, :, c].ravel()
    most = max(2, min(10, len(positive) // _IN_A_BIN))
    bins = []
    for part in reliability_bins(every_truth, every_share, most):
        n = part.n / n_repeats
        low, high = wilson_interval(part.observed, n, resamples.level)
        bins.append({"n": n, "predicted": part.predicted, "observed": part.observed, "ci_low": low, "ci_high": high})
    return {
        "slope": slope._asdict(),
        "intercept": intercept._asdict(),
        "in_the_large": in_the_large._asdict(),
        "brier": loss._asdict(),
        "brier_parts": dict(zip(("miscalibration", "discrimination", "uncertainty"), parts[1:].tolist(), strict=True)),
        "expected_calibration_error": {
            str(number): expected_calibration_error(reliability_bins(every_truth, every_share, number))
            for number in BINS
        },
        "reliability": bins,
    }
