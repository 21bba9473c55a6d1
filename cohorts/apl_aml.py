"""APL and AML: 106 patients, 25,915 single blood cells, promyelocytic leukaemia against other acute myeloid leukaemia.

Published at https://www.kaggle.com/datasets/eugeneshenderov/acute-promyelocytic-leukemia-apl (Sidhom et al. 2021, npj
Precision Oncology 5: 38); its authors' repository, sidhomj/DeepAPL, holds the same. No licence was seen.

    <root>/master.csv                                                one row a patient
    <root>/Patient_<NN>/Signed_slides/<cell type>/<XX_number>.jpg    360 x 363 px; labelled by experts
    <root>/Patient_<NN>/Unsigned_slides/<slide_number>.jpg           the same, not labelled

    class   patients   Discovery   Validation
    APL           34          22           12
    AML           72          60           12

Columns of the table: Patient_ID, Diagnosis (``label``), Cohort (``site``: Discovery, or Validation, which the authors
tested on), Age at Diagnosis, Gender. ``cell_type`` is the folder of a signed cell, one of 21 types and spelled as there
(``Arifact``). Public code that reads a copy counts 8,297 signed cells, of 56 patients of Discovery, and 17,427 others.

Copies differ, and are read alike: blanks or underscores in names, and commas ("Blast, no lineage spec"); patients
below ``AML_APL/``, ``All/`` or the root; in the repository, where some patients have several smears, a folder for each
between the patient's and ``Signed slides``, which becomes the ``sample_id``. Its earlier commits number patients
otherwise. Thumbs.db lies in many folders. Patient_100 follows Patient_99: ids have two digits or three.

Before a figure is believed: whether a cell was signed, and its type, stand in the name of its file (``BL_…``) and go
with the cohort. Signed and unsigned images of a patient may show the same cell.

Verified on a fake of the published tree, with the real table's columns; no image was at hand.
"""

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from cohorts.cell_folders import foldered, images_below, stem
from cohorts.clinical_tables import ClinicalTable, Column, column_named, read_table
from cohorts.published_sets import count_note, given_folder, missing_note
from milkit.cohort import Cohort
from milkit.errors import CohortError, first_rows

CLASSES = ("APL", "AML")
"""In the order of the label ids that GenBloom's published splits use."""
CELL_TYPES = (
    *("Arifact", "Band_neutrophils", "Basophil", "Blast_no_lineage_spec", "Eosinophils", "Erythroblast"),
    *("Giant_thrombocyte", "Lymphocyte", "Lymphocyte_variant", "Metamyelocyte", "Monocyte", "Myelocyte"),
    *("Plasma_cells", "Prolymphocyte", "Promonocyte", "Promyelocyte", "Segmented_neutrophils", "Smudge_cells"),
    *("Thrombocyte_aggregation", "Unidentified", "Young_unidentified"),
)
PUBLISHED = {"patients": 106, "images": 25_915}

_EXPECTED = (
    "the APL data set (master.csv and Patient_<NN>/Signed_slides and Unsigned_slides) was expected; download it from "
    "Kaggle, eugeneshenderov/acute-promyelocytic-leukemia-apl, and give its folder with --root."
)
_COLUMNS: dict[str, Column | None] = {
    "label": Column(column="Diagnosis"),
    "site": Column(column="Cohort"),
    "age": Column(column="Age at Diagnosis"),
    "sex": Column(column="Gender", values={"Female": "F", "Male": "M"}),
}
_PATIENT = re.compile(r"patient[ _](\d+)", re.IGNORECASE)
_SIDE = re.compile(r"(un)?signed[ _]slides", re.IGNORECASE)
_type_of = foldered(CELL_TYPES)


class _Cell(NamedTuple):
    """One image: whose, of which smear, and what it shows."""

    cell_id: str
    patient_id: str
    path: str
    sample_id: str | None
    cell_type: str | None


def apl_aml(root: Path | None = None) -> Cohort:
    """The published patients and cells below ``root``, the folder with ``master.csv``, or the one above it."""
    root = given_folder(root, "apl_aml", _EXPECTED)
    path = next((place / "master.csv" for place in (root, root / "AML_APL") if (place / "master.csv").is_file()), None)
    images = images_below(root)
    cells = [cell for image in images if (cell := _cell(image))]
    if path is None or not cells:
        missing = "no master.csv" if path is None else "no image below Patient_<NN>/Signed_slides or Unsigned_slides"
        msg = f"{root} holds {missing}, where {_EXPECTED}"
        raise CohortError(msg)
    patients = _patients(path)
    foreign = sorted({cell.patient_id for cell in cells} - set(patients.index))
    if foreign:
        msg = f"{path} has no row for the patients {first_rows(foreign)}, who have images; complete the table."
        raise CohortError(msg)
    table = pd.DataFrame(cells, columns=_Cell._fields, dtype=object)
    if table["sample_id"].isna().all():
        table = table.drop(columns="sample_id")
    others = {str(image) for image in images} - {cell.path for cell in cells}
    untyped = [cell.path for cell in cells if cell.cell_type is None and _is_signed(PurePosixPath(cell.path))]
    notes = [
        *count_note({"patients": len(patients), "images": len(cells)}, PUBLISHED),
        *missing_note("Images that are neither signed nor unsigned cells of a patient were not read", others),
        *missing_note("Signed cells in folders of no known type have no type", untyped),
    ]
    present = tuple(name for name in CLASSES if name in set(patients["label"]))
    return Cohort("apl_aml", root, patients, table, present, tuple(notes), ids="pseudonymous")


def _cell(image: PurePosixPath) -> _Cell | None:
    """What the folders of an image say; None for one that belongs to no patient."""
    folders = image.parts[:-1]
    owner = next((n for n, name in enumerate(folders) if _PATIENT.fullmatch(name)), len(folders))
    side = next((n for n in range(owner + 1, len(folders)) if _SIDE.fullmatch(folders[n])), None)
    if side is None:
        return None
    patient = _patient_id(folders[owner])
    sample = "/".join(folders[owner + 1 : side]) or None
    cell_id = "/".join(filter(None, (patient, sample, stem(image))))
    return _Cell(cell_id, patient, str(image), sample, _type_of(image) if _is_signed(image) else None)


def _is_signed(image: PurePosixPath) -> bool:
    """Whether an expert labelled the cell, by its folder."""
    return any((match := _SIDE.fullmatch(name)) and not match[1] for name in image.parts[:-1])


def _patient_id(name: str) -> str:
    """``Patient_07``, whatever stands before the digits; these are kept, as ``Patient_7`` was another patient once."""
    match = _PATIENT.fullmatch(name.strip())
    return f"Patient_{match[1]}" if match else name.strip()


def _patients(path: Path) -> pd.DataFrame:
    raw = read_table(path)
    ids = raw[column_named(raw, "Patient_ID", path)].map(_patient_id)
    table = ClinicalTable(path, raw, _COLUMNS, ids.tolist())
    columns = {name: table.typed(name).to_numpy() for name in _COLUMNS}
    return pd.DataFrame(columns, index=pd.Index(ids, name="patient_id"))
