"""Table 1: the tested patients by class, with missing values counted and standardised differences for p-values.

Numbers are told as median and quartiles (linear between order statistics, which is numpy's default), categories as
number and per cent of the patients in whom they are known.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from milkit.covariates import MOST_LEVELS
from milkit.guidelines.study import Study
from milkit.statistics.balance import largest_difference

NAMES = {"age": "Age", "sex": "Sex", "site": "Site", "scanner": "Scanner"}
"""Columns of the patient table that Table 1 always shows where they exist; covariates of the run follow."""
CELLS = "Cells of a patient"


class Row(NamedTuple):
    """A row: what is told, how (``median [quartiles]``, ``n (%)``), for all and each class, and the difference d."""

    characteristic: str
    level: str
    values: list[str]
    difference: str


class TableOne(NamedTuple):
    """Table 1: the names of its groups (``All`` first), and its rows."""

    groups: list[str]
    rows: list[Row]

    def frame(self) -> pd.DataFrame:
        """As ``table1.csv`` has it."""
        columns = ["characteristic", "told as", *self.groups, "largest standardised difference"]
        rows = [[row.characteristic, row.level, *row.values, row.difference] for row in self.rows]
        table = pd.DataFrame(rows)
        table.columns = pd.Index(columns)
        return table


def table_one(study: Study) -> TableOne:
    """Of the tested patients of a run; a run without classes has the one group ``All``."""
    patients = study.store.patients.reindex(study.tested)
    labels = study.labels.reindex(study.tested) if study.labels is not None else None
    groups = [(name, labels.index[labels == name]) for name in study.classes] if labels is not None else []
    parts = [("All", pd.Index(study.tested)), *groups]
    rows = [Row("Patients", "n", [f"{len(own):,}" for _, own in parts], "")]
    asked = study.value("settings.yaml", "covariates") or ()
    for column in dict.fromkeys([*NAMES, *map(str, asked)]):
        if column in patients:
            rows += _rows(NAMES.get(column, column), patients[column], [own for _, own in parts], labels)
    rows += _rows(CELLS, study.n_cells, [own for _, own in parts], labels)
    return TableOne([name for name, _ in parts], rows)


def quartiles(values: "pd.Series[Any]") -> str:
    """``61.0 [50.5, 70.0]``: the median and the quartiles of the known values; a dash where there are none."""
    known = pd.to_numeric(values, errors="coerce").dropna()
    if known.empty:
        return "–"
    found = np.quantile(known.to_numpy(dtype=np.float64), [0.25, 0.5, 0.75])
    digits = 0 if np.all(found == np.round(found)) else 1 if np.abs(found).max() >= 10 else 2
    low, middle, high = (f"{value:.{digits}f}" for value in found)
    return f"{middle} [{low}, {high}]"


def _rows(
    name: str, column: "pd.Series[Any]", parts: Sequence["pd.Index[str]"], labels: "pd.Series[str] | None"
) -> list[Row]:
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    d = "" if labels is None else _difference(largest_difference(column, labels))
    missing = [int(column.loc[own].isna().sum()) for own in parts]
    last = [Row(name, "missing, n", [f"{number:,}" for number in missing], "")] if name != CELLS else []
    if numeric:
        return [Row(name, "median [quartiles]", [quartiles(column.loc[own]) for own in parts], d), *last]
    known = column.dropna().astype(str)
    levels = sorted(set(known))
    if len(levels) > MOST_LEVELS:
        counts = [f"{known.loc[known.index.isin(own)].nunique():,}" for own in parts]
        return [Row(name, "different values, n", counts, ""), *last]
    rows = []
    for number, level in enumerate(levels):
        shares = [_share(known.loc[known.index.isin(own)], level) for own in parts]
        rows.append(Row(name, f"{level}, n (%)", shares, "" if number else d))
    return [*rows, *last]


def _share(known: "pd.Series[str]", level: str) -> str:
    number = int((known == level).sum())
    return f"{number:,} ({100 * number / len(known):.0f})" if len(known) else "–"


def _difference(d: float) -> str:
    if np.isnan(d):
        return "–"
    return "∞" if np.isinf(d) else f"{d:.2f}"
