"""Two models of a target that is no class, on the same patients and folds: differences of their figures, with tests.

As ``comparison`` does for classes, and to the same two questions: paired permutation takes the models as they are,
Nadeau and Bengio's corrected t-test over the folds asks of the procedures. Risks become ranks within their fold before
patients' predictions change models, and predicted numbers become ranks for Spearman's ρ: the scales of two models
would count otherwise (``paired_tests.permutation_test``). Assumption: independent patients.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.statistics.comparison import Plan, adjust, row_of
from milkit.statistics.delong import Comparison
from milkit.statistics.intervals import without_nan
from milkit.statistics.out_of_fold import Resamples
from milkit.statistics.paired_tests import corrected_t_test, permutation_test
from milkit.statistics.target_figures import METRICS, Metric, pooled_metric

Floats = npt.NDArray[np.float64]

_RANKED: Mapping[str, Sequence[str]] = {"c_index": ("repeat", "fold"), "spearman": ("repeat",)}
"""Figures of ranks, and among whom these are."""


def compare_targets(tables: Sequence[pd.DataFrame], plan: Plan) -> list[dict[str, Any]]:
    """Every pair of models, first less second, with the p values of each figure adjusted over the pairs (Holm).

    Args:
        tables: Rows of ``predictions.csv`` with ``risk``, or with numbers as ``label`` and ``predicted``; of each model
            the same patients, repeats and folds, which have to be those of the others.
        plan: How comparisons are made.

    Returns:
        By pair: ``first`` and ``second`` (positions); ``figures`` by name, of ``target_figures``: paired BCa interval
        and permutation; ``folds`` by name: the corrected test over folds. Each comparison has ``difference``,
        ``ci_low``, ``ci_high``, ``p`` and ``p_holm``; None where undefined.
    """
    ordered = [table.sort_values(["repeat", "patient_id"], ignore_index=True) for table in tables]
    column = "risk" if "risk" in ordered[0] else "predicted"
    metrics = METRICS[column]
    pairs = [(a, b) for a in range(len(ordered)) for b in range(a + 1, len(ordered))]
    found: list[dict[str, Any]] = []
    for a, b in pairs:
        two = ordered[a], ordered[b]
        gaps = _paired(*two, metrics, plan)
        for name, row in gaps.items():
            row["p"] = _permuted(*two, column, name, plan)
        over_folds = {name: _over_folds(*two, metric, plan) for name, metric in metrics.items()}
        found.append({"first": a, "second": b, "figures": gaps, "folds": over_folds})
    for name in metrics:
        for kind in ("figures", "folds"):
            adjust([pair[kind][name] for pair in found])
    result: list[dict[str, Any]] = without_nan(found)
    return result


def _paired(
    first: pd.DataFrame, second: pd.DataFrame, metrics: Mapping[str, Metric], plan: Plan
) -> dict[str, dict[str, float]]:
    """Differences with their BCa intervals, from the same resamples of patients for both."""
    patients, own = pooled_metric(first, metrics)
    _, others = pooled_metric(second, metrics)
    strata = np.zeros(len(patients), dtype=np.int64)
    resamples = Resamples.of(strata, plan.n_bootstrap, plan.level, plan.seed)
    estimates = resamples.estimates(lambda weights: own(weights) - others(weights))
    return {name: row_of(Comparison(*gap, float("nan"))) for name, gap in zip(metrics, estimates, strict=True)}


def _permuted(first: pd.DataFrame, second: pd.DataFrame, column: str, name: str, plan: Plan) -> float:
    """The p of a paired permutation test; a patient's predictions of all repeats change models together."""
    models = [first, second]
    if among := _RANKED.get(name):
        models = [table.assign(**{column: table.groupby(list(among))[column].rank()}) for table in models]
    # Patients are taken in the order of their ids: all of the first model's, then all of the second's.
    stacked = pd.concat(
        [table.assign(patient_id=f"{n}/" + table["patient_id"].astype(str)) for n, table in enumerate(models)]
    )
    patients, pooled = pooled_metric(stacked, {name: METRICS[column][name]})

    def of_chosen(weights: Floats) -> Floats:
        result: Floats = pooled(weights)[:, 0]
        return result

    n_patients = len(patients) // 2
    return permutation_test(of_chosen, n_patients, n_permutations=plan.n_permutations, seed=plan.seed).p_value


def _over_folds(first: pd.DataFrame, second: pd.DataFrame, metric: Metric, plan: Plan) -> dict[str, float]:
    """The corrected test; where all repeats test the same folds, over their means, as ``comparison`` does it."""
    values = [
        {key: float(metric(part, np.ones((1, len(part))))[0]) for key, part in table.groupby(["repeat", "fold"])}
        for table in (first, second)
    ]
    gaps = pd.Series({key: values[0][key] - values[1][key] for key in values[0]})
    if not is_redealt(first):
        gaps = gaps.groupby(level=1).agg(lambda own: own.mean(skipna=False))
    return row_of(
        Comparison(*corrected_t_test(np.asarray(gaps, dtype=np.float64), plan.n_test, plan.n_train, plan.level))
    )


def is_redealt(table: pd.DataFrame) -> bool:
    """Whether repeats test other folds than the first does; not where sites are left out, nor of one fixed test."""
    return bool(table.groupby("patient_id")["fold"].nunique().max() > 1)
