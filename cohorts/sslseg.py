"""SSLSeg: 400 single white blood cells in 5 classes, in two parts of different stain and size; no patients.

Published at https://github.com/zxaoyou/segmentation_WBC (Zheng et al. 2018), whose repository is under GPL-3.0.

    <root>/Dataset 1/<NNN>.bmp                     300 images, mostly 120 x 120 px, yellowish
    <root>/Dataset 2/<NNN>.bmp                     100 images, 300 x 300 px
    <root>/Dataset 1/<NNN>.png, Dataset 2/…        masks of nucleus and cytoplasm, not read
    <root>/Class Labels of Dataset 1.csv           image ID,class label
    <root>/Class Labels of Dataset 2.csv           image ID,class

    class   meaning      Dataset 1   Dataset 2
    1       neutrophil         176          33
    2       lymphocyte          53          37
    3       monocyte            48          15
    4       eosinophil          22          12
    5       basophil             1           3

``cell_type`` is the meaning of the published number. An image is one cell already and taken as it is.

Traps: ids are padded in file names (``007.bmp``) and not in the tables (``7``), and where a copy has both names, the
padded one is read; the tables name their columns differently; the paper says 200 images where the first part has 300;
``Dataset 1/112.bmp`` and ``139.bmp`` are the same file. The labels are the authors', not experts'.

Verified: the tables and the list of files are the published ones; the images were not at hand.
"""

from collections import Counter
from pathlib import Path

import pandas as pd

from cohorts.cell_folders import image_count_note, images_below
from cohorts.clinical_tables import column_named, read_table
from cohorts.published_sets import given_folder, missing_note, without_patients
from milkit.cohort import Cohort
from milkit.errors import CohortError, first_rows

MEANINGS = {"1": "neutrophil", "2": "lymphocyte", "3": "monocyte", "4": "eosinophil", "5": "basophil"}
COUNTS = {"neutrophil": 209, "lymphocyte": 90, "monocyte": 63, "eosinophil": 34, "basophil": 4}
"""Published images by class."""

_EXPECTED = (
    "the folders 'Dataset 1' and 'Dataset 2' and their tables 'Class Labels of …' were expected; get them from "
    "github.com/zxaoyou/segmentation_WBC and give the folder that holds them with --root."
)
_LABEL_COLUMNS = {"Dataset 1": "class label", "Dataset 2": "class"}


def sslseg(root: Path | None = None) -> Cohort:
    """The cells of the parts in ``root``; they belong to no patient."""
    root = given_folder(root, "sslseg", _EXPECTED)
    rows, notes = [], list[str]()
    for part in _LABEL_COLUMNS:
        images, twice = dict[int, str](), list[str]()
        for path in sorted(images_below(root / part), key=lambda path: (len(path.parts), str(path))):
            if _is_cell(path.name) and images.setdefault(int(path.stem), f"{part}/{path}") != f"{part}/{path}":
                twice.append(str(path))
        labels = _labels(root, part) if images else {}
        rows += [(f"{part}/{number:03d}", path, labels.get(number)) for number, path in images.items()]
        notes += missing_note(f"Images of {part} with the number of another one were not read", twice)
        notes += missing_note(f"Images without a row in the table of {part}", [*map(str, images.keys() - labels)])
        notes += missing_note(f"Rows of the table of {part} without an image", [*map(str, labels.keys() - images)])
    if not rows:
        msg = f"{root} holds no image of either, where {_EXPECTED}"
        raise CohortError(msg)
    cells = pd.DataFrame(rows, columns=["cell_id", "path", "cell_type"], dtype=object)
    notes += image_count_note(cells["cell_type"], COUNTS)
    return without_patients("sslseg", root, cells, notes)


def _is_cell(name: str) -> bool:
    stem, _, suffix = name.partition(".")
    return stem.isdecimal() and suffix.lower() == "bmp"


def _labels(root: Path, part: str) -> dict[int, str]:
    """What each numbered image of a part shows."""
    path = root / f"Class Labels of {part}.csv"
    table = read_table(path)
    numbers = table[column_named(table, "image ID", path)].str.strip()
    codes = table[column_named(table, _LABEL_COLUMNS[part], path)].str.strip()
    wrong = [*numbers[~numbers.str.isdecimal()], *codes[~codes.isin(MEANINGS)]]
    if wrong:
        msg = f"{path} holds {first_rows(wrong)}, expected numbers of images, and classes from 1 to 5; mend those rows."
        raise CohortError(msg)
    pairs = {(int(number), code) for number, code in zip(numbers, codes, strict=True)}
    times = Counter(number for number, _ in pairs)
    if several := [str(number) for number in sorted(times) if times[number] > 1]:
        msg = f"{path} gives the images {first_rows(several)} several classes, expected one; mend those rows."
        raise CohortError(msg)
    return {number: MEANINGS[code] for number, code in pairs}
