"""What `milkit probe --taxonomy` says beyond right and wrong: how far off mistakes are in the tree of cell types.

The figures are those of ``milkit.statistics.hierarchy``. A class is a node here, and no class contains another. All
depend on the form of the tree: compare figures only within one taxonomy. Letters: n cells, C classes, M classifiers, B
resamples, d features.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.statistics.cell_intervals import Figure, Outcomes
from milkit.statistics.hierarchy import Tree, feature_correlation, level_accuracies, mistake_heights, path_scores
from milkit.statistics.intervals import percentile_interval, wilson_interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HEIGHTS = ("height", "height_of_mistakes")
"""Figures in edges, from 0 on, the lower the better; all others are shares."""


def tree_metrics(tree: Tree, truth: Ints, predicted: Ints, weights: Floats) -> dict[str, Floats]:
    """Each figure of one classifier under each weighting: (n,), (n,), (B, n) -> (B,).

    ``height``: mean height of the lowest common ancestor of label and prediction over all cells, 0 for those that are
    right; ``height_of_mistakes``: over the mistakes alone. ``path_precision``, ``path_recall`` and ``path_f1`` are the
    hierarchical ones. ``balanced_accuracy_depth_3``: balanced accuracy of the ancestors at that depth, at each where
    the cells are of two classes or more.
    """
    heights, paths = mistake_heights(tree, truth, predicted, weights), path_scores(tree, truth, predicted, weights)
    levels = level_accuracies(tree, truth, predicted, weights)
    return {
        "height": heights.of_all,
        "height_of_mistakes": heights.of_mistakes,
        **{f"path_{name}": values for name, values in paths._asdict().items()},
        **{f"balanced_accuracy_depth_{at.depth}": at.balanced_accuracy for at in levels if at.n_classes > 1},
    }


class TreeScores:
    """``tree_metrics`` of M classifiers, on all tested cells and on the resamples that ``Scores`` draws by its seed."""

    def __init__(
        self, tree: Tree, nodes: Sequence[str], outcomes: Outcomes, *, n_bootstrap: int, level: float, seed: int
    ) -> None:
        """Draw the resamples and score every classifier on each; ``nodes`` are the classes by position."""
        self.tree, self.level, self._at, self._outcomes = tree, level, tree.positions(nodes), outcomes
        confusions = [_Confusion(outcomes.labels, own, len(self._at)) for own in outcomes.predicted]
        counted = [[own.count(outcomes.counts[None].astype(np.float64)) for own in confusions]]
        for weights in outcomes.weightings(n_bootstrap, seed):
            counted.append([own.count(weights) for own in confusions])
        self._values = [
            tree_metrics(tree, self._at[own.truth], self._at[own.predicted], np.concatenate(counts))
            for own, counts in zip(confusions, zip(*counted, strict=True), strict=True)
        ]  # of each classifier (1 + B,), the estimate first

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the figures."""
        return tuple(self._values[0])

    @property
    def highest(self) -> int:
        """The height of the worst mistake among these classes."""
        there = self._at[np.unique(np.concatenate([self._outcomes.labels, *self._outcomes.predicted]))]
        return int(self.tree.heights[self.tree.common[np.ix_(there, there)]].max())

    def facts(self) -> dict[str, Any]:
        """What all figures are over: the taxonomy, the worst mistake, and of each depth its classes and cells."""
        own, counts = self._at[self._outcomes.labels], self._outcomes.counts
        levels = []
        for depth in range(1, self.tree.lifted.shape[1]):
            there = self.tree.depths[own] >= depth
            n_classes, n_cells = len(np.unique(self.tree.lifted[own[there], depth])), int(counts[there].sum())
            if n_classes > 1:
                left_out = int(counts.sum()) - n_cells
                levels.append({"depth": depth, "n_classes": n_classes, "n_cells": n_cells, "n_left_out": left_out})
        return {"taxonomy": self.tree.taxonomy.name, "highest": self.highest, "levels": levels}

    def figure(self, classifier: int, metric: str) -> Figure:
        """One metric of one classifier; None for what is undefined, as the mean height where there is no mistake.

        Where no resample differs, Wilson's interval stands in as it does in ``Scores``, for a height that of its share
        of the worst one: with that share p, a height's variance is at most that of p right and wrong cells.
        """
        values, scale = self._values[classifier][metric], self._scale(metric)
        low, high = percentile_interval(values[1:], self.level)
        if low == high:
            n = self._n_mistakes(classifier) if metric == "height_of_mistakes" else self._outcomes.n_smallest
            low, high = (scale * end for end in wilson_interval(float(values[0]) / scale, n, self.level))
        return _figure(float(values[0]), low, high)

    def difference(self, classifier: int, other: int, metric: str) -> Figure:
        """One metric of a classifier less that of another, on the same resamples, as in ``Scores``."""
        gaps = self._values[classifier][metric] - self._values[other][metric]
        low, high = percentile_interval(gaps[1:], self.level)
        if low == high:
            high = self._scale(metric) * wilson_interval(0.0, self._outcomes.n_smallest, self.level)[1]
            low = -high
        return _figure(float(gaps[0]), low, high)

    def folds(self, labels: Ints, predicted: Ints, in_fold: Floats) -> dict[str, list[float | None]]:
        """Each metric on each fold: classes (n,) and predictions (n,) of all tested cells, membership (folds, n)."""
        own = _Confusion(labels, predicted, len(self._at))
        found = tree_metrics(self.tree, self._at[own.truth], self._at[own.predicted], own.count(in_fold))
        return {metric: [_defined(value) for value in values] for metric, values in found.items()}

    def _scale(self, metric: str) -> float:
        return float(max(self.highest, 1)) if metric in HEIGHTS else 1.0

    def _n_mistakes(self, classifier: int) -> int:
        return int(self._outcomes.counts[self._outcomes.labels != self._outcomes.predicted[classifier]].sum())


