"""AML Hehr: 189 patients, 81,214 single white blood cells, four genetic subtypes of acute myeloid leukaemia, controls.

Published as AML-Cytomorphology_MLL_Helmholtz in The Cancer Imaging Archive, https://doi.org/10.7937/6ppe-4020 (Hehr et
al. 2023), under CC BY 4.0: publications cite the collection and its paper (PLOS Digit Health 2(3): e0000187).

    <root>/metadata.csv                                   one row a patient
    <root>/data/<class>/<patient_id>/image_<N>.tif        144 x 144 px, 24.9 x 24.9 µm, one centred cell

    class              patients  images        what it is
    CBFB_MYH11               37  17,212        inv(16) or t(16;16)
    NPM1                     36  17,710        mutated NPM1
    PML_RARA                 24  11,584        t(15;17), promyelocytic leukaemia
    RUNX1_RUNX1T1            32  14,403        t(8;21)
    control                  60  20,305        stem cell donors

Columns of the table, and what becomes of them:

    patient_id         three capital letters, the name of the patient's folder (NAR and the like are ids, not blanks)
    bag_label          ``label``; equals the class folder
    sex_1f_2m          ``sex``: 1 is F, 2 is M
    age                ``age`` in years at diagnosis or donation
    instance_count     compared with the images found, then left out
    leucocytes_per_µl  ``leucocytes``: in spite of its name in 10³ per µl (1.39 to 800); missing for every control
    pb_<cell type>     kept: the manual differential of peripheral blood, in per cent
    pb_total           kept: their sum, 100 in all but three patients (103, 105, 105)

Experts' labels of five patients' cells are no part of the collection: where ``image_annotation_master.csv`` lies below
the root, they are the cells' ``cell_type`` (``cohorts.expert_labels``).

Before a figure is believed: controls are younger (median 35 years) and mostly men (52 of 60), and have fewer cells; age
alone separates them from the leukaemias with AUC 0.87, the number of cells with 0.82. One laboratory, 2009 to 2020; the
files name neither scanner nor date. The 242 patients of the DinoBloom paper were never published.

Copies of the collection differ. Read alike are: class folders under ``data/``, ``image_data/`` or the root itself; the
laboratory's older class names (``AML-CBFB-MYH11``, ``SCD``); a table under another of its names, with semicolons,
decimal commas, a byte-order mark, a broken µ, or an unnamed first column. Only ``image_<N>.tif`` is a cell, numbered
from 0; feature files (``.npy``) and litter beside them are passed over.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cohorts.clinical_tables import column_named, read_table
from cohorts.expert_labels import TABLE, with_expert_labels
from milkit.cohort import Cohort, numeric
from milkit.errors import CohortError, first_rows

CLASSES = ("CBFB_MYH11", "NPM1", "PML_RARA", "RUNX1_RUNX1T1", "control")
"""In the order of the label ids that GenBloom's published splits use."""
N_PATIENTS = 189
N_IMAGES = 81_214
MICROMETRES_PER_PIXEL = 24.9 / 144

_PUBLISHED = (
    "the collection AML-Cytomorphology_MLL_Helmholtz (metadata.csv and data/<class>/<patient>/image_<N>.tif) was "
    "expected; download it from The Cancer Imaging Archive, doi 10.7937/6ppe-4020, and give its folder with --root."
)
_CONTROLS = (
    "The controls of AML Hehr are younger than its patients, mostly men, and have fewer cells: age alone tells them "
    "apart with AUC 0.87, the number of cells with 0.82."
)
_ALIASES = {name.lower(): name for name in CLASSES} | {
    f"aml_{name.lower()}": name for name in CLASSES if name != "control"
}
_ALIASES |= dict.fromkeys(("scd", "stem_cell_donor", "stem_cell_donors", "healthy", "healthy_control"), "control")
_TABLES = (
    "metadata.csv",
    "metadata_with_data_dictionary.csv_metadata.csv",
    "metadata_with_data_dictionary.csv",
    "aml-cytomorphology_mll_helmholtz.csv",
    "metadata.xlsx",
    "metadata_with_data_dictionary.xlsx",
    "aml-cytomorphology_mll_helmholtz.xlsx",
)
_IMAGE = re.compile(r"image_(\d+)\.tiff?", re.IGNORECASE)
_LITTER = (".", "__")


