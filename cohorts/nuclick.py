"""NuClick: composed pictures of white blood cells with overlapping nuclei, for segmentation; no classes, no patients.

Published as hemato_data.zip by the Tissue Image Analytics Centre, Warwick (Alemi Koohbanani et al. 2020), for research,
probably under CC BY-NC-SA as its other data; not checked.

    <root>/Train/images/<name>.png             the pictures, taken as they are: each is a row of the cohort
    <root>/Train/masks/<name>_mask.png         not read
    <root>/Validation/images/, masks/          likewise

The pictures are made from crops of a public collection of blood smears, and so are no patient's cells; there may be
several nuclei in one. DinoBloom was trained on them as they are. Cells have no ``cell_type``; the part becomes the
column ``split``.

Traps: names have blanks and brackets (``img (1).png``). Sources disagree on the number of pictures (1,463, 2,689 and
2,933), so that it is not compared.

Verified: nothing against the published archive. Layout and names are known from public code that reads them.
"""

from pathlib import Path, PurePosixPath

from cohorts.cell_folders import foldered, images_below, label_cells, stem
from cohorts.published_sets import given_folder, without_patients
from milkit.cohort import Cohort

_EXPECTED = (
    "the folders Train/images and Validation/images of hemato_data.zip were expected; download it from the Tissue "
    "Image Analytics Centre, Warwick, unpack it and give the folder above them with --root."
)
_COMPOSED = "The pictures are composed from crops, for segmentation, and are no patient's cells."
_part_of = foldered(["Train", "Validation"])


def nuclick(root: Path | None = None) -> Cohort:
    """The pictures below ``root``, each as one cell without a type, with the column ``split``; no patients."""
    root = given_folder(root, "nuclick", _EXPECTED)
    paths = [path for path in images_below(root) if path.parent.name == "images"]
    cells, notes = label_cells(root, paths, _labelling, _EXPECTED)
    return without_patients("nuclick", root, cells.rename(columns={"cell_type": "split"}), [_COMPOSED, *notes])


def _labelling(path: PurePosixPath) -> tuple[str, str] | None:
    part = _part_of(path)
    return (f"{part}/{stem(path)}", part) if part else None
