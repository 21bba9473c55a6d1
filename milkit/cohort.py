"""Cohort: patients with one label each, and their single-cell images. Pixels stay on disk."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from milkit import settings
from milkit.errors import CohortError, first_rows
from milkit.registry import COHORTS, unknown_name
from milkit.settings import CohortRecipe, Ids
from milkit.tables import CELL_COLUMNS, cells_digest

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Lower-case suffixes of files that are read as images; compare with ``path.suffix.lower()``."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Patients with one label each, and their single-cell images.

    Attributes:
        name: Names the folder of the cohort's stores.
        root: The folder that the cells' paths are relative to.
        patients: Index ``patient_id`` (unique, str); column ``label`` (str); optional ``age`` (years), ``sex`` (``F``
            or ``M``), ``site``, ``scanner``, ``time`` and ``event`` (survival), and any further covariate.
        cells: Columns ``cell_id`` (unique), ``patient_id`` and ``path`` (POSIX, relative to ``root``); optional
            ``cell_type`` (the label of a cell), ``box`` (``left top width height`` in pixels, where the file is a
            field with several cells; empty for a whole image) and ``sample_id`` (of a patient's several). A cohort
            without patient ids (cell-level data) has ``patient_id`` null everywhere and an empty patient table.
        classes: The labels in the order of the logits, tables and plots.
        notes: What a reader should know, one sentence each (counts that differ from the published ones, …).
        micrometres_per_pixel: Of every image, for the scale bars of a report; None where it is unknown.
        ids: ``pseudonymous``, as published ones are, or ``identifying``: these stay in the store and on the terminal,
            and study ids are in their place in all that is made from it.

    Both tables are sorted on creation: by patient id, then in the natural order of cell ids. That is the row order of
    every store. A broken rule raises ``CohortError`` that lists the first offending rows.
    """

    name: str
    root: Path
    patients: pd.DataFrame
    cells: pd.DataFrame
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    micrometres_per_pixel: float | None = None
    ids: Ids = "identifying"

    def __post_init__(self) -> None:
        """Check the rules of the class docstring, and sort both tables."""
        _check(self)
        owners, ids = self.cells["patient_id"].astype(str).tolist(), self.cells["cell_id"].astype(str).tolist()
        order = sorted(range(len(ids)), key=lambda row: (owners[row], natural_key(ids[row])))
        object.__setattr__(self, "cells", self.cells.iloc[order].reset_index(drop=True))
        object.__setattr__(self, "patients", self.patients.sort_index())

    @property
    def digest(self) -> str:
        """SHA-256 over what the features depend on: the ids and paths of all cells, in order."""
        return cells_digest(self.cells)

    @property
    def has_patients(self) -> bool:
        """Whether cells belong to patients; multiple-instance learning needs that."""
        return len(self.patients) > 0


def find_recipe(name: str, root: Path | None = None) -> CohortRecipe:
    """A cohort's recipe: by path, by name in ``configs/cohorts``, or, for a factory without one, made from its name.

    ``root`` goes over the recipe's own.
    """
    recipes = settings.recipe_names("cohorts")
    if settings.is_path(name) or name in recipes:
        return settings.load(CohortRecipe, settings.find_recipe("cohorts", name), {"root": root})
    if name in COHORTS.names():
        return settings.load(CohortRecipe, None, {"name": name, "root": root})
    raise unknown_name("cohort", name, sorted({*COHORTS.names(), *recipes}))  # noqa: EM101


def load_cohort(recipe: CohortRecipe) -> Cohort:
    """Build the cohort that a recipe describes, under the recipe's name."""
    root = {"root": recipe.root} if recipe.root else {}
    cohort: Cohort = COHORTS.build(recipe.factory, root | recipe.arguments)
    return replace(
        cohort,
        name=recipe.name,
        ids=recipe.ids or cohort.ids,
        micrometres_per_pixel=recipe.micrometres_per_pixel or cohort.micrometres_per_pixel,
    )


