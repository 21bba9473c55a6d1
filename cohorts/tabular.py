"""Anyone's data, declared in a recipe and without code: a table of patients, and images found by a pattern or a table.

    name: my_study
    factory: tabular
    arguments:
      images: smears/{patient_id}/{cell_id}.png     # see cohorts/cell_patterns.py; or   cells: cells.csv
      patients: patients.xlsx                       # or   {table: …, sheet: …, include: [...], exclude: [...]}
      columns:                                      # ours: theirs, see cohorts/clinical_tables.py
        patient_id: Case
        label: Diagnosis
        age: {column: Age, missing: [99, k.A.]}
        sex: {column: Sex, values: {female: F, male: M}}
        lymphocyte_count: LYMPH_COUNT
      labels: {APL: PML_RARA, "AML t(8;21)": RUNX1_RUNX1T1}

All paths are relative to the cohort's root. Who is included and excluded is declared with the table of patients, see
``cohorts/selection.py``; the counts are among the cohort's notes, see ``milkit/patient_flow.py``.

Several samples of a patient have a ``sample_id``, in the pattern or in the table of cells. Where the table of patients
has a row for each sample, ``columns`` says which column that is, and the pattern may have the sample alone.

A table with dates of birth (``birth_date``) gives ages at a ``reference_date``, a column or a constant. Without one it
gives a ``birth_year`` and no age, and says so. The dates themselves are not kept.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import model_validator

from cohorts.cell_patterns import cells_by_pattern, cells_by_table, identified
from cohorts.clinical_tables import NUMBERS, TEXTS, ClinicalTable, Code, Column, column_named, plain, read_table
from cohorts.selection import Rule, select
from milkit.cohort import Cohort
from milkit.errors import CohortError, first_rows
from milkit.patient_flow import flow_notes
from milkit.settings import Settings

_NO_COVARIATES = frozenset({"patient_id", "sample_id", "label", "birth_date", "reference_date"})
_OF_CELLS = frozenset({"cell_id", "path", "cell_type", "box"})


class PatientTable(Settings):
    """The table of patients, and which of them are analysed; a path alone is short for ``{table: path}``."""

    table: Path
    sheet: str | None = None
    """Of an Excel file; without it the first."""
    include: tuple[Rule, ...] = ()
    exclude: tuple[Rule, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"table": value} if isinstance(value, str | Path) else value


def tabular(
    root: Path | None = None,
    images: str | None = None,
    cells: Path | None = None,
    patients: PatientTable | None = None,
    columns: dict[str, Column | None] | None = None,
    labels: dict[Code, str] | None = None,
) -> Cohort:
    """The patients of a table, with the images that a pattern or a second table gives them.

    Args:
        root: The folder that all other paths are relative to.
        images: Path pattern with the fields ``{patient_id}`` and ``{cell_id}``, and maybe ``{sample_id}`` and
            ``{cell_type}``; its suffix is read in any case, and it may lead into an archive.
        cells: Instead of ``images``, a table with a row per cell: patient_id, cell_id, path, optionally sample_id,
            cell_type and box.
        patients: The table of patients.
        columns: Our column name to the tables' own, where they differ, or to more about it; further names become
            covariates. Age, time, event, sex, site and scanner are taken up under these names in any case.
        labels: Raw label to class; its order is the order of the classes. Without it every raw label is a class.
    """
    if root is None or not root.expanduser().is_dir():
        given = "No folder was given" if root is None else f"The folder {root} does not exist"
        msg = f"{given}, where the files of the recipe were expected; give the folder that holds them with --root."
        raise CohortError(msg)
    if patients is None or (images is None) == (cells is None):
        msg = "The recipe must name `patients` and one of `images` or `cells`; see configs/cohorts for an example."
        raise CohortError(msg)
    root, names = root.expanduser(), columns or {}
    table = _read(root / patients.table, patients.sheet, names)
    known, notes = _known(table)
    listed = cells_by_pattern(root, images) if images else cells_by_table(root / str(cells), names)
    listed = _with_owners(listed, known, table.path)
    aliases = {plain(key): name for key, name in (labels or {}).items()} or {name: name for name in known["label"]}
    known = known.assign(label=known["label"].map(lambda raw: aliases.get(raw, raw) or None))
    if patients.include or patients.exclude:
        times = Counter(_keys(listed, known))
        counted = known.assign(n_cells=_keys(known, listed).map(lambda key: float(times[key])))
        kept, steps = select(
            known["patient_id"],
            patients.include,
            patients.exclude,
            lambda name: counted[name] if name in counted else _blank_as_missing(table, name),
        )
        enrolled = known["patient_id"].nunique()
        notes += flow_notes(enrolled, steps, len(known) if len(known) > enrolled else None)
        listed = listed[_keys(listed, known).isin(set(_keys(known, listed)[kept]))]
        known = known[kept]
    _refuse_unknown_labels(known, aliases, table.path)
    people, differing = _one_row_each(known, table.path)
    classes = tuple(dict.fromkeys(labels.values())) if labels else tuple(sorted(set(people["label"].dropna())))
    present = tuple(name for name in classes if name in set(people["label"]))
    return Cohort("tabular", root, people, identified(listed), present, notes=notes + differing)


def _read(path: Path, sheet: str | None, columns: Mapping[str, Column | None]) -> ClinicalTable:
    raw = read_table(path, sheet=sheet, required=sheet is not None)
    column = columns.get("patient_id") or Column(column="patient_id")
    ids = raw[column_named(raw, column.column or "patient_id", path)].map(plain)
    return ClinicalTable(path, raw, columns, ids.tolist())


def _known(table: ClinicalTable) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """What the table says of each row, under our names, and what a reader should know; labels are as they are there."""
    columns: dict[str, Any] = {"patient_id": table.text("patient_id").map(plain)}
    if table.columns.get("sample_id"):
        columns["sample_id"] = table.text("sample_id").map(plain)
    columns["label"] = table.text("label").map(plain)
    named = {name for name, column in table.columns.items() if column is not None}
    own = {name for name in table.table.columns if name in NUMBERS | TEXTS and name not in table.columns}
    notes: tuple[str, ...] = ()
    for name in [*table.columns, *sorted(own)]:
        if name in named | own and name not in _NO_COVARIATES | _OF_CELLS:
            columns[name] = table.typed(name)
    if "birth_date" in named and "reference_date" in named:
        if "age" in columns:
            msg = f"The recipe takes ages from {table.path} and from dates of birth; leave out `age` or `birth_date`."
            raise CohortError(msg)
        columns["age"] = table.ages()
    elif "birth_date" in named:
        columns["birth_year"] = table.birth_years()
        notes = ("There are dates of birth and no reference date, so patients have a birth year and no age.",)
    return pd.DataFrame(columns), notes


def _blank_as_missing(table: ClinicalTable, name: str) -> "pd.Series[Any]":
    """A column of the table that the recipe does not name, for its rules."""
    text = table.text(name)
    return text.mask(text == "")


def _with_owners(cells: pd.DataFrame, known: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The cells with the patient of each; ``CohortError`` for cells of none, and for rows that are not told apart."""
    cells = cells.assign(**{name: cells[name].map(plain) for name in ("patient_id", "sample_id") if name in cells})
    if "sample_id" not in cells and "sample_id" in known:
        msg = f"The rows of {path} are samples, and the cells have no sample_id; add {{sample_id}} to the pattern."
        raise CohortError(msg)
    if "patient_id" not in cells:
        if "sample_id" not in known:
            msg = f"The cells have no patient_id but a sample_id; say under `columns` which column of {path} is that."
            raise CohortError(msg)
        twice = known.loc[known["sample_id"].duplicated(), "sample_id"].tolist()
        if twice:
            msg = f"{path} has several rows for the samples {first_rows(twice)}, expected one each; mend the table."
            raise CohortError(msg)
        owners = dict(zip(known["sample_id"], known["patient_id"], strict=True))
        cells = cells.assign(patient_id=cells["sample_id"].map(owners).fillna(""))
    keys = set(_keys(known, cells))
    foreign = sorted({key for key in _keys(cells, known) if key not in keys})
    if foreign:
        what = "samples" if "sample_id" in known else "patients"
        shown = [" ".join(filter(None, key)) for key in foreign]
        msg = (
            f"{len(foreign)} {what} have images but no row in {path} ({first_rows(shown)}{_nearly(foreign, keys)}); "
            "add their rows, or move their images away."
        )
        raise CohortError(msg)
    return cells


