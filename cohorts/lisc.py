"""LISC: 250 smear fields of 8 healthy persons, white cells outlined by an expert.

Published at http://users.cecs.anu.edu.au/~hrezatofighi/Data/Leukocyte%20Data.htm (Rezatofighi, Soltanian-Zadeh 2011),
for research and education: copies must not be passed on, so that everybody gets the files from that page.

    <root>/Main Dataset/<class>/<n>.bmp                                       720 x 576 px, 24 bit
    <root>/Ground Truth Segmentation/<class>/areaforexpert1/<n>_expert.bmp    712 x 568 px; nucleus 255, cytoplasm grey
    <root>/Ground Truth Segmentation/<class>/areaforexpert2/                  a second expert, of some fields
    <root>/More Dataset without Ground Truth/                                 not read

    class   fields   what it is
    Baso        53   basophils; two cells in 7 and 31
    eosi        39   eosinophils
    lymp        52   lymphocytes; two cells in 3, 20, 23, 33, 34, 45 and 52
    mixt         8   several kinds in one field, without saying which is which: their cells have no label
    mono        48   monocytes
    neut        50   neutrophils; two cells in 31, 38, 42 and 47

Traps: masks are cut off by 4 pixels on each side, so that a box read from them is shifted by (4, 4). Numbers are not
padded. A public copy (Esraa-Elsawy) has its contrast crushed to 26 to 51 grey levels. The "157 images" of DinoBloom's
table are another packaging, 2,263 with augmentations. Persons are not named: there are no patients.

Not verified on the published files: the layout above is as public code reads it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from cohorts.field_crops import Found, cell_table, folder_with, images_by_stem, join_fields
from cohorts.mask_files import outlines
from cohorts.published_sets import count_note, given_folder, missing_note, without_patients
from milkit.cohort import Cohort

PUBLISHED = {"Baso": 53, "eosi": 39, "lymp": 52, "mixt": 8, "mono": 48, "neut": 50}
"""Fields of each class."""
TWO_CELLS = {"Baso": (7, 31), "lymp": (3, 20, 23, 33, 34, 45, 52), "neut": (31, 38, 42, 47)}
"""Numbers of the fields that are known to show two cells of their class."""
CROPPED = 4
"""By how many pixels the masks were cut off on each side."""

_FIELDS, _MASKS = "Main Dataset", "Ground Truth Segmentation"
_EXPECTED = (
    f"the LISC Database ('{_FIELDS}/<class>/<n>.bmp' and '{_MASKS}/<class>/areaforexpert1/<n>_expert.bmp') was "
    "expected; get it from its authors' page and give its folder with --root."
)
_MASK = re.compile(r"_expert.*$", re.IGNORECASE)


def lisc(root: Path | None = None, expert: Literal[1, 2] = 1) -> Cohort:
    """The outlined cells of the fields below ``root``, each a square crop; they belong to no patient.

    Args:
        root: The folder ``LISC Database``, or the one that holds it.
        expert: Whose outlines are read.
    """
    root = given_folder(root, "lisc", _EXPECTED)
    home = folder_with(root, (_FIELDS, _MASKS), ("LISC Database",), _EXPECTED)
    images: dict[str, Path] = {}
    cells: dict[str, list[Found]] = {}
    for name in PUBLISHED:
        here = {f"{name}/{stem}": path for stem, path in _files(home / _FIELDS, name).items()}
        masks = _files(home / _MASKS, name, f"areaforexpert{expert}")
        for mask in masks.values():
            field = f"{name}/{_MASK.sub('', mask.stem)}"
            outlined = outlines(mask, here[field], cropped=CROPPED) if field in here else []
            cells[field] = [found._replace(label=None if name == "mixt" else name) for found in outlined]
        images |= here
    fields, unmatched = join_fields(root, images, cells)
    table, left_out = cell_table(fields)
    left_out += _cells_of_fields(cells)
    counts = Counter(f"{field.name.partition('/')[0]} fields" for field in fields)
    published = {f"{name} fields": number for name, number in PUBLISHED.items()}
    return without_patients("lisc", root, table, [*count_note(counts, published), *left_out, *unmatched])


def _cells_of_fields(cells: Mapping[str, Sequence[Found]]) -> list[str]:
    """A sentence on fields that gave several cells, and one on those whose two cells touch, or were not outlined."""
    known = {f"{name}/{number}" for name, numbers in TWO_CELLS.items() for number in numbers}
    several = [field for field, found in cells.items() if len(found) > 1 and not field.startswith("mixt/")]
    wrong = [field for field, found in cells.items() if field in known and len(found) != 2]
    return [
        *missing_note("Fields gave several cells, each with the class of the field", several),
        *missing_note("Fields that are known to show two cells gave another number", wrong),
    ]


def _files(place: Path, name: str, inside: str = ".") -> dict[str, Path]:
    """The images of a class, whose folder is found whatever the case of its letters."""
    folders = [path / inside for path in sorted(place.iterdir()) if path.name.lower() == name.lower()]
    return images_by_stem(folders[0]) if folders and folders[0].is_dir() else {}
