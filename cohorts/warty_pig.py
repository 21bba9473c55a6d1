"""Warty pig: 1,408 cropped white blood cells of an animal, the Visayan warty pig, in class folders; no patients.

Published at IEEE DataPort (Alipo-on et al. 2022), probably under CC BY; see there. It holds 667 whole fields, 1,408
crops by class, and about as many augmented crops again.

    <root>/<class>/<name>.<suffix>        give the folder of the cropped, classified images

Any folder is a class: Basophil, Eosinophil, Lymphocyte, Monocyte and Neutrophil in this spelling, whatever their case
and a plural s, others as they are called. What lies below a folder with ``augment`` in its name is left out.

The blood is of juvenile Sus cebifrons and not of people: a note says so, and its cells belong in no clinical bag.

Verified: nothing. The layout of the package could not be seen; this reads class folders, whatever their names.
"""

from pathlib import Path, PurePosixPath

from cohorts.cell_folders import WHITE_CELLS, foldered, images_below, label_cells, stem
from cohorts.published_sets import given_folder, without_patients
from milkit.cohort import Cohort

_EXPECTED = (
    "a folder for each class (Basophil, Eosinophil and so on) was expected; download the data set from IEEE DataPort "
    "and give the folder of its cropped, classified images with --root."
)
_ANIMAL = "The blood is of an animal, the Visayan warty pig (Sus cebifrons), and not of people."
_class_of = foldered(WHITE_CELLS)


def warty_pig(root: Path | None = None) -> Cohort:
    """The cells in the class folders below ``root``; they belong to no patient."""
    root = given_folder(root, "warty_pig", _EXPECTED)
    paths = [path for path in images_below(root) if not any("augment" in part.lower() for part in path.parts)]
    cells, notes = label_cells(root, paths, _labelling, _EXPECTED)
    return without_patients("warty_pig", root, cells, [_ANIMAL, *notes])


def _labelling(path: PurePosixPath) -> tuple[str, str] | None:
    name = _class_of(path) or path.parent.name
    return (f"{name}/{stem(path)}", name) if name else None
