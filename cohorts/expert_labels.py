"""Experts' labels of AML Hehr's cells: ``image_annotation_master.csv``, published with the code of Hehr et al. 2023.

    ID, im_tiffname     patient, and ``NNN.TIF`` for ``image_N.tif``: padded with zeros, unlike the published file name
    mll_annotation      the expert's label, one of 25
    prediction          what a supervised classifier said of the cell; agrees in 55.5% of the rows and is not read

All cells of five patients, 2,471 in all (one of PKC's lacks): BHS and PKC (PML_RARA), SBY (CBFB_MYH11), UGU
(RUNX1_RUNX1T1), UVT (NPM1). What the labels mean stands in ``configs/taxonomies/labels/aml_hehr.yaml``.
"""

import re
from pathlib import Path

import pandas as pd

from cohorts.clinical_tables import column_named, read_table
from milkit.errors import CohortError, first_rows

TABLE = "image_annotation_master.csv"
_NAME = re.compile(r"0*(\d+)\.tiff?", re.IGNORECASE)


def with_expert_labels(cells: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The cells, with the column ``cell_type`` where the table is there, and a note of labels that fit no cell.

    Cells without a label have none (missing). A file name without a number is a ``CohortError``.
    """
    if not path.is_file():
        return cells, []
    table = read_table(path)
    labels = table[column_named(table, "mll_annotation", path)]
    names = table[column_named(table, "im_tiffname", path)]
    matches = [_NAME.fullmatch(name) for name in names]
    if wrong := [name for name, match in zip(names, matches, strict=True) if not match]:
        msg = f"im_tiffname of {path} holds {first_rows(wrong)}, expected names such as 007.TIF; mend those rows."
        raise CohortError(msg)
    numbers = [int(match[1]) for match in matches if match]
    owners = table[column_named(table, "ID", path)]
    ids = [f"{owner}/image_{number}" for owner, number in zip(owners, numbers, strict=True)]
    known = dict(zip(ids, labels, strict=True))
    lacking = sorted(set(known) - set(cells["cell_id"]))
    note = f"{len(lacking):,} labels of {path.name} are of cells that are not there ({first_rows(lacking)})."
    return cells.assign(cell_type=cells["cell_id"].map(known)), [note] if lacking else []
