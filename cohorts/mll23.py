"""MLL23: 41,621 single white blood cells of peripheral blood, in 18 classes; no patients.

Published at https://doi.org/10.5281/zenodo.14277609 (Shetab Boushehri et al. 2025, Sci Data 12: 1773), openly; see the
record for its terms. By size and laboratory it is what DinoBloom's paper calls "LA", so that DinoBloom has seen it.

    <root>/<class>/<name>.TIF        288 x 288 px, 25 x 25 µm, RGB; one zip a class, each unpacked into its folder

    basophil                      metamyelocyte             plasma_cell
    eosinophil                    monocyte                  promyelocyte
    hairy_cell                    myeloblast                promyelocyte_atypical
    lymphocyte                    myelocyte                 smudge_cell
    lymphocyte_large_granular     neutrophil_band
    lymphocyte_neoplastic         neutrophil_segmented
    lymphocyte_reactive           normoblast

The label is the nearest folder of such a name. ``labels_MLL23.csv``, in the authors' repository, lists how many images
a class has and not what an image shows; its numbers add up to 41,621, the paper says 41,906.

Traps: archives leave ``__MACOSX`` behind. Some images occur under two labels (borderline cells), so a cell's id begins
with its class. The first part of a name such as ``19-0000.PAP.PB~E.1-1232`` may be the number of a case; it is not
documented as that and not taken for a patient. In the ids of cells, which predictions and reports show, its SHA-256
stands for it, cut to 12 digits: cells of one case can be told by it, and who tries all numbers finds the case. The
paths, which stay in the tables of stores and checks, have the published names.

Verified: the decoding of one TIFF of the same scanner and size. Folders are known from public code that reads them.
"""

from hashlib import sha256
from pathlib import Path, PurePosixPath

from cohorts.cell_folders import foldered, image_count_note, images_below, label_cells, stem
from cohorts.published_sets import given_folder, without_patients
from milkit.cohort import Cohort

COUNTS = {
    "basophil": 616,
    "eosinophil": 2_448,
    "hairy_cell": 3_265,
    "lymphocyte": 5_532,
    "lymphocyte_large_granular": 1_849,
    "lymphocyte_neoplastic": 180,
    "lymphocyte_reactive": 33,
    "metamyelocyte": 483,
    "monocyte": 2_510,
    "myeloblast": 8_606,
    "myelocyte": 747,
    "neutrophil_band": 687,
    "neutrophil_segmented": 7_170,
    "normoblast": 2_071,
    "plasma_cell": 1_658,
    "promyelocyte": 745,
    "promyelocyte_atypical": 2_033,
    "smudge_cell": 988,
}
"""Published images by class."""

_EXPECTED = (
    "the 18 class folders of MLL23 (myeloblast, neutrophil_segmented and so on, one zip each) were expected; download "
    "and unpack them from Zenodo, record 14277609, and give the folder above them with --root."
)
_NAMES = (
    "The first part of a file name may be the number of a case, and a digest stands for it in the ids of cells: do not "
    "pass on tables with paths, and know that a digest of a number is no secret to who tries all of them."
)
_class_of = foldered(COUNTS)


def mll23(root: Path | None = None) -> Cohort:
    """The published cells in the class folders below ``root``; they belong to no patient."""
    root = given_folder(root, "mll23", _EXPECTED)
    cells, notes = label_cells(root, images_below(root), _labelling, _EXPECTED)
    return without_patients("mll23", root, cells, [_NAMES, *notes, *image_count_note(cells["cell_type"], COUNTS)])


def _labelling(path: PurePosixPath) -> tuple[str, str] | None:
    name = _class_of(path)
    case, tilde, rest = stem(path).partition("~")
    return (f"{name}/{sha256(case.encode()).hexdigest()[:12]}{tilde}{rest}", name) if name else None