@dataclass(frozen=True, slots=True)
class _Folder:
    """One patient's folder: the class folder it lies in, its path below the root, and its images by number."""

    patient_id: str
    label: str
    path: str
    images: tuple[tuple[int, str], ...]


def aml_hehr(root: Path | None = None) -> Cohort:
    """The published patients and cells below ``root``, the folder that holds ``metadata.csv`` and the class folders."""
    if root is None:
        msg = f"No folder was given for the cohort 'aml_hehr', and {_PUBLISHED}"
        raise CohortError(msg)
    root = root.expanduser()
    classes, foreign = _class_folders(root)
    path = _find_table(root)
    if not classes or path is None:
        missing = " and no ".join(["class folders"] * (not classes) + ["table of patients"] * (path is None))
        msg = f"{root} holds no {missing}, where {_PUBLISHED}"
        raise CohortError(msg)
    folders = [folder for label, place in classes for folder in _patient_folders(root, label, place)]
    table = read_table(path, sheet="metadata")
    patients = _patients(table, path)
    _check_folders(patients, folders, root)
    cells = _cells(folders)
    cells, labelled = with_expert_labels(cells, root / TABLE)
    present = tuple(name for name in CLASSES if name in set(patients["label"]))
    if len(present) < 2:
        there = ", ".join(present) or "no class"
        msg = f"{path} lists patients of {there} only; at least two classes are needed, so add others."
        raise CohortError(msg)
    notes = [f"The folder {place} is none of the classes and was not read." for place in foreign]
    return Cohort(
        "aml_hehr",
        root,
        patients,
        cells,
        present,
        notes=(_CONTROLS, *notes, *labelled, *_size_notes(patients, cells), *_count_notes(table, folders)),
        micrometres_per_pixel=MICROMETRES_PER_PIXEL,
        ids="pseudonymous",
    )


def _canonical(name: str) -> str | None:
    """The published class that a folder or a label means, whatever its case and separators; None if it means none."""
    return _ALIASES.get(re.sub(r"[^a-z0-9]+", "_", name.strip().lower()))


def _directories(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(_LITTER))


