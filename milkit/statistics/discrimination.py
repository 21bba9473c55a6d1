"""How well class probabilities tell patients apart; every metric takes many weightings of the patients at once.

A weighting is a row of patient weights: all ones for the estimate itself, how often each patient was drawn for a
bootstrap resample. Computing 2,000 resamples as one array is some hundred times faster than 2,000 calls of
scikit-learn, and equal to it (tests/test_statistics.py). Letters: n patients, C classes, B weightings.

Assumption of all: rows are independent patients. Cells, or several samples of one patient, as rows would make every
interval too narrow.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
"""(n,) positions of the true classes."""


def recall(labels: Labels, predicted: Labels, weights: Floats, n_classes: int) -> Floats:
    """Share of each class's patients that were predicted as that class, (B, C); NaN for a class of weight 0."""
    members = np.eye(n_classes)[labels]  # (n, C)
    with np.errstate(invalid="ignore"):
        result: Floats = (weights @ (members * (predicted == labels)[:, None])) / (weights @ members)
    return result


def accuracy(labels: Labels, predicted: Labels, weights: Floats) -> Floats:
    """Share of patients predicted correctly, (B,)."""
    result: Floats = weights @ (predicted == labels) / weights.sum(axis=1)
    return result


def balanced_accuracy(labels: Labels, predicted: Labels, weights: Floats, n_classes: int) -> Floats:
    """Mean of the recalls of the classes that are there, (B,); chance is 1 / C."""
    return _mean_of_defined(recall(labels, predicted, weights, n_classes))


def weighted_f1(labels: Labels, predicted: Labels, weights: Floats, n_classes: int) -> Floats:
    """F1 of each class, 2 TP / (2 TP + FP + FN), averaged by the class's share of patients, (B,)."""
    true, guessed = np.eye(n_classes)[labels], np.eye(n_classes)[predicted]
    support, chosen = weights @ true, weights @ guessed
    both = support + chosen
    f1 = np.divide(2 * (weights @ (true * guessed)), both, out=np.zeros_like(both), where=both > 0)
    result: Floats = (f1 * support).sum(axis=1) / support.sum(axis=1)
    return result


def auroc(positive: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Probability that a positive patient scores higher than a negative one, ties counted half, (B,).

    The Mann-Whitney form, U / (n+ n-), with patient weights. NaN where one of the sides has weight 0.
    """
    above = scores[positive][:, None] - scores[~positive][None, :]
    wins = (above > 0) + 0.5 * (above == 0)
    up, down = weights[:, positive], weights[:, ~positive]
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = ((up @ wins) * down).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))
    return result


def average_precision(positive: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Area under the precision-recall steps, sum_k (R_k - R_{k-1}) P_k over the distinct scores, (B,).

    Chance is the positives' share, so it is read beside the prevalence. NaN where there is no positive.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, np.True_))  # last patient of each distinct score
    hits = np.cumsum(weights[:, order] * positive[order], axis=1)[:, ends]
    chosen = np.cumsum(weights[:, order], axis=1)[:, ends]
    precision = np.divide(hits, chosen, out=np.zeros_like(hits), where=chosen > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = hits / hits[:, -1:]
    result: Floats = (np.diff(reached, axis=1, prepend=0.0) * precision).sum(axis=1)
    return result


def one_versus_rest(metric: str, labels: Labels, probabilities: Floats, weights: Floats) -> Floats:
    """``auroc`` or ``average_precision`` of each class against the others, (B, C)."""
    function = {"auroc": auroc, "average_precision": average_precision}[metric]
    columns = range(probabilities.shape[1])
    return np.stack([function(labels == c, probabilities[:, c], weights) for c in columns], axis=1)


def macro(metric: str, labels: Labels, probabilities: Floats, weights: Floats) -> Floats:
    """Mean of ``one_versus_rest`` over the classes where it is defined, (B,)."""
    return _mean_of_defined(one_versus_rest(metric, labels, probabilities, weights))


def _mean_of_defined(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    result: Floats = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return result
