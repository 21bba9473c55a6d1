"""Cells that are known to matter, planted ones or an expert's, and how well a ranking finds them.

A cell with a known answer either matters for its patient's class or does not; cells without one are left out of the
comparison, as if they were not in the bag. Letters: N patients.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore, study_cells
from milkit.errors import RunError, first_rows
from milkit.labelled_cells import labels_of
from milkit.statistics.bca import bca_estimate
from milkit.statistics.discrimination import average_precision
from milkit.tables import read_table

Floats = npt.NDArray[np.float64]

MIN_CELLS, MAX_PREVALENCE = 5, 0.3
"""Patients with fewer cells that matter are left out, as their figures are noise, and so are those with a larger share
of them, in whom any ranking does well."""


def read_known(path: Path | None, store: BagStore, relevant: Mapping[str, Sequence[str]]) -> pd.DataFrame | None:
    """Which cells matter: cell_id and ``matters`` (bool), a row for each cell with a known answer.

    Args:
        path: A CSV table with ``cell_id`` and one of the columns ``planted`` (or ``matters``; 0 or 1), and
            ``cell_type`` (an expert's label). Without it, the ``cell_type`` of the store's own cells is taken.
        store: Whose patients have the labels.
        relevant: For each class, the cell types that matter in a patient of it; the patients of other classes, and
            cells without a type, have no known answer. Not asked where the table says itself which cells matter.

    Returns:
        None where nothing is asked: neither a table nor types.

    Raises:
        RunError: The table lacks the columns or fits no cell of the store, or no cell is of a type that was named.
    """
    if path is None and not relevant:
        return None
    table = _given(path, store)
    table = table.assign(cell_id=study_cells(store, table["cell_id"]))
    of_store = store.cells[["cell_id", "patient_id"]]
    table = of_store.merge(table, on="cell_id", how="inner", validate="one_to_one")
    if table.empty:
        msg = f"No cell_id of {path} is one of the store {store.path}; give the table of the same cohort."
        raise RunError(msg)
    for column in ("planted", "matters"):
        if column in table:
            return _answered(table, column, path)
    classes = table["patient_id"].map(store.patients["label"])
    named = sorted({name for names in relevant.values() for name in names})
    absent = sorted(set(named) - set(table["cell_type"].dropna()))
    if not named or len(absent) == len(named):
        there = first_rows(sorted(set(table["cell_type"].dropna())), 30) or "none"
        msg = (
            f"The cells' types are {there}, and those that matter were given as {first_rows(named, 30) or 'none'}; "
            "name them for each class under `relevant` in a recipe, such as configs/explain/aml_hehr.yaml."
        )
        raise RunError(msg)
    known = table["cell_type"].notna() & classes.isin(list(relevant))
    kinds = {name: set(types) for name, types in relevant.items()}
    pairs = zip(classes[known], table.loc[known, "cell_type"], strict=True)
    return pd.DataFrame({"cell_id": table.loc[known, "cell_id"], "matters": [kind in kinds[c] for c, kind in pairs]})


def _given(path: Path | None, store: BagStore) -> pd.DataFrame:
    if path is None:
        if "cell_type" not in store.cells:
            msg = (
                f"The cells of the store {store.path} have no cell_type, by which some would matter; give a table with "
                "--known, or extract a cohort whose cells an expert has labelled."
            )
            raise RunError(msg)
        return pd.DataFrame({"cell_id": store.cells["cell_id"], "cell_type": labels_of(store.cells, "cell_type")})
    if not path.is_file():
        msg = f"The table {path} does not exist; give --known a CSV file with cell_id, and planted or cell_type."
        raise RunError(msg)
    table = read_table(path)
    columns = [name for name in ("planted", "matters", "cell_type") if name in table]
    if "cell_id" not in table or not columns:
        msg = (
            f"{path} has the columns {', '.join(table.columns)}, expected cell_id and one of planted, matters and "
            "cell_type; name them so."
        )
        raise RunError(msg)
    if table["cell_id"].duplicated().any():
        twice = table.loc[table["cell_id"].duplicated(), "cell_id"].iloc[0]
        msg = f"{path} has the cell '{twice}' twice; leave one row a cell."
        raise RunError(msg)
    return table[["cell_id", *columns]]


def _answered(table: pd.DataFrame, column: str, path: Path | None) -> pd.DataFrame:
    values = pd.to_numeric(table[column], errors="coerce")
    known = table[column].notna()
    if not values[known].isin([0, 1]).all():
        wrong = table.loc[known & ~values.isin([0, 1]), column].iloc[0]
        msg = f"{path} has '{wrong}' in the column {column}, expected 1 where a cell matters and 0 where it does not."
        raise RunError(msg)
    return pd.DataFrame({"cell_id": table.loc[known, "cell_id"], "matters": values[known] == 1})


def found(
    ranked: pd.DataFrame, ks: Sequence[int], *, level: float, n_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """How well one ranking finds the cells that matter, over patients.

    Args:
        ranked: patient_id, score, matters; one row a cell with a known answer.
        ks: For each, the precision among the k highest, and its ratio to the prevalence, the enrichment.
        level: Of the intervals (BCa, over patients).
        n_bootstrap: Their resamples.
        seed: Of these, and of the order of equal scores.

    Returns:
        ``n_patients``, ``prevalence``, ``average_precision`` with its interval and that of random rankings
        (``average_precision_random``, by ``chance_precision``), and ``precision`` and ``enrichment`` by k. The
        enrichment is the ratio of the means over patients. None where no patient has 5 or more cells that matter, 30%
        of the known ones at most.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for _, bag in ranked.groupby("patient_id", sort=True):
        matters = bag["matters"].to_numpy(dtype=bool)
        if matters.sum() >= MIN_CELLS and matters.mean() <= MAX_PREVALENCE:
            rows.append(_one_patient(matters, bag["score"].to_numpy(dtype=np.float64), ks, generator))
    if not rows:
        return None
    values = np.array(rows)  # (N, 3 + ks): average precision, that of random rankings, prevalence, precisions
    ones, prevalence = np.ones(len(values)), values[:, 2]
    strata = np.zeros(len(values), dtype=np.int64)

    def interval(top: Floats, bottom: Floats) -> dict[str, float]:
        def ratio(weights: Floats) -> Floats:
            result: Floats = (weights @ top) / (weights @ bottom)
            return result

        if len(values) == 1:  # tells nothing of others
            return {"estimate": float(ratio(ones[None])[0]), "ci_low": float("nan"), "ci_high": float("nan")}
        return bca_estimate(ratio, strata, n_resamples=n_bootstrap, level=level, seed=seed)._asdict()

    return {
        "n_patients": len(values),
        "prevalence": float(prevalence.mean()),
        "average_precision": interval(values[:, 0], ones),
        "average_precision_random": float(values[:, 1].mean()),
        "precision": {str(k): interval(values[:, 3 + column], ones) for column, k in enumerate(ks)},
        "enrichment": {str(k): interval(values[:, 3 + column], prevalence) for column, k in enumerate(ks)},
    }


def chance_precision(n: int, relevant: int) -> float:
    """Expected average precision of a random ranking of ``n`` cells of which some are relevant.

        E = H_n / n + (1 - H_n / n) (relevant - 1) / (n - 1),    H_n = 1 + 1/2 + … + 1/n

    It exceeds the prevalence, and by far in small bags.

    Source: Bestgen, "Exact Expected Average Precision of the Random Baseline for System Evaluation", PBML 103, 2015.
    """
    first = float((1 / np.arange(1, n + 1)).sum()) / n
    return first + (1 - first) * (relevant - 1) / max(n - 1, 1)


def _one_patient(
    matters: npt.NDArray[np.bool_], scores: Floats, ks: Sequence[int], generator: np.random.Generator
) -> list[float]:
    order = np.lexsort((generator.random(len(scores)), -scores))
    precisions = [float(matters[order[:k]].mean()) for k in ks]
    own = float(average_precision(matters, scores, np.ones((1, len(scores))))[0])
    return [own, chance_precision(len(scores), int(matters.sum())), float(matters.mean()), *precisions]