def _class_folders(root: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Class and POSIX path below the root of every class folder, and the folders among them that name no class."""
    for place in ("data", "image_data", "."):
        if (root / place).is_dir():
            names = {name: _canonical(name) for name in _directories(root / place)}
            prefix = "" if place == "." else f"{place}/"
            known = [(label, f"{prefix}{name}") for name, label in names.items() if label]
            if known:
                return known, [f"{prefix}{name}" for name, label in names.items() if prefix and not label]
    return [], []


def _find_table(root: Path) -> Path | None:
    """The table of patients: text before Excel."""
    if not root.is_dir():
        return None
    found = {path.name.lower(): path for path in root.iterdir() if path.is_file()}
    return next((found[name] for name in _TABLES if name in found), None)


def _patient_folders(root: Path, label: str, place: str) -> list[_Folder]:
    folders = []
    for patient_id in _directories(root / place):
        path = f"{place}/{patient_id}"
        with os.scandir(root / path) as entries:
            matches = [match for entry in entries if (match := _IMAGE.fullmatch(entry.name))]
        images = sorted((int(match[1]), match[0]) for match in matches)
        folders.append(_Folder(patient_id, label, path, tuple(images)))
    return folders


def _cells(folders: Iterable[_Folder]) -> pd.DataFrame:
    rows = [
        (f"{folder.patient_id}/image_{number}", folder.patient_id, f"{folder.path}/{name}")
        for folder in folders
        for number, name in folder.images
    ]
    return pd.DataFrame(rows, columns=["cell_id", "patient_id", "path"], dtype=object)


def _patients(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table under our names, all numbers as floats; see the docstring of this module."""
    labels = table[column_named(table, "bag_label", path)].str.strip()
    index = pd.Index(table[column_named(table, "patient_id", path)].str.strip(), name="patient_id")
    unknown = sorted({label for label in labels if label and _canonical(label) is None})
    if unknown:
        msg = f"bag_label of {path} holds {first_rows(unknown)}, expected {', '.join(CLASSES)}; mend those rows."
        raise CohortError(msg)
    columns: dict[str, object] = {"label": [_canonical(label) for label in labels]}
    for name in table.columns:
        if name == "age" or name.startswith("pb_"):
            columns[name] = numeric(table[name]).to_numpy()
        elif name == "sex_1f_2m":
            columns["sex"] = [_sex(value, path) for value in table[name]]
        elif name.startswith("leucocytes_per"):  # the µ that follows is broken in many copies
            columns["leucocytes"] = numeric(table[name]).to_numpy()
    return pd.DataFrame(columns, index=index)


def _sex(value: str, path: Path) -> str | None:
    code = value.strip().removesuffix(".0").removesuffix(",0")
    if code not in {"1", "2", ""}:
        msg = f"sex_1f_2m of {path} holds '{value}', expected 1 (female), 2 (male) or a blank; mend the table."
        raise CohortError(msg)
    return {"1": "F", "2": "M"}.get(code)


def _check_folders(patients: pd.DataFrame, folders: list[_Folder], root: Path) -> None:
    """Hold table and folders against each other: each patient has images, in the one folder that its label says."""
    labels: dict[str, str] = dict(zip(patients.index, patients["label"], strict=True))
    times = Counter(folder.patient_id for folder in folders)
    filled = {folder.patient_id for folder in folders if folder.images}
    broken = {
        "patients have no cells": sorted(set(labels) - filled),
        "patient folders have no row in the table": sorted(set(times) - set(labels)),
        "patients lie in several class folders": sorted(name for name, n in times.items() if n > 1),
        "patients lie in another class folder than bag_label says": [
            f"{folder.patient_id} ({folder.path}, bag_label {labels[folder.patient_id]})"
            for folder in folders
            if labels.get(folder.patient_id) not in {None, folder.label}
        ],
    }
    faults = [f"{rule}: {first_rows(names)}" for rule, names in broken.items() if names]
    if faults:
        msg = f"Table and folders of {root} disagree ({'; '.join(faults)}); mend the table or the folders."
        raise CohortError(msg)


def _size_notes(patients: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    notes = []
    if len(patients) != N_PATIENTS:
        notes.append(f"{len(patients):,} patients were found where the published collection has {N_PATIENTS:,}.")
    if len(cells) != N_IMAGES:
        notes.append(f"{len(cells):,} images were found where the published collection has {N_IMAGES:,}.")
    return notes


def _count_notes(table: pd.DataFrame, folders: list[_Folder]) -> list[str]:
    """What the images of each patient say against ``instance_count``, and against their own numbering."""
    notes = []
    gaps = [
        folder.patient_id
        for folder in folders
        if [number for number, _ in folder.images] != list(range(len(folder.images)))
    ]
    if gaps:
        notes.append(
            f"Image numbers do not run from 0 without a gap in {len(gaps)} patients ({first_rows(gaps)}), so image N "
            "is not row N of published features."
        )
    if "instance_count" in table.columns:
        counts = dict(zip(table["patient_id"].str.strip(), numeric(table["instance_count"]), strict=True))
        differ = [
            f"{folder.patient_id} {len(folder.images)} instead of {counts[folder.patient_id]:.0f}"
            for folder in folders
            if counts[folder.patient_id] not in {float(len(folder.images))} and counts[folder.patient_id] >= 0
        ]
        if differ:
            notes.append(
                f"The number of images differs from instance_count in {len(differ)} patients ({first_rows(differ)})."
            )
    return notes
