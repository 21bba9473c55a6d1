"""Out-of-fold predictions of all repeats as arrays, and the BCa interval of whatever is computed from them.

Estimates pool all patients of a repeat and are averaged over the repeats; resamples draw patients, all repeats of a
patient together, within classes. The models are not trained again, so that what another training set would change is
not in the intervals. Letters: n patients, C classes, R repeats, B weightings, T figures computed at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.folds import refuse_unequal_repeats
from milkit.predictions import Predictions
from milkit.statistics.bca import MOST_UNDEFINED, Estimate, acceleration, bca_interval, leave_one_out
from milkit.statistics.intervals import bootstrap_weights, wilson_interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
RepeatMetric = Callable[[Ints, Floats, Floats], Floats]
"""Predicted classes (n,), probabilities (n, C) and weights (B, n) of one repeat -> (B, T)."""


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What ``predictions.csv`` holds, patients in the order of their ids.

    Attributes:
        patients: Ids.
        classes: In the order of the probabilities.
        labels: (n,) positions of the true classes.
        predicted: (R, n) positions of the predicted classes.
        probabilities: (R, n, C).
        folds: (R, n) the fold that tested each patient.
    """

    patients: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Ints
    predicted: Ints
    probabilities: Floats
    folds: Ints

    @classmethod
    def of(cls, predictions: Predictions) -> "OutOfFold":
        """Sort the table by repeat and patient; ``FoldError`` where repeats tested different patients, or one twice."""
        refuse_unequal_repeats(predictions.table)
        table = predictions.table.sort_values(["repeat", "patient_id"])
        tested = [tuple(part["patient_id"].astype(str)) for _, part in table.groupby("repeat", sort=True)]
        position = {name: c for c, name in enumerate(predictions.classes)}
        shape = (len(tested), len(tested[0]))
        return cls(
            patients=tested[0],
            classes=predictions.classes,
            labels=np.asarray(table["label"].map(position), dtype=np.int64).reshape(shape)[0],
            predicted=np.asarray(table["predicted"].map(position), dtype=np.int64).reshape(shape),
            probabilities=Predictions(table, predictions.classes).probabilities.reshape(*shape, -1),
            folds=table["fold"].to_numpy(dtype=np.int64).reshape(shape),
        )

    @property
    def counts(self) -> Ints:
        """Patients of each class, (C,)."""
        result: Ints = np.bincount(self.labels, minlength=len(self.classes))
        return result

    @property
    def redealt(self) -> bool:
        """Whether repeats test other folds than the first does; False of sites left out, and of one fixed test."""
        return bool((self.folds != self.folds[:1]).any())

    def mean_of(self, metric: RepeatMetric) -> Callable[[Floats], Floats]:
        """The metric as one of patient weights alone, (B, n) -> (B, T), averaged over the repeats."""

        def averaged(weights: Floats) -> Floats:
            repeats = zip(self.predicted, self.probabilities, strict=True)
            result: Floats = np.mean([metric(guess, shares, weights) for guess, shares in repeats], axis=0)
            return result

        return averaged

    def fold_values(self, metric: RepeatMetric) -> Floats:
        """The metric of each fold's patients alone, repeat by repeat, (R x folds, T)."""
        values = []
        for guess, shares, folds in zip(self.predicted, self.probabilities, self.folds, strict=True):
            in_fold = np.stack([folds == fold for fold in np.unique(folds)]).astype(np.float64)
            values.append(metric(guess, shares, in_fold))
        return np.concatenate(values)


class Resamples(NamedTuple):
    """Resamples of patients, drawn once for all figures.

    Attributes:
        weights: (B, n) how often each patient was drawn.
        strata: (n,) the class of each patient, whose sizes every resample keeps.
        level: Coverage of the intervals.
    """

    weights: Floats
    strata: Ints
    level: float

    @classmethod
    def of(cls, labels: Ints, n_bootstrap: int, level: float, seed: int) -> "Resamples":
        """Draw them within the classes."""
        return cls(bootstrap_weights(labels, n_bootstrap, seed), labels, level)

    def estimates(self, metric: Callable[[Floats], Floats], *, n_smallest: int | None = None) -> list[Estimate]:
        """Each of the T figures with its BCa interval, which is stretched to hold the estimate.

        Args:
            metric: Of patient weights, (B, n) -> (B, T).
            n_smallest: Patients of the smallest class, for figures between 0 and 1. Where no resample differs, because
                every patient is right, the bootstrap knows nothing; Wilson's interval over so many patients, the most
                cautious choice, stands in. None for other figures, which then have no interval.
        """
        n = len(self.strata)
        points, resamples, left_out = metric(np.ones((1, n)))[0], metric(self.weights), leave_one_out(metric, n)
        return [
            self.estimate(float(points[t]), resamples[:, t], left_out[:, t], n_smallest) for t in range(len(points))
        ]

    def estimate(self, point: float, resamples: Floats, left_out: Floats, n_smallest: int | None = None) -> Estimate:
        """One figure from its value, its resampled values (B,) and those without each patient (n,); see above."""
        nothing = Estimate(point if np.isfinite(point) else float("nan"), float("nan"), float("nan"))
        if not np.isfinite(point) or (~np.isfinite(resamples)).mean() > MOST_UNDEFINED:
            return nothing
        low, high = bca_interval(point, resamples, acceleration(left_out, self.strata), self.level)
        if high - low < 1e-12:
            return nothing if n_smallest is None else Estimate(point, *wilson_interval(point, n_smallest, self.level))
        return Estimate(point, min(low, point), max(high, point))
