"""Figures over tested cells with bootstrap intervals, for several classifiers of the same cells at once.

The cells of a set without patients are drawn within their classes, as if each had been sampled on its own. That is not
so where patients are behind them that nobody published: such intervals are too narrow, and hold for these cells rather
than for new patients. Where it is known which cells belong together, as a patient's or a field's, these groups are
drawn whole (Davison and Hinkley 1997, section 3.8), within classes where all cells of each group are of one class.
The classifiers are not trained again, so what other training cells would change is not in the intervals.

Every classifier is scored on the same resamples, so that differences between them are paired. Cells with the same
class, group and predictions are counted together, which is the same bootstrap, and small however many cells there are.
Letters: n cells, M classifiers, C classes, R distinct outcomes, B resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.statistics import discrimination
from milkit.statistics.intervals import percentile_interval, wilson_interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Figure = dict[str, Any]
"""``estimate``, ``ci_low``, ``ci_high`` and, where there are folds, ``folds``; None where undefined."""

METRICS = ("weighted_f1", "accuracy", "balanced_accuracy")

_WEIGHTS_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Tested cells by what became of them.

    Attributes:
        labels: (R,) true class.
        predicted: (M, R) class that each classifier says.
        groups: (R,) the group that is drawn as a whole; None where every cell is drawn on its own.
        counts: (R,) cells with this outcome.
        n_classes: C.
    """

    labels: Ints
    predicted: Ints
    groups: Ints | None
    counts: Ints
    n_classes: int

    @classmethod
    def of(cls, labels: Ints, predicted: Ints, n_classes: int, groups: Ints | None = None) -> "Outcomes":
        """Count cells (n,) with predictions (M, n) and, where they are drawn together, groups (n,)."""
        rows = [labels, *([] if groups is None else [groups]), *predicted]
        distinct, counts = np.unique(np.stack(rows), axis=1, return_counts=True)
        first = 1 if groups is None else 2
        own = None if groups is None else np.unique(distinct[1], return_inverse=True)[1]
        return cls(distinct[0], distinct[first:], own, counts, n_classes)

    @property
    def n_smallest(self) -> int:
        """Cells, or groups, of the class that has the fewest."""
        members = [self.labels == c for c in np.unique(self.labels)]
        if self.groups is None:
            return int(min(self.counts[own].sum() for own in members))
        return int(min(len(np.unique(self.groups[own])) for own in members))

    def weightings(self, n_resamples: int, seed: int) -> Iterator[Floats]:
        """How many cells of each outcome a resample has, (some of B, R), until there were ``n_resamples``."""
        generator = np.random.default_rng(seed)
        units, sizes, strata = self._units()
        step = max(1, _WEIGHTS_AT_ONCE // len(self.labels))
        for first in range(0, n_resamples, step):
            drawn = np.zeros((min(step, n_resamples - first), len(sizes)))
            for stratum in np.unique(strata):
                own = np.flatnonzero(strata == stratum)
                total = int(sizes[own].sum())
                drawn[:, own] = generator.multinomial(total, sizes[own] / total, size=len(drawn))
            yield drawn[:, units] if self.groups is None else drawn[:, units] * self.counts

    def _units(self) -> tuple[Ints, Ints, Ints]:
        """The unit of each outcome (R,), and of each unit how often it is there and its stratum."""
        if self.groups is None:
            return np.arange(len(self.labels)), self.counts, self.labels
        n_groups = int(self.groups.max()) + 1
        lowest, highest = np.full(n_groups, self.n_classes), np.full(n_groups, -1)
        np.minimum.at(lowest, self.groups, self.labels)
        np.maximum.at(highest, self.groups, self.labels)
        pure = np.array_equal(lowest, highest)
        return self.groups, np.ones(n_groups, dtype=np.int64), lowest if pure else np.zeros(n_groups, dtype=np.int64)


class Scores:
    """Metrics of M classifiers, on all tested cells and on resamples of them."""

    def __init__(self, outcomes: Outcomes, *, n_bootstrap: int, level: float, seed: int) -> None:
        """Draw the resamples and score every classifier on each."""
        self.level, self._outcomes = level, outcomes
        self._estimates = self._score(outcomes.counts[None].astype(np.float64))[0]
        parts = [self._score(weights) for weights in outcomes.weightings(n_bootstrap, seed)]
        self._resamples = np.concatenate(parts)  # (B, M, metrics)

    def figure(self, classifier: int, metric: str) -> Figure:
        """One metric of one classifier.

        Where no resample differs, because every cell is right, the bootstrap knows nothing, and Wilson's interval over
        the smallest class stands in.
        """
        column = METRICS.index(metric)
        estimate = float(self._estimates[classifier, column])
        low, high = percentile_interval(self._resamples[:, classifier, column], self.level)
        if low == high:
            low, high = wilson_interval(estimate, self._outcomes.n_smallest, self.level)
        return {"estimate": estimate, "ci_low": low, "ci_high": high}

    def difference(self, classifier: int, other: int, metric: str) -> Figure:
        """One metric of a classifier less that of another, on the same resamples.

        Where the two never differ, the interval reaches as far as the share of cells, of the smallest class, on which
        they might differ without its having been seen.
        """
        column = METRICS.index(metric)
        estimate = float(self._estimates[classifier, column] - self._estimates[other, column])
        gaps = self._resamples[:, classifier, column] - self._resamples[:, other, column]
        low, high = percentile_interval(gaps, self.level)
        if low == high:
            high = wilson_interval(0.0, self._outcomes.n_smallest, self.level)[1]
            low = -high
        return {"estimate": estimate, "ci_low": low, "ci_high": high}

    def _score(self, weights: Floats) -> Floats:
        """(B, R) -> (B, M, metrics)."""
        own = self._outcomes
        return np.stack([score(own.labels, guess, weights, own.n_classes) for guess in own.predicted], axis=1)


def score(labels: Ints, predicted: Ints, weights: Floats, n_classes: int) -> Floats:
    """The ``METRICS`` of one classifier under each weighting, (B, metrics)."""
    return np.stack(
        [
            discrimination.weighted_f1(labels, predicted, weights, n_classes),
            discrimination.accuracy(labels, predicted, weights),
            discrimination.balanced_accuracy(labels, predicted, weights, n_classes),
        ],
        axis=1,
    )
