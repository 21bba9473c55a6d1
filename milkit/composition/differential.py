"""The differential: how many cells of each type, of a patient's whole bag and of the cells at the top of a ranking.

A patient's shares have Wilson's intervals, as if the cells were drawn from the patient's blood one by one; what the
probe mistakes is not in them. A class's share is the mean of its patients' shares, each counting alike, with a
bootstrap interval over the patients (``statistics.bca``).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.composition.rankings import Ranked
from milkit.composition.reference import UNKNOWN
from milkit.composition.settings import DifferentialSettings
from milkit.errors import RunError
from milkit.statistics.intervals import wilson_interval
from milkit.statistics.out_of_fold import Resamples

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Row = dict[str, Any]

BAG = "bag"
"""The part that is not the top of a ranking: all of a patient's cells that were weighed."""
ROW_COLUMNS = ("patient_id", "class", "cells", "cell_type", "count", "n_cells", "n_patients", "share")
COLUMNS = (*ROW_COLUMNS, "ci_low", "ci_high")
"""Of ``differential.csv``: a row a patient, part and type, and, with no patient_id, a row a class, part and type."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Cells of each type, of each patient.

    Attributes:
        patients: (n,) in the order of the run's patients.
        classes: (n,) what was predicted.
        types: T, the last of which is ``UNKNOWN``.
        parts: By name (``BAG``, then the rankings), (n, T).
    """

    patients: tuple[str, ...]
    classes: npt.NDArray[np.object_]
    types: tuple[str, ...]
    parts: dict[str, Ints]

    @property
    def rankings(self) -> tuple[str, ...]:
        """The parts that are tops of rankings."""
        return tuple(name for name in self.parts if name != BAG)

    def has_top(self, ranking: str) -> npt.NDArray[np.bool_]:
        """(n,) patients whose top is some of their cells: neither all of them, nor none, as of equal weights."""
        n_top = self.parts[ranking].sum(axis=1)
        return np.asarray((n_top > 0) & (n_top < self.parts[BAG].sum(axis=1)))


def count(ranked: Ranked, cell_types: pd.DataFrame, types: tuple[str, ...]) -> Counts:
    """Count the weighed cells by type.

    Args:
        ranked: Who was tested, and the tops.
        cell_types: cell_id and cell_type of all typed cells.
        types: Without ``UNKNOWN``.
    """
    named = (*types, UNKNOWN)
    patients = tuple(map(str, ranked.patients.index))
    of_cell = ranked.cells["cell_id"].map(cell_types.set_index("cell_id")["cell_type"])
    rows = pd.Categorical(ranked.cells["patient_id"], categories=patients).codes.astype(np.int64)
    columns = pd.Categorical(of_cell, categories=named).codes.astype(np.int64)
    if (columns < 0).any():
        lacking = ranked.cells["cell_id"][columns < 0]
        msg = (
            f"The run's store lacks {len(lacking)} cells of the run, the first being '{lacking.iloc[0]}'; give the "
            "store that the run was made from, or make the run again with `milkit train-mil`."
        )
        raise RunError(msg)
    parts = {BAG: np.ones(len(rows), dtype=bool)} | {name: ranked.cells[name].to_numpy() for name in ranked.rankings}
    counts = {name: np.zeros((len(patients), len(named)), dtype=np.int64) for name in parts}
    for name, chosen in parts.items():
        np.add.at(counts[name], (rows[chosen], columns[chosen]), 1)
    return Counts(patients, ranked.patients["predicted"].to_numpy(dtype=object), named, counts)


def patient_rows(counts: Counts, level: float) -> list[Row]:
    """Of every patient and part, the types that the patient has cells of: rows of ``COLUMNS`` as numbers and text."""
    rows = []
    for number, patient in enumerate(counts.patients):
        there = np.flatnonzero(counts.parts[BAG][number])
        for part, table in counts.parts.items():
            n = int(table[number].sum())
            for column in there if n else ():
                found = int(table[number, column])
                low, high = wilson_interval(found / n, n, level)
                values = (patient, counts.classes[number], part, counts.types[column], found, n, 1, found / n)
                rows.append(dict(zip(ROW_COLUMNS, values, strict=True)) | {"ci_low": low, "ci_high": high})
    return rows


def class_rows(counts: Counts, classes: tuple[str, ...], settings: DifferentialSettings) -> list[Row]:
    """The same of every class that was predicted of somebody; of a ranking, over the patients who have a top."""
    rows = []
    for name in classes:
        of_class = counts.classes == name
        there = np.flatnonzero(counts.parts[BAG][of_class].any(axis=0))
        for part, table in counts.parts.items():
            own = table[of_class & (counts.has_top(part) if part != BAG else table.any(axis=1))]
            if not len(own):
                continue
            n_cells, totals = int(own.sum()), own.sum(axis=0)
            for column, figure in zip(there, mean_shares(own, settings)[there], strict=True):
                found = int(totals[column])
                values = ("", name, part, counts.types[column], found, n_cells, len(own), *figure)
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def mean_shares(table: Ints, settings: DifferentialSettings) -> Floats:
    """Mean over patients of each type's share of their cells, with its interval: (n, T) -> (T, 3)."""
    shares = table / table.sum(axis=1, keepdims=True)

    def mean(weights: Floats) -> Floats:
        result: Floats = weights @ shares / weights.sum(axis=1, keepdims=True)
        return result

    nobody = np.zeros(len(table), dtype=np.int64)
    resamples = Resamples.of(nobody, settings.bootstrap, settings.level, settings.seed)
    return np.array(resamples.estimates(mean, n_smallest=len(table)))
