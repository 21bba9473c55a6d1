"""The cells on a map: a bounded, seeded sample of every patient, with all that they can be coloured by."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.atlas.settings import MapSettings
from milkit.atlas.sources import Source, require_column
from milkit.bags import image_paths
from milkit.errors import StoreError
from milkit.labelled_cells import labels_of

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

ALWAYS = ("site", "scanner")
"""Columns that colour the map wherever they are; others only where they are named, since they may identify."""
_FEW = 12
"""A column of whole numbers with no more values than these is one of categories."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The cells on a map.

    Attributes:
        table: One row a cell, in the store's order of patients: cell_id, patient_id, role, path, box, and a column for
            each of ``colours`` and for ``weight`` where it is known. Index 0 to n - 1.
        features: (n, dim) float32 in the rows' order.
        fitted: (n,) the cells of training patients that the map is fitted on.
        colours: Title of each column that the map can be coloured by.
        each: Cells of a patient, at most.
        n_unreadable: Cells that could not be read when features were computed, and are never drawn.
        n_patients: Patients of the store.
    """

    table: pd.DataFrame
    features: npt.NDArray[np.float32]
    fitted: npt.NDArray[np.bool_]
    colours: dict[str, str]
    each: int
    n_unreadable: int
    n_patients: int


def choose_cells(source: Source, settings: MapSettings) -> Chosen:
    """Draw cells of every patient that has a role; whom else the store holds has no influence on who is drawn.

    Raises:
        StoreError: No cell could be drawn.
        UnknownName: A named column is not there.
    """
    store = source.store
    patients = [str(name) for name in store.patients.index if name in source.roles.index]
    each = max(1, min(settings.cells, settings.max_cells // max(1, len(patients))))
    rows, turns, features, n_unreadable = list[Ints](), list[Ints](), list[Floats](), 0
    for name in patients:
        bag, first = store[name].features, store.rows_of(name).start
        readable = np.flatnonzero(np.isfinite(bag).all(axis=1))
        n_unreadable += len(bag) - len(readable)
        drawn = _generator(settings.seed, name).permutation(readable)[:each]
        order = np.argsort(drawn)
        rows.append(first + drawn[order])
        turns.append(order)
        features.append(bag[drawn[order]])
    chosen = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    if not len(chosen):
        msg = f"No cell of the {len(patients)} patients in {store.path} could be read; extract the cohort again."
        raise StoreError(msg)
    table, colours = _coloured(
        source, store.cells.assign(path=image_paths(store)).iloc[chosen].reset_index(drop=True), settings.columns
    )
    fitted = _first(np.concatenate(turns), table["role"].eq("train").to_numpy(), settings.fit_cells)
    return Chosen(table, np.concatenate(features), fitted, colours, each, n_unreadable, len(store.patients))


def _first(turns: Ints, training: npt.NDArray[np.bool_], limit: int) -> npt.NDArray[np.bool_]:
    """Of training patients the cells that were drawn first, as many of each as the limit allows, but one at least."""
    reached = np.cumsum(np.bincount(turns[training]))  # cells, if one, two, … of each patient are taken
    return training & (turns < max(1, int((reached <= limit).sum())))


def _generator(seed: int, patient: str) -> np.random.Generator:
    """A patient's own random numbers, which no other patient changes."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8])])


def _coloured(source: Source, cells: pd.DataFrame, named: tuple[str, ...]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table of ``Chosen`` and its colours, by column."""
    patients = source.store.patients
    joined = cells.join(patients.drop(columns=patients.columns.intersection(cells.columns)), on="patient_id")
    for column in named:
        require_column(joined, column)
    table = cells[["cell_id", "patient_id", "path"]].assign(box=joined["box"].fillna("") if "box" in joined else "")
    table["role"] = table["patient_id"].map(source.roles)
    colours = {}
    if "label" in joined:
        table["class"], colours["class"] = labels_of(joined, "label"), "Class"
    if source.predicted is not None:
        table["predicted"] = table["patient_id"].map(source.predicted)
        colours["predicted"] = "Predicted class"
    if "cell_type" in joined:
        table["cell_type"], colours["cell_type"] = labels_of(joined, "cell_type"), "Cell type"
    if source.types is not None:
        given = source.types.rename(columns={"cell_type": "typed"})[["patient_id", "cell_id", "typed"]]
        table = table.merge(given.drop_duplicates(["patient_id", "cell_id"]), on=["patient_id", "cell_id"], how="left")
        colours["typed"] = "Cell type by the probe"
    if source.weights is not None:
        table = table.merge(
            source.weights[["patient_id", "cell_id", "weight", "percentile"]], on=["patient_id", "cell_id"], how="left"
        )
        colours["percentile"] = "Percentile of attention"
    for column in dict.fromkeys((*(name for name in ALWAYS if name in joined), *named)):
        if column not in ("label", "cell_type", "patient_id"):
            table[f"column {column}"], colours[f"column {column}"] = _values(joined, column), _title(column)
    return table, colours | {"role": "Training and held out"}


def _title(column: str) -> str:
    return (column[:1].upper() + column[1:]).replace("_", " ")


def _values(table: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """Numbers as they are, all else as text; so are a few whole numbers, which are the names of categories."""
    values = table[column]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        if values.nunique() > _FEW or (values.dropna() % 1 != 0).any():
            return values.astype(float)
        values = values.astype("Int64")  # 3, not 3.0
    return labels_of(pd.DataFrame({column: values}), column)
