"""Aslan: 100 smear fields with boxes around white and red cells.

Published at https://github.com/draaslan/blood-cell-detection-dataset under the MIT licence.

    <root>/images/image-<n>.png      256 x 256 px, RGBA with an opaque alpha; numbers with gaps
    <root>/annotations.csv           image_id, image, xmin, ymin, xmax, ymax, label; FRACTIONS of the field
    <root>/labels/image-<n>.txt      the same boxes in KITTI's form, pixels

    label   csv     KITTI
    wbc     103     103     in 97 fields, 6 of them with two
    rbc     2,236   2,237   image-1 has one more in KITTI, whose box is that of its white cell

Traps: ``labels/.ipynb_checkpoints/`` holds 15 stale copies, which are not read. Three boxes labelled wbc show red cells
(in image-100, image-104 and image-114; seen by eye), and are the three smallest; ``min_side: 48`` leaves them out and
no other. Some fields show the same cell as another one, shifted (image-60 and 106, 62 and 105), so that a split by
image leaks. White cells have no subtype. There are no patients.
"""

from pathlib import Path
from typing import Literal

from cohorts.box_files import read_box_table, read_kitti
from cohorts.field_crops import Found, Role, cell_table, folder_with, image_size, images_by_stem, join_fields
from cohorts.published_sets import count_note, given_folder, without_patients
from milkit.cohort import Cohort
from milkit.errors import CohortError

PUBLISHED = {
    "csv": {"fields": 100, "wbc boxes": 103, "rbc boxes": 2236},
    "kitti": {"fields": 100, "wbc boxes": 103, "rbc boxes": 2237},
}

_EXPECTED = (
    "the repository blood-cell-detection-dataset (images/image-<n>.png, annotations.csv and labels/) was expected; get "
    "it from github.com/draaslan/blood-cell-detection-dataset and give its folder with --root."
)
_ROLES: dict[str, Role] = {"wbc": "wbc", "rbc": "rbc"}
_MISLABELLED_FIELDS = {"image-100", "image-104", "image-114"}
_MISLABELLED = (
    "Three boxes labelled wbc show red cells (in image-100, image-104 and image-114); `min_side: 48` leaves them out."
)


def aslan(
    root: Path | None = None,
    objects: tuple[Literal["wbc", "rbc"], ...] = ("wbc",),
    annotations: Literal["csv", "kitti"] = "csv",
    min_side: float = 0,
) -> Cohort:
    """The annotated cells of the fields below ``root``, each a square crop; they belong to no patient.

    Args:
        root: The folder that holds ``images/`` and ``annotations.csv``.
        objects: Which objects are cells of the cohort: ``wbc``, ``rbc``.
        annotations: Which of the published copies of the boxes is read: fractions (csv) or pixels (kitti).
        min_side: White cells whose shorter side is below this many pixels are left out.
    """
    root = given_folder(root, "aslan", _EXPECTED)
    folder = folder_with(root, ("images",), (), _EXPECTED) / "images"
    images = images_by_stem(folder)
    boxes = _read_csv(root, folder) if annotations == "csv" else _read_kitti(root)
    fields, unmatched = join_fields(root, images, boxes, _ROLES)
    kinds = [found.label for field in fields for found in field.objects]
    counts = {"fields": len(fields)} | {f"{name} boxes": kinds.count(name) for name in _ROLES}
    cells, left_out = cell_table(fields, roles=objects, smallest=min_side)
    known = [_MISLABELLED] if "wbc" in objects and min_side < 48 and images.keys() >= _MISLABELLED_FIELDS else []
    return without_patients(
        "aslan", root, cells, [*count_note(counts, PUBLISHED[annotations]), *known, *left_out, *unmatched]
    )


def _read_csv(root: Path, folder: Path) -> dict[str, list[Found]]:
    if not (root / "annotations.csv").is_file():
        msg = f"{root} holds no annotations.csv, where {_EXPECTED}"
        raise CohortError(msg)
    boxes = read_box_table(root / "annotations.csv", "image", "label", lambda name: image_size(folder / name))
    return {Path(name).stem: found for name, found in boxes.items()}


def _read_kitti(root: Path) -> dict[str, list[Found]]:
    home = folder_with(root, ("labels",), (), _EXPECTED)
    return {path.stem: read_kitti(path) for path in (home / "labels").glob("[!.]*.txt")}
