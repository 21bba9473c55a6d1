"""Raabin-WBC: double-labelled single white blood cells of normal blood, in 5 classes and 3 parts; no patients.

Published at https://raabindata.com/free-data (Kouzehkanan et al. 2022, Sci Rep 12: 1123), free to use with citation; no
licence is named, so do not pass the images on.

    <root>/Train/<class>/<name>.jpg      10,175 images, the number of DinoBloom's paper: Neutrophil 6,231, Lymphocyte
                                         2,427, Eosinophil 744, Monocyte 561, Basophil 212; 575 x 575 px
    <root>/TestA/<class>/<name>.jpg      4,339 images
    <root>/TestB/<class>/<name>.jpg      about 2,119 images, of another microscope and camera

The part becomes the column ``split``. Parts differ by microscope, phone camera and stain: TestB tests another domain.

Traps: copies spell folders otherwise (``Test-A``, ``basophils``), which are read alike. File names are dates and
numbers of slides at best, and not taken for patients. The whole fields and masks beside these crops are not read.

Verified: nothing against the published folders. Layout and numbers are known from public code and papers.
"""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from cohorts.cell_folders import WHITE_CELLS, foldered, images_below, label_cells, stem
from cohorts.published_sets import count_note, given_folder, without_patients
from milkit.cohort import Cohort

PARTS = {"Train": 10_175, "TestA": 4_339}
"""Published images of the parts whose number is known for certain."""

_EXPECTED = (
    "the folders Train, TestA and TestB of Raabin-WBC's double-labelled cells, each with class folders, were expected; "
    "download them from raabindata.com and give the folder above them with --root."
)
_class_of = foldered(WHITE_CELLS)
_part_of = foldered([*PARTS, "TestB"])


def raabin(root: Path | None = None, split: Literal["Train", "TestA", "TestB"] | None = None) -> Cohort:
    """The published crops below ``root``, with the column ``split``; they belong to no patient.

    Args:
        root: The folder that holds Train, TestA and TestB, or those of them that are there.
        split: Read this part only; without it, all.
    """
    root = given_folder(root, "raabin", _EXPECTED)
    paths = [path for path in images_below(root) if split in {None, _part_of(path)}]
    cells, notes = label_cells(root, paths, _labelling, _EXPECTED)
    cells["split"] = [_part_of(PurePosixPath(path)) for path in cells["path"]]
    published = {name: count for name, count in PARTS.items() if split in {None, name}}
    return without_patients("raabin", root, cells, [*notes, *count_note(Counter(cells["split"]), published)])


def _labelling(path: PurePosixPath) -> tuple[str, str] | None:
    name, part = _class_of(path), _part_of(path)
    return (f"{part}/{name}/{stem(path)}", name) if name and part else None
