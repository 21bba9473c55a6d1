"""The figures of ``metrics.json`` for targets that are no class: the c-index of a risk, the errors of a number.

As in ``summary``: each estimate pools the out-of-fold predictions of a repeat and is the mean over the repeats,
``folds`` are the values of single folds beside it, and intervals are BCa, from resamples of patients. Here patients are
drawn alike and not within classes, since how many have an event, or a high value, is left to chance. Letters: n
patients, B weightings.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.statistics.concordance import harrell
from milkit.statistics.intervals import without_nan
from milkit.statistics.out_of_fold import Resamples

Floats = npt.NDArray[np.float64]
Metric = Callable[[pd.DataFrame, Floats], Floats]
"""Of rows of ``predictions.csv`` and weights of them, (B, rows) -> (B,)."""
PatientMetric = Callable[[Floats], Floats]
"""Of weights of patients, (B, n) -> (B, T)."""


def survival_figures(table: pd.DataFrame, *, n_bootstrap: int, level: float, seed: int) -> dict[str, Any]:
    """Harrell's c-index of out-of-fold risks: of a table with patient_id, repeat, fold, time, event and risk.

    Only patients of one fold are compared, since risks of models of different folds have no common zero. A higher risk
    is an earlier event; 0.5 is chance.
    """
    figures = _figures(table, METRICS["risk"], n_bootstrap, level, seed)
    died = table.groupby("patient_id")["event"].first()
    return {**figures, "n_events": int(died.sum())}


def regression_figures(table: pd.DataFrame, *, n_bootstrap: int, level: float, seed: int) -> dict[str, Any]:
    """Mean absolute error, R² and Spearman's ρ: of a table with patient_id, repeat, fold, label and predicted.

    R² is 1 - Σ (label - predicted)² / Σ (label - mean)²; 0 is what the mean of the tested patients gets, and a model
    may be worse than that.
    """
    return _figures(table, METRICS["predicted"], n_bootstrap, level, seed)


def pooled_metric(table: pd.DataFrame, metrics: Mapping[str, Metric]) -> tuple[tuple[str, ...], PatientMetric]:
    """The patients of a table by their ids, and the metrics as one of weights of these: means over the repeats.

    Args:
        table: Rows of ``predictions.csv``.
        metrics: T of them.
    """
    patients = np.unique(table["patient_id"].to_numpy(dtype=object).astype(str))
    parts = [part for _, part in table.groupby("repeat", sort=True)]
    rows = [np.searchsorted(patients, part["patient_id"].to_numpy(dtype=object).astype(str)) for part in parts]

    def pooled(weights: Floats) -> Floats:
        columns = [
            np.mean([metric(part, weights[:, own]) for part, own in zip(parts, rows, strict=True)], axis=0)
            for metric in metrics.values()
        ]
        return np.stack(columns, axis=1)

    return tuple(patients.tolist()), pooled


def spearman(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Spearman's ρ, Pearson's correlation of midranks, of patients drawn so many times: (n,), (n,), (B, n) -> (B,).

    NaN where one of the two does not vary.
    """
    x, y = _midranks(first, weights), _midranks(second, weights)
    total = weights.sum(axis=1, keepdims=True)
    x, y = (ranks - (weights * ranks).sum(axis=1, keepdims=True) / total for ranks in (x, y))
    shared, own, other = ((weights * product).sum(axis=1) for product in (x * y, x * x, y * y))
    spread = np.sqrt(own * other)
    result: Floats = np.divide(shared, spread, out=np.full(len(weights), np.nan), where=spread > 1e-9)
    return result


def _midranks(values: Floats, weights: Floats) -> Floats:
    """Ranks among patients drawn so many times, equal values sharing the middle one, (B, n)."""
    below = (values[:, None] > values[None, :]).astype(np.float64)
    equal = (values[:, None] == values[None, :]).astype(np.float64)
    ranks: Floats = weights @ below.T + (weights @ equal.T + 1) / 2
    return ranks


def _figures(
    table: pd.DataFrame,
    metrics: Mapping[str, Metric],
    n_bootstrap: int,
    level: float,
    seed: int,
) -> dict[str, Any]:
    patients, pooled = pooled_metric(table, metrics)
    resamples = Resamples.of(np.zeros(len(patients), dtype=np.int64), n_bootstrap, level, seed)
    folds = [part for _, part in table.groupby(["repeat", "fold"], sort=True)]
    result: dict[str, Any] = {}
    for (name, metric), found in zip(metrics.items(), resamples.estimates(pooled), strict=True):
        values = [float(metric(part, np.ones((1, len(part))))[0]) for part in folds]
        result[name] = {**found._asdict(), "folds": values}
    facts = {"intervals": "BCa", "level": level, "n_bootstrap": n_bootstrap, "seed": seed, "n_patients": len(patients)}
    return {key: without_nan(value) for key, value in {**result, **facts}.items()}


def _c_index(table: pd.DataFrame, weights: Floats) -> Floats:
    time, risk = (table[name].to_numpy(dtype=np.float64) for name in ("time", "risk"))
    return harrell(time, table["event"].to_numpy() > 0, risk, weights, table["fold"].to_numpy(dtype=np.int64))


def _numbers(table: pd.DataFrame) -> tuple[Floats, Floats]:
    return table["label"].to_numpy(dtype=np.float64), table["predicted"].to_numpy(dtype=np.float64)


def _mae(table: pd.DataFrame, weights: Floats) -> Floats:
    label, predicted = _numbers(table)
    result: Floats = weights @ np.abs(label - predicted) / weights.sum(axis=1)
    return result


def _r2(table: pd.DataFrame, weights: Floats) -> Floats:
    label, predicted = _numbers(table)
    mean = weights @ label / weights.sum(axis=1)
    spread = (weights * (label - mean[:, None]) ** 2).sum(axis=1)
    lost = weights @ (label - predicted) ** 2
    share: Floats = np.divide(lost, spread, out=np.full(len(weights), np.nan), where=spread > 1e-12)
    return 1 - share


def _spearman(table: pd.DataFrame, weights: Floats) -> Floats:
    return spearman(*_numbers(table), weights)


METRICS: Mapping[str, Mapping[str, Metric]] = {
    "risk": {"c_index": _c_index},
    "predicted": {"mae": _mae, "r2": _r2, "spearman": _spearman},
}
"""The figures by the column of the predictions that they judge."""
