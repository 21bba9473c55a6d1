"""Chula RBC-12: 738 smear fields with a point on each red cell, twelve types; there are no white cells in it.

Published at https://github.com/Chula-PIC-Lab/Chula-RBC-12-Dataset under the MIT licence. Nikon DS-Fi2-L3, 1000 x, 2019.

    <root>/Dataset/<n>.jpg              640 x 480 px
    <root>/Label/<n>.txt                a line a cell: x y type; 623 files, 2 of them empty
    <root>/RBC Diseases/<disease>/      121 further fields without points; not read

    type                 points      type                 points      type                 points
    0 Normal cell         6,330      5 Stomatocyte         1,996      9 Schistocyte           897
    1 Macrocyte             689      6 Ovalocyte           2,140     10 uncategorised         184
    2 Microcyte             461      7 Teardrop              307     11 Hypochromia         1,063
    3 Spherocyte          3,449      8 Burr cell             785     12 Elliptocyte         1,052
    4 Target cell         2,753                                         all                22,106

A point has no size: the crop is a window of fixed side around it, which shows neighbours too. Every cell has the role
``rbc``; no node of the taxonomy fits, and DinoBloom was shown the fields as a whole.

Traps: 115 images have no points; the paper counts 706 images; 22 pairs of files are the same, byte for byte (577 and
623 among them); numbers are not padded; ``.DS_Store`` lies between the folders. There are no patients.

Verified on label files as published, not on images.
"""

from pathlib import Path

from cohorts.box_files import read_points
from cohorts.field_crops import cell_table, folder_with, images_by_stem, join_fields
from cohorts.published_sets import count_note, given_folder, without_patients
from milkit.cohort import Cohort
from milkit.errors import CohortError

TYPES = (
    "Normal cell",
    "Macrocyte",
    "Microcyte",
    "Spherocyte",
    "Target cell",
    "Stomatocyte",
    "Ovalocyte",
    "Teardrop",
    "Burr cell",
    "Schistocyte",
    "uncategorised",
    "Hypochromia",
    "Elliptocyte",
)
"""The published name of each type, by its number."""
PUBLISHED = {"images": 738, "fields with points": 623, "points": 22106}

_EXPECTED = (
    "the repository Chula-RBC-12-Dataset (Dataset/<n>.jpg and Label/<n>.txt) was expected; get it from "
    "github.com/Chula-PIC-Lab/Chula-RBC-12-Dataset and give its folder with --root."
)
_RED = "All cells are red cells: keep them out of what is learned about white ones."


def chula(root: Path | None = None, window: int = 80) -> Cohort:
    """The red cells of the fields below ``root``, a square of ``window`` pixels around each point; no patients."""
    root = given_folder(root, "chula", _EXPECTED)
    folder_with(root, ("Dataset", "Label"), (), _EXPECTED)
    if window < 1:
        msg = f"The window has {window} pixels, expected at least 1; set `window` to about the width of a red cell."
        raise CohortError(msg)
    images = images_by_stem(root / "Dataset")
    points = {
        path.stem: [found._replace(label=_name(found.label), role="rbc") for found in read_points(path, window)]
        for path in (root / "Label").glob("[!.]*.txt")
    }
    fields, unmatched = join_fields(root, images, points)
    cells, _ = cell_table(fields, roles=("rbc",), margin=0)
    counts = {"images": len(images), "fields with points": len(fields), "points": len(cells)}
    return without_patients("chula", root, cells, [_RED, *count_note(counts, PUBLISHED), *unmatched])


def _name(number: str | None) -> str | None:
    """The type's published name; a number that has none stays as it is."""
    known = number is not None and number.isdecimal() and int(number) < len(TYPES)
    return TYPES[int(str(number))] if known else number