def told_notes(cohort: Cohort) -> list[str]:
    """The cohort's notes for reports: where ids identify, those of its patients and cells have become an ellipsis.

    The ids of patients who were excluded are not known any more.
    """
    ids = {*cohort.patients.index, *cohort.cells["cell_id"]} if cohort.ids == "identifying" else set()
    hidden = (re.sub(r"[\w./-]*\w", lambda word: "…" if word[0] in ids else word[0], note) for note in cohort.notes)
    return list(hidden)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which ``image_2`` comes before ``image_10``; never equal for different texts."""
    parts = (part for part in re.split(r"(\d+)", text) if part)
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (-1, 0, text))


def numeric(column: "pd.Series[Any]") -> "pd.Series[float]":
    """A column as floats: decimal commas read as points, blanks as missing; other text is a ``CohortError``."""
    text = column.astype(str).str.strip().str.replace(",", ".", regex=False)
    missing = text.str.lower().isin({"", "nan", "na", "none", "null"})
    values = pd.to_numeric(text.mask(missing), errors="coerce").replace([float("inf"), float("-inf")], float("nan"))
    wrong = values.isna() & ~missing
    if wrong.any():
        msg = f"Column '{column.name}' holds '{text[wrong].iloc[0]}' where a number was expected; mend the table."
        raise CohortError(msg)
    return values.astype(float)


def is_image(path: Path) -> bool:
    """Whether a file looks like one of the cohort's images: by suffix, and not one of the litter that systems leave."""
    litter = {"__MACOSX", ".ipynb_checkpoints", "augmented"}
    return (
        path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not litter.intersection(path.parts)
    )


def _check(cohort: Cohort) -> None:
    cells, patients = cohort.cells, cohort.patients
    absent = [name for name in CELL_COLUMNS if name not in cells]
    absent += ["label"] if len(patients) and "label" not in patients else []
    if absent:
        msg = (
            f"The tables of cohort '{cohort.name}' lack {', '.join(absent)}; a cohort factory must give these columns."
        )
        raise CohortError(msg)
    if cells.empty:
        msg = f"Cohort '{cohort.name}' has no cells under {cohort.root}; check --root and the recipe's path patterns."
        raise CohortError(msg)
    broken: dict[str, list[str]] = {
        "cell ids that are no text, or empty": _no_text(cells["cell_id"]),
        "cell ids occur twice": _values(cells["cell_id"][cells["cell_id"].duplicated()]),
        "paths lead out of the cohort's root": _values(cells["path"][cells["path"].map(_leaves_root)]),
    }
    if cohort.has_patients or cells["patient_id"].notna().any():
        owners = cells["patient_id"]
        broken |= {
            "patient ids that are no text, or empty": _no_text(patients.index) + _no_text(owners),
            "patient ids occur twice": _values(patients.index[patients.index.duplicated()]),
            "cells belong to no patient of the patient table": _values(cells["cell_id"][~owners.isin(patients.index)]),
            "patients have no cells": _values(patients.index[~patients.index.isin(owners)]),
            "patients have no label": _values(patients.index[patients["label"].isna() | (patients["label"] == "")]),
            "a label is called '*', which attention uses for all classes": ["*"] if "*" in cohort.classes else [],
            "labels are none of the classes": _values(
                patients["label"][patients["label"].notna() & ~patients["label"].isin(cohort.classes)].unique()
            ),
        }
    faults = [f"{rule}: {first_rows(rows)}" for rule, rows in broken.items() if rows]
    if faults:
        msg = f"Cohort '{cohort.name}' breaks its rules ({'; '.join(faults)}); mend the tables or the folders."
        raise CohortError(msg)


def _no_text(values: Any) -> list[str]:
    return [repr(value) for value in values if not (isinstance(value, str) and value.strip())]


def _leaves_root(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts


def _values(values: Any) -> list[str]:
    return [str(value) for value in values]
