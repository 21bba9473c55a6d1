"""Fake copies of the AML-Hehr collection for the tests: three made-up patients, and images of four pixels a side."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

HEADER = "patient_id,sex_1f_2m,age,bag_label,instance_count,leucocytes_per_µl,pb_myeloblast,pb_total"
ROWS = (
    "ABF,1,44.4,NPM1,3,44.41,87,100",
    "AEC,2,35.0,control,2,,0,100",
    "NAR,2,61.0,PML_RARA,12,1.39,77,103",
)
"""Three made-up patients; the second is a control, who have no leucocyte count."""
FOLDERS = {"NPM1/ABF": 3, "control/AEC": 2, "PML_RARA/NAR": 12}


def tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(buffer, "TIFF")
    return buffer.getvalue()


def write_images(root: Path, folders: Mapping[str, int], name: str = "image_{}.tif") -> None:
    """As many tiny images a folder as ``folders`` says, all of the same bytes."""
    content = tiff()
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / name.format(number)).write_bytes(content)


def write_collection(
    root: Path,
    rows: tuple[str, ...] = ROWS,
    folders: Mapping[str, int] = FOLDERS,
    *,
    header: str = HEADER,
    place: str = "data",
    table: str = "metadata.csv",
    encoding: str = "utf-8",
) -> Path:
    """A collection under ``root``, which is returned; without further arguments as published."""
    write_images(root / place, folders)
    (root / table).write_text("\n".join((header, *rows)) + "\n", encoding=encoding)
    return root
