"""Rank a patient's cells by the weight that held-out models gave them, and choose which ones people look at."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.predictions import SHARED, Attention, Predictions

TOP = 20
"""Cells that count as the top of a ranking, where agreement between models is told."""


def ranks(weights: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rank (1 = highest weight; ties in the order of cells) and percentile (100 = highest, 0 = lowest) of one bag."""
    order = np.argsort(-weights, kind="stable")
    rank = np.empty(len(weights), dtype=np.int64)
    rank[order] = np.arange(1, len(weights) + 1)
    percentile = 100.0 * (len(weights) - rank) / (len(weights) - 1) if len(weights) > 1 else np.full(1, 100.0)
    return rank, percentile


def in_top(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.bool_]:
    """Which cells are among the ``k`` highest beyond doubt, along the last axis: (…, n) -> (…, n).

    A cell is, where at most ``k`` cells score as high or higher. Cells that are tied across the k-th place are not, so
    that equal weights, as of mean pooling, have no top, and are no agreement between models.
    """
    ordered = np.sort(scores, axis=-1)[..., ::-1]
    if k >= scores.shape[-1]:
        return np.ones(scores.shape, dtype=np.bool_)
    following = ordered[..., k : k + 1]  # the highest score that has no place among the k
    return np.asarray(scores > following)


def consensus_predictions(predictions: Predictions) -> pd.DataFrame:
    """One row a patient: label, predicted and probabilities, the latter averaged over the repeats. Index patient_id."""
    columns = [f"p_{name}" for name in predictions.classes]
    by_patient = predictions.table.groupby("patient_id", sort=True)
    table = by_patient[columns].mean()
    table.insert(0, "label", by_patient["label"].first())
    highest = table[columns].to_numpy().argmax(axis=1)
    table.insert(1, "predicted", [predictions.classes[column] for column in highest])
    return table


def cell_weights(attention: Attention, predicted: "pd.Series[str]") -> pd.DataFrame:
    """One row a cell: its weight for the class that was predicted, averaged over held-out repeats and seeds.

    Args:
        attention: The run's attention.
        predicted: The class whose attention is wanted, by patient id; shared attention serves every class.

    Returns:
        patient_id, cell_id, class, weight (sums to 1 over the patient's cells), rank, percentile, and agreement: in
        how many of the held-out models the cell is among the ``TOP``, such as ``9 of 10``; missing where there is a
        single model, or a patient has no more cells than that. The two numbers are in_top and n_models.
    """
    table = attention.table
    wanted = (table["class"] == SHARED) | (table["class"] == table["patient_id"].map(predicted))
    table = table[wanted]
    models = [name for name in ("repeat", "fold", "seed") if name in table]
    of_model = table.groupby(["patient_id", *models], sort=False)["weight"]
    table = table.assign(top=of_model.transform(lambda weight: in_top(weight.to_numpy(), TOP)))
    by_cell = table.groupby(["patient_id", "cell_id"], sort=False)
    cells = by_cell.agg(weight=("weight", "mean"), in_top=("top", "sum"), n_models=("top", "size")).reset_index()
    cells.insert(2, "class", cells["patient_id"].map(predicted))
    ranked = cells.groupby("patient_id", sort=False)["weight"].transform
    cells["rank"] = ranked(lambda weight: ranks(weight.to_numpy())[0]).astype(int)
    cells["percentile"] = ranked(lambda weight: ranks(weight.to_numpy())[1])
    cells["in_top"] = cells["in_top"].astype(int)
    told = cells["in_top"].astype(str) + " of " + cells["n_models"].astype(str)
    n_cells = cells.groupby("patient_id")["cell_id"].transform("size")
    cells["agreement"] = told.where((cells["n_models"] > 1) & (n_cells > TOP))
    return cells


def choose_cells(cells: pd.DataFrame, *, top: int, random: int, bottom: int, seed: int) -> pd.DataFrame:
    """Of one patient's ranked cells: the highest, the lowest, and a random sample of those between; no cell twice.

    Adds the column ``group`` (``top``, ``random``, ``bottom``). The random cells let a reader see whether the top
    differs from chance. A small bag serves ``top`` first, then ``bottom``, then ``random``.
    """
    ordered = cells.sort_values("rank")
    n_bottom = min(bottom, max(len(ordered) - top, 0))
    highest, lowest = ordered.iloc[:top], ordered.iloc[len(ordered) - n_bottom :]
    between = ordered.iloc[top : len(ordered) - n_bottom]
    picked = np.random.default_rng(seed).permutation(len(between))[:random]
    sample = between.iloc[np.sort(picked)]
    parts = {"top": highest, "random": sample, "bottom": lowest}
    return pd.concat([part.assign(group=name) for name, part in parts.items()], ignore_index=True)
