"""Acevedo: 17,092 single cells of the blood of healthy people, in 8 folders and 13 finer prefixes; no patients.

Published as PBC_dataset_normal_DIB in Mendeley Data, https://doi.org/10.17632/snkd93bnjr.1 (Acevedo et al. 2020, Data
in Brief 30: 105474), under CC BY 4.0. DinoBloom was not trained on it: it is the external test of its paper.

    <root>/<folder>/<PREFIX>_<digits>.jpg        mostly 360 x 363 px, RGB; CellaVision DM96, May Grünwald-Giemsa

    folder        prefix and images
    basophil      BA 1,218
    eosinophil    EO 3,117
    erythroblast  ERB 1,551
    ig            MMY 1,015 (metamyelocyte), MY 1,137 (myelocyte), PMY 592 (promyelocyte), IG 151 (not told apart)
    lymphocyte    LY 1,214
    monocyte      MO 1,420
    neutrophil    BNE 1,633 (band), SNE 1,646 (segmented), NEUTROPHIL 50 (not told apart)
    platelet      PLATELET 2,348

The prefix says what a cell is, so that any folder above the images may be the root. ``classes`` chooses the labels: all
13 prefixes; the 11 classes of the DinoBloom paper, without NEUTROPHIL and IG and their 201 images (the list in
DinoBloom's code is without PLATELET, too); or the 8 folders.

Traps: ``neutrophil/.DS_169665.jpg`` is no image; folders ``wbc_resized`` and ``PBC_dataset_split`` of mirrors repeat
the images; 17 pairs of images are the same file, one of them with two labels (BNE_191112 is EO_225902). Sizes differ
(366 x 369, 360 x 360 and a few odd ones), and the pixel size was not published.

Verified: on published files, 13,675 of them reduced to 128 x 128 px and 130 as they are, and on the full list of names.
"""

from pathlib import Path
from typing import Literal

from cohorts.cell_folders import image_count_note, images_below, label_cells, numbered
from cohorts.published_sets import given_folder, without_patients
from milkit.cohort import Cohort

FOLDERS = {
    "basophil": {"BA": 1_218},
    "eosinophil": {"EO": 3_117},
    "erythroblast": {"ERB": 1_551},
    "ig": {"IG": 151, "MMY": 1_015, "MY": 1_137, "PMY": 592},
    "lymphocyte": {"LY": 1_214},
    "monocyte": {"MO": 1_420},
    "neutrophil": {"BNE": 1_633, "NEUTROPHIL": 50, "SNE": 1_646},
    "platelet": {"PLATELET": 2_348},
}
"""Published images by folder and prefix."""
COUNTS = {prefix: number for counts in FOLDERS.values() for prefix, number in counts.items()}
"""Published images by prefix."""
UNSPECIFIC = ("IG", "NEUTROPHIL")
"""Prefixes of cells that were not told apart further; none of the 11 classes of the DinoBloom paper."""

_EXPECTED = (
    "the folders of PBC_dataset_normal_DIB (basophil/BA_<digits>.jpg and seven more) were expected; download it from "
    "Mendeley Data, doi 10.17632/snkd93bnjr.1, and give its folder with --root."
)
_COPIES = ("wbc_resized", "PBC_dataset_split")
_TWICE = "17 pairs of the published images are the same file, so keep each pair on one side of a split."


def acevedo(root: Path | None = None, classes: Literal["prefix", "paper", "folder"] = "prefix") -> Cohort:
    """The published cells below ``root``, labelled as ``classes`` says; they belong to no patient.

    Args:
        root: The folder that holds the eight folders, or one above it.
        classes: ``prefix``: the 13 prefixes. ``paper``: the 11 classes of the DinoBloom paper, other cells left out.
            ``folder``: the 8 folders.
    """
    root = given_folder(root, "acevedo", _EXPECTED)
    cells, notes = label_cells(root, images_below(root, _COPIES), numbered(COUNTS), _EXPECTED)
    notes = [_TWICE, *notes, *image_count_note(cells["cell_type"], COUNTS)]
    if classes == "paper":
        cells = cells[~cells["cell_type"].isin(UNSPECIFIC)]
    elif classes == "folder":
        cells["cell_type"] = cells["cell_type"].map({prefix: name for name in FOLDERS for prefix in FOLDERS[name]})
    return without_patients("acevedo", root, cells, notes)
