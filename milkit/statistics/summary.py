"""The figures of ``metrics.json``: pooled out-of-fold estimates with intervals, and the values of single folds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.predictions import Predictions
from milkit.statistics import discrimination
from milkit.statistics.intervals import bootstrap_weights, percentile_interval, wilson_interval

Floats = npt.NDArray[np.float64]


def summarise(predictions: Predictions, *, n_bootstrap: int, level: float, seed: int) -> dict[str, Any]:
    """Metrics of out-of-fold predictions, as ``metrics.json`` holds them.

    Each estimate pools all patients of a repeat (fold values average few patients and are shown only beside it) and is
    the mean over the repeats. Intervals resample patients, all repeats of a patient together, within classes; the
    models are not trained again, so that what another training set would change is not in them. A class's recall has
    Wilson's interval over its patients. Where no resample differs, because every patient is right, the bootstrap
    knows nothing, and Wilson's interval over the smallest class, the most cautious choice, stands in. ``folds`` are
    the values of single folds, null where undefined.

    Percentile intervals are too narrow for small classes: in a simulation 95% intervals of balanced accuracy held the
    truth in 94% of cohorts of 34 and 76 patients, and in 86% of cohorts of 30 and 8.
    """
    repeats = [_Repeat(part, predictions.classes) for _, part in predictions.table.groupby("repeat", sort=True)]
    labels = repeats[0].labels
    assert all(repeat.patients == repeats[0].patients for repeat in repeats), "every repeat tests the same patients"
    weights = bootstrap_weights(labels, n_bootstrap, seed)
    n_classes = len(predictions.classes)
    smallest = int(np.bincount(labels, minlength=n_classes).min())

    def figure(metric: Callable[["_Repeat", Floats], Floats]) -> dict[str, Any]:
        estimate = float(np.mean([metric(repeat, repeat.ones)[0] for repeat in repeats]))
        resamples = np.mean([metric(repeat, weights) for repeat in repeats], axis=0)
        low, high = percentile_interval(resamples, level)
        if low == high:
            low, high = wilson_interval(estimate, smallest, level)
        return _figure(estimate, low, high, [value for repeat in repeats for value in repeat.fold_values(metric)])

    def recall_figure(c: int) -> dict[str, Any]:
        plain = figure(lambda r, w: discrimination.recall(r.labels, r.predicted, w, n_classes)[:, c])
        low, high = wilson_interval(plain["estimate"], int((labels == c).sum()), level)
        return _figure(plain["estimate"], low, high, plain["folds"])

    per_class = {
        name: {
            "n": int((labels == c).sum()),
            "recall": recall_figure(c),
            "auroc": figure(lambda r, w, c=c: discrimination.auroc(r.labels == c, r.probabilities[:, c], w)),  # type: ignore[misc]
        }
        for c, name in enumerate(predictions.classes)
    }
    return {
        "balanced_accuracy": figure(lambda r, w: discrimination.balanced_accuracy(r.labels, r.predicted, w, n_classes)),
        "weighted_f1": figure(lambda r, w: discrimination.weighted_f1(r.labels, r.predicted, w, n_classes)),
        "accuracy": figure(lambda r, w: discrimination.accuracy(r.labels, r.predicted, w)),
        "auroc_macro": figure(lambda r, w: discrimination.macro("auroc", r.labels, r.probabilities, w)),
        "auprc_macro": figure(lambda r, w: discrimination.macro("average_precision", r.labels, r.probabilities, w)),
        "per_class": per_class,
        "level": level,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "n_patients": len(labels),
    }


class _Repeat:
    """One repeat's predictions as arrays, patients in the order of their ids."""

    def __init__(self, table: pd.DataFrame, classes: tuple[str, ...]) -> None:
        table = table.sort_values("patient_id")
        self.patients = table["patient_id"].tolist()
        position = {name: c for c, name in enumerate(classes)}
        self.labels: discrimination.Labels = np.asarray(table["label"].map(position), dtype=np.int64)
        self.predicted: discrimination.Labels = np.asarray(table["predicted"].map(position), dtype=np.int64)
        self.probabilities = Predictions(table, classes).probabilities
        self.folds = table["fold"].to_numpy()
        self.ones = np.ones((1, len(table)))

    def fold_values(self, metric: Callable[["_Repeat", Floats], Floats]) -> list[float]:
        """The metric of each fold's patients alone."""
        in_fold = np.stack([self.folds == fold for fold in np.unique(self.folds)]).astype(np.float64)
        return [float(value) for value in metric(self, in_fold)]


def _figure(estimate: float, low: float, high: float, folds: list[Any]) -> dict[str, Any]:
    plain = [None if value is None or np.isnan(value) else float(value) for value in (estimate, low, high, *folds)]
    return {"estimate": plain[0], "ci_low": plain[1], "ci_high": plain[2], "folds": plain[3:]}
