"""cAItomorph's test set: 409 patients, 201,560 single white blood cells, the breadth of haematological diagnoses.

Published with Dasdelen et al. 2026 (Leukemia 40: 1318) in the Nefeli repository, doi
10.82296/HMGU-NEFELI.9BV4E-3AG16; see the record for its licence.

    <root>/metadata.csv                    patient_id, diagnosis_coarse, diagnosis_fine, number_of_cells
    <root>/patients/<patient_id>/*.TIF     144 x 144 px, one centred cell; patients ALK_183, LYM_224, SCD_417, …

Coarse diagnoses, the default: stem cell donors 99, multiple myeloma 56, B-cell lymphoma 53, reactive 42, MDS 38, AML
37, MPN 36, CMML 14, CML 8, ALL 7, and others. Their spelling in the table was not seen: the classes are what the table
says, in alphabetical order. As far as is known the table has neither age nor sex.

Before a figure is believed: it was made as a test set, and its small classes cannot be cross-validated. Its laboratory
is that of AML Hehr and of MLL23, and no map of common patients was published: none is external to another.

Verified on a fake of the published layout; neither the table nor an image was at hand.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd

from cohorts.clinical_tables import Column, read_table
from cohorts.published_sets import count_note, given_folder, missing_note
from cohorts.tabular import PatientTable, tabular
from milkit.cohort import Cohort, numeric
from milkit.errors import CohortError

PUBLISHED = {"patients": 409, "images": 201_560}

_EXPECTED = (
    "cAItomorph's test set (metadata.csv and patients/<patient_id>/*.TIF) was expected; get it from the Nefeli "
    "repository, doi 10.82296/HMGU-NEFELI.9BV4E-3AG16, and give its folder with --root."
)


def caitomorph(root: Path | None = None, diagnosis: Literal["coarse", "fine"] = "coarse") -> Cohort:
    """The published patients and cells.

    Args:
        root: The folder that holds ``metadata.csv``.
        diagnosis: Which of the two diagnoses is the label; the other one is kept as a covariate.
    """
    root = given_folder(root, "caitomorph", _EXPECTED)
    path = root / "metadata.csv"
    missing = [place for place in ("metadata.csv", "patients") if not (root / place).exists()]
    if missing:
        msg = f"{root} holds no {' and no '.join(missing)}, where {_EXPECTED}"
        raise CohortError(msg)
    other = "fine" if diagnosis == "coarse" else "coarse"
    cohort = tabular(
        root,
        images="patients/{patient_id}/{cell_id}.*",
        patients=PatientTable(table=Path("metadata.csv")),
        columns={"label": Column(column=f"diagnosis_{diagnosis}"), f"diagnosis_{other}": Column(kind="text")},
    )
    notes = [
        *count_note({"patients": len(cohort.patients), "images": len(cohort.cells)}, PUBLISHED),
        *_size_note(cohort, read_table(path)),
    ]
    return replace(cohort, name="caitomorph", notes=tuple(notes), ids="pseudonymous")


def _size_note(cohort: Cohort, table: pd.DataFrame) -> list[str]:
    """Patients whose images are not as many as ``number_of_cells`` says."""
    if "number_of_cells" not in table:
        return []
    said = pd.Series(numeric(table["number_of_cells"]).to_numpy(), index=table["patient_id"].str.strip())
    found = cohort.cells["patient_id"].value_counts()
    differ = [f"{name} {found[name]} for {said[name]:.0f}" for name in found.index if found[name] != said[name] >= 0]
    return missing_note("Patients whose images are not as many as number_of_cells says", differ)