def _keys(table: pd.DataFrame, other: pd.DataFrame) -> "pd.Series[Any]":
    """What tells rows apart in both tables: the patient, or the patient and the sample."""
    both = [name for name in ("patient_id", "sample_id") if name in table and name in other]
    return pd.Series(list(zip(*(table[name] for name in both), strict=True)), index=table.index, dtype=object)


def _nearly(foreign: list[tuple[str, ...]], keys: set[tuple[str, ...]]) -> str:
    """A hint where ids differ by zeros in front or by capitals alone, as spreadsheets make of them."""

    def bare(key: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part.casefold().lstrip("0") for part in key)

    near = {bare(key): key for key in keys}
    pairs = [(key, near[bare(key)]) for key in foreign if bare(key) in near]
    return f"; the table writes '{' '.join(pairs[0][1])}' for '{' '.join(pairs[0][0])}'" if pairs else ""


def _refuse_unknown_labels(known: pd.DataFrame, aliases: Mapping[str, str], path: Path) -> None:
    """Of those who are analysed; blanks stay, for the cohort to name their patients."""
    rows = known[known["label"].notna() & ~known["label"].isin(set(aliases.values()))]
    unknown = [f"'{label}' ({patient})" for label, patient in zip(rows["label"], rows["patient_id"], strict=True)]
    if unknown:
        msg = f"{path} holds labels that the recipe does not list: {first_rows(unknown)}; add them to `labels`."
        raise CohortError(msg)


def _one_row_each(known: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A row per patient, of his first sample where the rows are samples; their labels must agree."""
    if "sample_id" not in known:
        return known.set_index("patient_id"), ()
    groups = known.drop(columns="sample_id").groupby("patient_id", sort=False)
    several = groups.nunique(dropna=False) > 1
    if several["label"].any():
        labels = groups["label"].unique()[several["label"]]
        rows = [f"{patient} ({', '.join(map(str, values))})" for patient, values in labels.items()]
        msg = f"The samples of one patient have different labels in {path}: {first_rows(rows)}; give each patient one."
        raise CohortError(msg)
    notes = tuple(
        f"{name} differs between the samples of {several[name].sum():,} patients; the first row of each was taken."
        for name in several.columns[several.any()]
    )
    return groups.head(1).set_index("patient_id"), notes
