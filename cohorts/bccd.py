"""BCCD: 364 smear fields with boxes around white cells, red cells and platelets.

Published at https://github.com/Shenggan/BCCD_Dataset under the MIT licence.

    <root>/BCCD/JPEGImages/BloodImage_<00000..00410>.jpg    640 x 480 px, numbers with gaps
    <root>/BCCD/Annotations/BloodImage_<…>.xml              Pascal VOC boxes, pixels
    <root>/BCCD/ImageSets/Main/<train|val|test>.txt         205, 87 and 72 fields: the column ``split``
    <root>/test.csv                                         the same boxes as a table, pixels

    object      boxes   in fields of
    RBC         4,155   2 of them without area (BloodImage_00338, 00343)
    WBC           372   0 (6 fields), 1 (344) or 2 (14); median 201 x 181 px, many touch the border
    Platelets     361

Boxes have no subtype. A table of subtypes was published apart (``labels.csv`` in repositories of cosmicad and dhruvp):
``Image`` is the number of the field, ``Category`` one of NEUTROPHIL, EOSINOPHIL, LYMPHOCYTE, MONOCYTE, BASOPHIL, or
several with commas, or blank; 411 rows, some for fields that BCCD lacks. It names fields, not boxes: a white cell has a
subtype here only where all entries of its field agree and are no fewer than its boxes, which is so for 354 of 371.

Traps: the smallest WBC box (31 x 27 px, BloodImage_00113) shows a blur and is left out; the ``path`` in the XML is of
the annotator's machine. The photographs go round under other names: the White-Blood-Cell-dataset, the Kaggle originals,
and CBC (Alam; 360) are these files, byte for byte; TXL-PBC has 221 of them; the 12,500 Kaggle "Blood Cell Images" are
their augmentations. None of these is an external test of another. There are no patients.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from cohorts.box_files import read_box_table, read_voc
from cohorts.clinical_tables import column_named, read_table
from cohorts.field_crops import Field, Found, Role, cell_table, folder_with, images_by_stem, join_fields
from cohorts.published_sets import count_note, given_folder, without_patients
from milkit.cohort import Cohort
from milkit.errors import CohortError, first_rows

PUBLISHED = {"fields": 364, "WBC boxes": 372, "RBC boxes": 4155, "Platelets boxes": 361}

_EXPECTED = (
    "the repository BCCD_Dataset (BCCD/JPEGImages/*.jpg and BCCD/Annotations/*.xml) was expected; get it from "
    "github.com/Shenggan/BCCD_Dataset and give its folder with --root."
)
_ROLES: dict[str, Role] = {"WBC": "wbc", "RBC": "rbc", "Platelets": "platelet"}


def bccd(
    root: Path | None = None,
    objects: tuple[Role, ...] = ("wbc",),
    annotations: Literal["voc", "csv"] = "voc",
    subtypes: Path | None = None,
    min_side: float = 40,
) -> Cohort:
    """The annotated objects of the fields below ``root``, each a square crop; they belong to no patient.

    Args:
        root: The folder that holds ``BCCD/``, or ``BCCD`` itself.
        objects: Which objects are cells of the cohort: ``wbc``, ``rbc``, ``platelet``.
        annotations: Which of the published copies of the boxes is read: one XML a field, or ``test.csv``.
        subtypes: Relative to the root, the table of subtypes (``labels.csv``); it replaces the label WBC, and white
            cells whose subtype it leaves open have no label.
        min_side: White cells whose shorter side is below this many pixels are left out.
    """
    root = given_folder(root, "bccd", _EXPECTED)
    home = folder_with(root, ("JPEGImages", "Annotations"), ("BCCD",), _EXPECTED)
    images = images_by_stem(home / "JPEGImages")
    boxes = _read(home, annotations, list(images))
    fields, unmatched = join_fields(root, images, boxes, _ROLES)
    kinds = [found.label for field in fields for found in field.objects]
    counts = {"fields": len(fields)} | {f"{name} boxes": kinds.count(name) for name in _ROLES}
    if subtypes:
        table = root / subtypes
        fields = _with_subtypes(fields, _subtypes(table), table)
    cells, left_out = cell_table(fields, roles=objects, smallest=min_side)
    splits = _splits(home / "ImageSets" / "Main")
    cells["split"] = [splits.get(PurePosixPath(path).stem) for path in cells["path"]]
    return without_patients("bccd", root, cells, [*count_note(counts, PUBLISHED), *left_out, *unmatched])


def _read(home: Path, annotations: Literal["voc", "csv"], stems: Sequence[str]) -> dict[str, list[Found]]:
    """Objects by the name of their field; the table knows no field without any."""
    if annotations == "voc":
        return {path.stem: read_voc(path) for path in (home / "Annotations").glob("[!.]*.xml")}
    places = [place / "test.csv" for place in (home.parent, home)]
    table = next((place for place in places if place.is_file()), places[0])
    boxes = {Path(name).stem: found for name, found in read_box_table(table, "filename", "cell_type").items()}
    return {stem: [] for stem in stems} | boxes


def _splits(folder: Path) -> dict[str, str]:
    """The published part of each field; without the lists, of none."""
    parts = [folder / f"{part}.txt" for part in ("train", "val", "test")]
    return {name: part.stem for part in parts if part.is_file() for name in part.read_text(encoding="utf-8").split()}


def _subtypes(path: Path) -> dict[int, list[str]]:
    """The subtypes that the table lists for each field, by the number of the field."""
    table = read_table(path)
    numbers, kinds = (table[column_named(table, name, path)] for name in ("Image", "Category"))
    wrong = sorted({number for number in numbers if not number.isdecimal()})
    if wrong:
        msg = f"{path} numbers fields as {first_rows(wrong)}, expected whole numbers in 'Image'; mend the table."
        raise CohortError(msg)
    return {
        int(number): [kind.strip() for kind in text.split(",") if kind.strip()]
        for number, text in zip(numbers, kinds, strict=True)
    }


def _with_subtypes(fields: Sequence[Field], subtypes: Mapping[int, list[str]], path: Path) -> list[Field]:
    """The fields with subtypes for labels of white cells, where they are certain; None where they are not."""
    result = []
    for field in fields:
        number = field.name.rpartition("_")[2]
        if not number.isdecimal():
            msg = f"The field {field.name} has no number, by which {path} names it; leave `subtypes` out."
            raise CohortError(msg)
        kinds = subtypes.get(int(number), [])
        n_white = sum(found.role == "wbc" for found in field.objects)
        certain = len(set(kinds)) == 1 and len(kinds) >= n_white
        objects = [
            found._replace(label=kinds[0] if certain else None) if found.role == "wbc" else found
            for found in field.objects
        ]
        result.append(field._replace(objects=objects))
    return result
