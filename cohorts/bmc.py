"""BMC: 171,374 single cells of bone marrow in 21 classes, from 945 patients whose ids were not published.

Published as Bone-Marrow-Cytomorphology_MLL_Helmholtz_Fraunhofer in The Cancer Imaging Archive,
https://doi.org/10.7937/TCIA.AXH3-T579 (Matek et al. 2021), under CC BY 4.0.

    <root>/<CLS>/<CLS>_<NNNNN>.jpg                    small classes
    <root>/<CLS>/<first>-<last>/<CLS>_<NNNNN>.jpg     large ones, a thousand images a folder; 250 x 250 px, RGB

    ABE abnormal eosinophil        HAC hairy cell                NGB band neutrophil
    ART artefact                   KSC smudge cell               NGS segmented neutrophil
    BAS basophil                   LYI immature lymphocyte       NIF not identifiable
    BLA blast                      LYT lymphocyte                OTH other cell
    EBO erythroblast               MMZ metamyelocyte             PEB proerythroblast
    EOS eosinophil                 MON monocyte                  PLM plasma cell
    FGC faggot cell                MYB myelocyte                 PMO promyelocyte

The label is the prefix of the file name, so that any folder above the images may be the root.

Traps: eight JPEGs decode without an error and are garbage in their lower part; they are left out unless ``damaged`` is
``keep``. Cells of one patient cannot be kept together in a split, as nothing says which these are; that holds for the
split published with DinoBloom, too. A mirror adds ``__MACOSX``. The pixel size was not published.

Verified: names and decoding of 12 published files. The folders are known from public code that reads them, the numbers
from the archive's table of classes (the paper has 171,373 images, the archive's page 171,375).
"""

from pathlib import Path
from typing import Literal

from cohorts.cell_folders import image_count_note, images_below, label_cells, numbered
from cohorts.published_sets import given_folder, missing_note, without_patients
from milkit.cohort import Cohort

COUNTS = {
    "ABE": 8,
    "ART": 19_630,
    "BAS": 441,
    "BLA": 11_973,
    "EBO": 27_395,
    "EOS": 5_883,
    "FGC": 47,
    "HAC": 409,
    "KSC": 42,
    "LYI": 65,
    "LYT": 26_242,
    "MMZ": 3_055,
    "MON": 4_040,
    "MYB": 6_557,
    "NGB": 9_968,
    "NGS": 29_424,
    "NIF": 3_538,
    "OTH": 294,
    "PEB": 2_740,
    "PLM": 7_629,
    "PMO": 11_994,
}
"""Published images by class."""
DAMAGED = (
    "EBO_06999",
    "EOS_02571",
    "LYT_19975",
    "MYB_05527",
    "NGB_09454",
    "NGS_04035",
    "NGS_15228",
    "NGS_18642",
)
"""Published images that are garbage in their lower part."""

_EXPECTED = (
    "the class folders of Bone-Marrow-Cytomorphology_MLL_Helmholtz_Fraunhofer (<CLS>/<CLS>_<NNNNN>.jpg) were expected; "
    "download it from The Cancer Imaging Archive, doi 10.7937/TCIA.AXH3-T579, and give its folder with --root."
)
_NOTES = (
    "The cells are of bone marrow, not of blood.",
    "The ids of the 945 patients were not published, so cells of one patient may lie on both sides of a split.",
)


def bmc(root: Path | None = None, damaged: Literal["leave out", "keep"] = "leave out") -> Cohort:
    """The published cells below ``root``; they belong to no patient.

    Args:
        root: The folder that holds the class folders, or one above it.
        damaged: What to do with the eight images that decode without an error and are garbage in their lower part.
    """
    root = given_folder(root, "bmc", _EXPECTED)
    cells, notes = label_cells(root, images_below(root), numbered(COUNTS), _EXPECTED)
    notes = [*_NOTES, *notes, *image_count_note(cells["cell_type"], COUNTS)]
    if damaged == "leave out":
        garbage = cells["cell_id"].isin(DAMAGED)
        notes += missing_note("Left out, as they are damaged in their lower part", cells["cell_id"][garbage].tolist())
        cells = cells[~garbage]
    return without_patients("bmc", root, cells, notes)
