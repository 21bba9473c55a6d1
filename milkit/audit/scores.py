"""Figures of out-of-fold probabilities with intervals over patients, and paired differences of two models.

The figures are those of ``metrics.json``: each pools the tested patients of a repeat and is the mean over the repeats.
All models are resampled with the same patients, so that the difference of two has an interval of its own, which is
narrower than the two intervals beside each other suggest. Letters: n tested patients, C classes, R repeats, B
resamples, T figures.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.statistics import discrimination
from milkit.statistics.bca import acceleration, bca_interval, leave_one_out
from milkit.statistics.intervals import wilson_interval
from milkit.statistics.out_of_fold import Resamples

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BALANCED_ACCURACY, AUROC_MACRO = 0, 1
HEADLINES = {"balanced_accuracy": BALANCED_ACCURACY, "auroc_macro": AUROC_MACRO}
"""The figures that models are compared by, and where they stand among the T."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Balanced accuracy, macro AUROC, the C recalls and the C one-versus-rest AUROCs of one model.

    Attributes:
        estimate: (T,) of all tested patients.
        resamples: (B, T).
        left_out: (n, T) without each patient.
    """

    estimate: Floats
    resamples: Floats
    left_out: Floats

    def __sub__(self, other: "Scores") -> "Scores":
        """How much higher the figures of this model are than those of another one of the same patients."""
        return Scores(self.estimate - other.estimate, self.resamples - other.resamples, self.left_out - other.left_out)


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores models on the same tested patients and the same resamples of them.

    Attributes:
        labels: (n,) position of each tested patient's class.
        classes: All classes; one that no tested patient has is left out of means.
        resamples: Of these patients, within classes, as those of the run are.
    """

    labels: Ints
    classes: tuple[str, ...]
    resamples: Resamples

    def score(self, probabilities: Floats) -> Scores:
        """All figures of a model's probabilities, (R, n, C)."""

        def figures(weights: Floats) -> Floats:
            return np.asarray(np.mean([self._figures(repeat, weights) for repeat in probabilities], axis=0))

        n = len(self.labels)
        return Scores(figures(np.ones((1, n)))[0], figures(self.resamples.weights), leave_one_out(figures, n))

    def figure(self, scores: Scores, column: int) -> dict[str, float | None]:
        """One figure as ``metrics.json`` holds it: ``estimate``, ``ci_low``, ``ci_high``; null where undefined.

        Where no resample differs the bootstrap knows nothing, and Wilson's interval over the smallest class stands in.
        """
        limits = self._interval(scores, column)
        if limits is None:
            smallest = int(np.unique(self.labels, return_counts=True)[1].min())
            limits = wilson_interval(float(scores.estimate[column]), smallest, self.resamples.level)
        return _plain(scores.estimate[column], *limits)

    def difference(self, first: Scores, second: Scores) -> dict[str, dict[str, float | None]]:
        """The first model less the second in both headline figures; no limits where no resample differs."""
        gap = first - second
        result = {}
        for name, column in HEADLINES.items():
            result[name] = _plain(gap.estimate[column], *(self._interval(gap, column) or (np.nan, np.nan)))
        return result

    def over_shuffles(self, probabilities: Floats) -> dict[str, dict[str, float | None]]:
        """Both headline figures of models that learned from shuffled labels, (R, n, C), one shuffle a row.

        On the same patients such figures scatter around chance by what each shuffle happened to be, all patients
        together; an interval over the patients does not see that. So it is Student's over the R shuffles.
        """
        from scipy.stats import t as student

        ones, n = np.ones((1, len(self.labels))), len(probabilities)
        each = np.concatenate([self._figures(shuffle, ones) for shuffle in probabilities])
        half = float(student.ppf((1 + self.resamples.level) / 2, n - 1)) * each.std(axis=0, ddof=1) / np.sqrt(n)
        middle = each.mean(axis=0)
        return {name: _plain(middle[t], middle[t] - half[t], middle[t] + half[t]) for name, t in HEADLINES.items()}

    def summary(self, scores: Scores) -> dict[str, Any]:
        """Both headline figures, and by class ``n``, ``recall`` (Wilson's interval) and ``auroc``."""
        n_classes, per_class = len(self.classes), {}
        for c, name in enumerate(self.classes):
            n, recall = int((self.labels == c).sum()), scores.estimate[2 + c]
            limits = wilson_interval(float(recall), n, self.resamples.level)
            auroc = self.figure(scores, 2 + n_classes + c)
            per_class[name] = {"n": n, "recall": _plain(recall, *limits), "auroc": auroc}
        return {name: self.figure(scores, column) for name, column in HEADLINES.items()} | {"per_class": per_class}

    def _figures(self, probabilities: Floats, weights: Floats) -> Floats:
        """(n, C), (B, n) -> (B, T)."""
        there = np.unique(self.labels)
        predicted = probabilities.argmax(axis=1)
        recalls = discrimination.recall(self.labels, predicted, weights, len(self.classes))
        aurocs = discrimination.one_versus_rest("auroc", self.labels, probabilities, weights)
        means = [values[:, there].mean(axis=1, keepdims=True) for values in (recalls, aurocs)]
        return np.concatenate([*means, recalls, aurocs], axis=1)

    def _interval(self, scores: Scores, column: int) -> tuple[float, float] | None:
        """BCa, stretched to hold the estimate; None where no resample differs."""
        skewness = acceleration(scores.left_out[:, column], self.labels)
        point = float(scores.estimate[column])
        low, high = bca_interval(point, scores.resamples[:, column], skewness, self.resamples.level)
        return None if high - low < 1e-12 else (min(low, point), max(high, point))


def _plain(estimate: float, low: float, high: float) -> dict[str, float | None]:
    values = {"estimate": estimate, "ci_low": low, "ci_high": high}
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}
