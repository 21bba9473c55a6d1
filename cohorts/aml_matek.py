"""AML Matek: 18,365 single white blood cells in 15 classes, of 100 patients with AML and 100 without; no ids.

Published as AML-Cytomorphology_LMU in The Cancer Imaging Archive, https://doi.org/10.7937/tcia.2019.36f5o9ld (Matek et
al. 2019), under CC BY 3.0.

    <root>/annotations.dat                   a line an image: <CLS>/<file> label first_reannotation second_reannotation
    <root>/abbreviations.txt
    <root>/<…>/<CLS>/<CLS>_<NNNN>.tiff       400 x 400 px, RGBA with an alpha channel that says nothing

    BAS basophil          LYT lymphocyte                MYO myeloblast
    EBO erythroblast      MMZ metamyelocyte             NGB band neutrophil
    EOS eosinophil        MOB monoblast                 NGS segmented neutrophil
    KSC smudge cell       MON monocyte                  PMB bilobed promyelocyte
    LYA atypical          MYB myelocyte                 PMO promyelocyte
        lymphocyte

The label is the prefix of the file name, so that any folder above the images may be the root. Some cells were labelled
twice more: columns ``first_reannotation`` and ``second_reannotation``, null (``nan`` in the file) for the others.

Traps: one file is called ``.tiff.tiff`` and listed as ``.tiff``; mirrors hold a folder ``augmented`` (left out) and its
``annotations_augmented.dat``. Cells of one patient cannot be kept together in a split, and who had AML is not said.

Verified: nothing against the published files. Layout and table are known from public code that reads them.
"""

from pathlib import Path, PurePosixPath

import pandas as pd

from cohorts.cell_folders import image_count_note, images_below, label_cells, numbered, stem
from cohorts.published_sets import given_folder, missing_note, without_patients
from milkit.cohort import Cohort
from milkit.errors import CohortError

COUNTS = {
    "BAS": 79,
    "EBO": 78,
    "EOS": 424,
    "KSC": 15,
    "LYA": 11,
    "LYT": 3_937,
    "MMZ": 15,
    "MOB": 26,
    "MON": 1_789,
    "MYB": 42,
    "MYO": 3_268,
    "NGB": 109,
    "NGS": 8_484,
    "PMB": 18,
    "PMO": 70,
}
"""Published images by class."""

_EXPECTED = (
    "the class folders of AML-Cytomorphology_LMU (<CLS>/<CLS>_<NNNN>.tiff) and annotations.dat were expected; download "
    "it from The Cancer Imaging Archive, doi 10.7937/tcia.2019.36f5o9ld, and give its folder with --root."
)
_NO_IDS = "The ids of the 200 patients were not published, so cells of one patient may lie on both sides of a split."
_REANNOTATIONS = ["first_reannotation", "second_reannotation"]


def aml_matek(root: Path | None = None) -> Cohort:
    """The published cells below ``root``, with re-annotations where ``annotations.dat`` is there; no patients."""
    root = given_folder(root, "aml_matek", _EXPECTED)
    cells, notes = label_cells(root, images_below(root), numbered(COUNTS), _EXPECTED)
    notes = [_NO_IDS, *notes, *image_count_note(cells["cell_type"], COUNTS)]
    path = min(root.rglob("annotations.dat"), key=lambda path: (len(path.parts), path), default=None)
    if path is None:
        notes.append("The file annotations.dat is missing, so re-annotations are not known.")
    else:
        table = _annotations(path)
        cells[_REANNOTATIONS] = table.reindex(cells["cell_id"])[_REANNOTATIONS].to_numpy()
        notes += _disagreements(cells, table)
    return without_patients("aml_matek", root, cells, notes)


def _annotations(path: Path) -> pd.DataFrame:
    """The lines of ``annotations.dat`` by cell id: label and re-annotations, None where there is none."""
    rows: dict[str, list[str | None]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, *values = line.split() or [""]
        if name and not 1 <= len(values) <= 3:
            msg = (
                f"{path}:{number} has {1 + len(values)} fields, expected a path, a label and up to two re-annotations; "
                "get the file anew from its source."
            )
            raise CohortError(msg)
        if name:
            padded = [*values, "nan", "nan"][:3]
            rows[stem(PurePosixPath(name))] = [None if value.lower() == "nan" else value for value in padded]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["label", *_REANNOTATIONS], dtype=object)


def _disagreements(cells: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """What the images and ``annotations.dat`` say against each other."""
    labels = dict(zip(table.index, table["label"], strict=True))
    named = dict(zip(cells["cell_id"], cells["cell_type"], strict=True))
    other = [f"{cell} ({labels[cell]})" for cell, label in named.items() if labels.get(cell, label) != label]
    return [
        *missing_note("Images that annotations.dat does not list", named.keys() - labels.keys()),
        *missing_note("Images that annotations.dat lists and that are not there", labels.keys() - named.keys()),
        *missing_note("Images that annotations.dat labels otherwise than their name, which was taken", other),
    ]
