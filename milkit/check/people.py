"""Who is in a cohort: classes, patients and cells, and which of them are few."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from milkit.check.findings import Finding, counted
from milkit.cohort import Cohort, numeric
from milkit.errors import first_rows

MIN_CELLS = 100
"""Patients with fewer cells are noted: their attention weights rest on little."""
MIN_PATIENTS = 5
"""Classes with fewer patients are warned of: five folds cannot test one of them each."""


def describe(cohort: Cohort) -> pd.DataFrame:
    """One row per class: patients, cells, cells per patient, and age and sex where the cohort knows them.

    Medians and shares are over the patients whose value is known; how many are not is written behind them. Of cells
    without patients, one row per ``cell_type``.
    """
    if not cohort.has_patients:
        types = cohort.cells["cell_type"].dropna() if "cell_type" in cohort.cells else pd.Series(dtype=object)
        return types.value_counts().sort_index().rename_axis("cell type").reset_index(name="cells")
    rows = []
    for name in cohort.classes:
        patients = cohort.patients[cohort.patients["label"] == name]
        counts = cohort.cells.loc[cohort.cells["patient_id"].isin(patients.index), "patient_id"].value_counts()
        row = {"class": name, "patients": len(patients), "cells": int(counts.sum()), "cells/patient": _spread(counts)}
        if "age" in patients.columns:
            row["age"] = _spread(numeric(patients["age"]))
        if "sex" in patients.columns:
            row["female"] = _women(patients["sex"])
        rows.append(row)
    return pd.DataFrame(rows)


def about_people(cohort: Cohort) -> Iterator[Finding]:
    """What the adapter had to say (counts that differ from the published ones, …), and who is few."""
    for note in cohort.notes:
        yield Finding("note", cohort.name, note)
    counts = cohort.cells["patient_id"].value_counts()
    few = [str(name) for name in cohort.patients.index if counts[name] < MIN_CELLS]
    if few:
        text = f"{counted(len(few), 'patient', 'has', 'have')} fewer than {MIN_CELLS} cells: {first_rows(few)}."
        yield Finding("note", cohort.name, text)
    for name in cohort.classes if cohort.has_patients else ():
        count = int((cohort.patients["label"] == name).sum())
        if count < MIN_PATIENTS:
            text = (
                f"The class has {counted(count, 'patient', 'where', 'where')} at least {MIN_PATIENTS} are needed for "
                "five folds; add patients, or merge or leave out the class."
            )
            yield Finding("warning", f"class {name}", text)


def _spread(values: "pd.Series[Any]") -> str:
    """``median (min-max)`` of the known values."""
    known = values.dropna()
    text = f"{_short(known.median())} ({_short(known.min())}-{_short(known.max())})" if len(known) else "-"
    return text + _missing(len(values) - len(known))


def _women(sex: "pd.Series[Any]") -> str:
    """``n (p %)`` of the patients whose sex is F or M; any other value counts as missing."""
    women, known = int((sex == "F").sum()), int(sex.isin(["F", "M"]).sum())
    return (f"{women} ({100 * women / known:.0f} %)" if known else "-") + _missing(len(sex) - known)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _missing(count: int) -> str:
    return f", {count} missing" if count else ""