class _Confusion:
    """Pairs of class and prediction that occur: few, on which alone the figures depend, however many the cells are."""

    def __init__(self, labels: Ints, predicted: Ints, n_classes: int) -> None:
        codes = labels * n_classes + predicted
        self._order = np.argsort(codes, kind="stable")
        pairs, self._starts = np.unique(codes[self._order], return_index=True)
        self.truth, self.predicted = np.divmod(pairs, n_classes)

    def count(self, weights: Floats) -> Floats:
        """The weight of every pair, (B, n) -> (B, pairs)."""
        return np.asarray(np.add.reduceat(weights[:, self._order], self._starts, axis=1))


def tree_correlation(
    tree: Tree, features: npt.NDArray[np.floating], labels: Ints, nodes: Sequence[str]
) -> dict[str, float | int | None]:
    """Spearman's ρ of tree distance and feature distance over all pairs of classes that occur: (n, d), (n,), (C,).

    As ``milkit.statistics.hierarchy.feature_correlation`` has it, on features of spread 1. ``lowest`` and ``highest``
    are its values as each class in turn is left out; None where it is undefined, as with fewer than three classes. It
    has no interval: the pairs are few and share classes, and what other classes would show is in no resample of cells.
    """
    there = np.unique(labels)
    means = [features[labels == c].mean(axis=0, dtype=np.float64) for c in there]
    varies = np.ptp(features, axis=0) > 0
    spread = np.where(varies, features.std(axis=0, dtype=np.float64), 1.0)
    weights = np.concatenate([np.ones((1, len(there))), 1 - np.eye(len(there))])
    estimate, *without = feature_correlation(tree, np.stack(means) / spread, tree.positions(nodes)[there], weights)
    defined = [float(value) for value in without if not math.isnan(value)]
    return {
        "estimate": _defined(float(estimate)),
        "lowest": min(defined, default=None),
        "highest": max(defined, default=None),
        "n_classes": len(there),
    }


def _figure(estimate: float, low: float, high: float) -> Figure:
    return {"estimate": _defined(estimate), "ci_low": _defined(low), "ci_high": _defined(high)}


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
