"""KRD-WBC: 600 smear fields with masks of their white cells, five types.

Published at https://data.mendeley.com/datasets/jzdj6h7gms/2 (Taha, Alizadeh, Mohammad 2023) under CC BY 4.0. Smears of
two laboratories in Erbil.

    <root>/Dataset/image/image<n>.jpg    512 x 512 px
    <root>/Dataset/mask/mask<n>.jpg      512 x 512 px, the white cell; JPEG, so that edges have values in between
    <root>/class labels.csv              a type for each image, in the column "Categoriy" (sic)

Types are neutrophil, eosinophil, basophil, lymphocyte and monocyte. The table names images: all cells of a field have
the type of its image. There are no patients.

Not verified: no published file was at hand. The layout is put together from public code that opens single files of it;
the name of the table's column with the images, the spelling of the types, whether a mask may hold parts of one cell
apart, and whether there are 600 or 601 images are not known. Look at the crops before they are used.
"""

import re
from pathlib import Path

from cohorts.clinical_tables import read_table
from cohorts.field_crops import cell_table, folder_with, images_by_stem, join_fields
from cohorts.mask_files import outlines
from cohorts.published_sets import count_note, given_folder, without_patients
from milkit.cohort import Cohort
from milkit.errors import CohortError

PUBLISHED = {"fields": 600}

_EXPECTED = (
    "KRD-WBC (Dataset/image/image<n>.jpg, Dataset/mask/mask<n>.jpg and 'class labels.csv') was expected; get it from "
    "Mendeley Data, jzdj6h7gms, and give its folder with --root."
)


def krd_wbc(root: Path | None = None) -> Cohort:
    """The masked cells of the fields below ``root``, each a square crop; they belong to no patient."""
    root = given_folder(root, "krd_wbc", _EXPECTED)
    home = folder_with(root, ("image", "mask"), ("Dataset", "KRD-WBC dataset/Dataset"), _EXPECTED)
    images = images_by_stem(home / "image")
    masks = {_number(stem): path for stem, path in images_by_stem(home / "mask").items()}
    types = _types(home.parent)
    cells = {
        stem: [found._replace(label=types.get(_number(stem))) for found in outlines(masks[_number(stem)], field)]
        for stem, field in images.items()
        if _number(stem) in masks
    }
    fields, unmatched = join_fields(root, images, cells)
    table, left_out = cell_table(fields)
    notes = [*count_note({"fields": len(fields)}, PUBLISHED), *left_out, *unmatched]
    if not types:
        notes.append("No table of types was found beside Dataset/, so that cells have no label.")
    return without_patients("krd_wbc", root, table, notes)


def _number(name: str) -> str:
    """The number in a name, without leading zeros: ``image007.jpg`` and ``mask7`` belong together."""
    found = re.search(r"(\d+)\D*$", name)
    if found is None:
        msg = f"'{name}' has no number, by which images, masks and types of KRD-WBC are matched; rename it."
        raise CohortError(msg)
    return str(int(found[1]))


def _types(folder: Path) -> dict[str, str]:
    """The type of each image by its number; the column of types is the one whose name begins like "category"."""
    for path in sorted(folder.glob("[!.]*.csv")):
        table = read_table(path)
        kinds = [name for name in table.columns if name.lower().startswith("categor")]
        others = [name for name in table.columns if name not in kinds]
        if len(kinds) == 1 and others:
            rows = zip(table[others[0]], table[kinds[0]].str.strip(), strict=True)
            return {_number(name): kind for name, kind in rows if kind}
    return {}
