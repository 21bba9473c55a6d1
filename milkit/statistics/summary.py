"""The figures of ``metrics.json``: pooled out-of-fold estimates with intervals, and the values of single folds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.predictions import Predictions
from milkit.statistics import discrimination
from milkit.statistics.bca import Estimate
from milkit.statistics.decisions import NOTHING_DECLARED, Declared, decision_curves, predictive
from milkit.statistics.intervals import wilson_interval, without_nan
from milkit.statistics.operating_point import sensitivity_at
from milkit.statistics.out_of_fold import OutOfFold, RepeatMetric, Resamples
from milkit.statistics.reliability import calibration
from milkit.statistics.scaling import temperature_scaling
from milkit.statistics.variance_parts import variance_parts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POOLED = ("balanced_accuracy", "weighted_f1", "accuracy", "auroc_macro", "auprc_macro")
"""The figures over all classes, in the order in which they are computed."""


def summarise(
    predictions: Predictions,
    *,
    n_bootstrap: int,
    level: float,
    seed: int,
    declared: Declared = NOTHING_DECLARED,
    by_seed: Sequence[Predictions] = (),
    validated: Predictions | None = None,
) -> dict[str, Any]:
    """Metrics of out-of-fold predictions, as ``metrics.json`` holds them.

    Each estimate pools all patients of a repeat (fold values average few patients and are shown only beside it) and is
    the mean over the repeats. Intervals are BCa, from resamples of patients within classes (``out_of_fold``); a class's
    recall has Wilson's over its patients, and so has what no resample changes. ``folds`` are the values of single
    folds. What is undefined is None.

    Few patients of a class stay few: ``bca`` tells how often such intervals hold the truth.

    Args:
        predictions: Averaged over the seeds.
        n_bootstrap: Resamples.
        level: Of the intervals.
        seed: Of the resamples.
        declared: What only a clinic knows; without it there are no decision curves and no predictive values.
        by_seed: The predictions of each seed alone, where there are several, for the parts of the variance.
        validated: Those of the validation patients of the same splits, for a temperature of the probabilities.
    """
    pooled = OutOfFold.of(predictions)
    resamples = Resamples.of(pooled.labels, n_bootstrap, level, seed)
    metric = _columns(pooled, declared.specificity)
    found = resamples.estimates(pooled.mean_of(metric), n_smallest=int(pooled.counts[pooled.counts > 0].min()))
    folds = pooled.fold_values(metric)
    figures = [_figure(estimate, folds[:, t]) for t, estimate in enumerate(found)]
    n_classes, classes = len(pooled.classes), enumerate(pooled.classes)
    recalls, aurocs, sensitivities = (figures[len(POOLED) + n_classes * part :][:n_classes] for part in range(3))
    for recall, n in zip(recalls, pooled.counts, strict=True):
        recall |= dict(zip(("ci_low", "ci_high"), wilson_interval(recall["estimate"], int(n), level), strict=True))
    result = {
        **dict(zip(POOLED, figures, strict=False)),
        "per_class": {
            name: {"n": int(pooled.counts[c]), "recall": recalls[c], "auroc": aurocs[c]} for c, name in classes
        },
        "sensitivity": {
            "specificity": declared.specificity,
            "per_class": dict(zip(pooled.classes, sensitivities, strict=True)),
        },
        "confusion": {"classes": list(pooled.classes), "counts": _confusion(pooled)},
        "calibration": calibration(pooled, resamples),
        "temperature": temperature_scaling(predictions, validated, resamples) if validated else {},
        "decision_curves": decision_curves(pooled, declared, n_bootstrap, level, seed),
        "predictive_values": predictive(pooled, declared, level),
        "variance": _variance(pooled, [OutOfFold.of(one) for one in by_seed], resamples.weights),
        "intervals": "BCa; recall Wilson",
        "level": level,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "n_patients": len(pooled.labels),
    }
    return {key: without_nan(value) for key, value in result.items()}


def balanced_accuracy_of(pooled: OutOfFold) -> RepeatMetric:
    """Balanced accuracy of one repeat, as a single column."""
    n_classes = len(pooled.classes)

    def metric(predicted: Ints, _: Floats, weights: Floats) -> Floats:
        return discrimination.balanced_accuracy(pooled.labels, predicted, weights, n_classes)[:, None]

    return metric


def auroc_macro_of(pooled: OutOfFold) -> RepeatMetric:
    """The mean over the classes of their AUROCs against the rest, of one repeat, as a single column."""

    def metric(_: Ints, probabilities: Floats, weights: Floats) -> Floats:
        return discrimination.macro("auroc", pooled.labels, probabilities, weights)[:, None]

    return metric


def _columns(pooled: OutOfFold, specificity: float) -> RepeatMetric:
    """``POOLED``, then recall, AUROC and sensitivity of each class, (B, 5 + 3 C)."""
    labels, n_classes = pooled.labels, len(pooled.classes)

    def metric(predicted: Ints, probabilities: Floats, weights: Floats) -> Floats:
        columns = [
            discrimination.balanced_accuracy(labels, predicted, weights, n_classes),
            discrimination.weighted_f1(labels, predicted, weights, n_classes),
            discrimination.accuracy(labels, predicted, weights),
            discrimination.macro("auroc", labels, probabilities, weights),
            discrimination.macro("average_precision", labels, probabilities, weights),
            *discrimination.recall(labels, predicted, weights, n_classes).T,
            *discrimination.one_versus_rest("auroc", labels, probabilities, weights).T,
            *(sensitivity_at(labels == c, probabilities[:, c], specificity, weights) for c in range(n_classes)),
        ]
        return np.stack(columns, axis=1)

    return metric


def _confusion(pooled: OutOfFold) -> list[list[float]]:
    """Patients by label (rows) and prediction (columns): means over the repeats."""
    n_classes = len(pooled.classes)
    counts = np.zeros((n_classes, n_classes))
    for predicted in pooled.predicted:
        np.add.at(counts, (pooled.labels, predicted), 1.0)
    result: list[list[float]] = (counts / len(pooled.predicted)).tolist()
    return result


def _variance(pooled: OutOfFold, by_seed: list[OutOfFold], weights: Floats) -> dict[str, Any]:
    """Variance of single trainings' figures by split, seed and patients; nothing where each was done once."""
    trained = by_seed or [pooled]
    if len(trained) * len(pooled.predicted) == 1:
        return {}
    parts = {}
    for name, metric in (("balanced_accuracy", balanced_accuracy_of(pooled)), ("auroc_macro", auroc_macro_of(pooled))):
        ones = np.ones((1, len(pooled.labels)))
        values = np.array(
            [
                [metric(*repeat, ones)[0, 0] for repeat in zip(one.predicted, one.probabilities, strict=True)]
                for one in trained
            ]
        )
        drawn = np.mean([one.mean_of(metric)(weights)[:, 0] for one in trained], axis=0)
        n_seeds, n_repeats = values.shape
        parts[name] = {**variance_parts(values.T, drawn)._asdict(), "n_repeats": n_repeats, "n_seeds": n_seeds}
    return parts


def _figure(estimate: Estimate, folds: Floats) -> dict[str, Any]:
    return {**estimate._asdict(), "folds": folds.tolist()}
