"""What a fake copy of a published data set owes the tests; the copies are laid out by ``cohort_fakes_<part>.py``.

Each of these modules has ``FAKES``: the name of a cohort to a function that lays out a tiny fake of the published
package below a root, traps included, and returns what an adapter must find in it. No image of a patient is in them.
"""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

FOLDER_OF_THE_FINDER = b"\x00\x00\x00\x01Bud1" + bytes(6140)
"""What ``.DS_Store`` holds, 6,148 bytes; data sets have it under the names of images."""


class Fake(NamedTuple):
    """A fake copy, and what is in it."""

    root: Path
    """What to give as ``root``."""
    arguments: dict[str, Any]
    """Further arguments that the factory cannot do without; mostly none."""
    n_cells: int
    cell_types: dict[str, int]
    """Cells by their raw label; none where the data set has no labels of cells."""
    n_patients: int
    """0 for a data set without patients."""


LayOut = Callable[[Path], Fake]


def picture(kind: str, *, size: tuple[int, int] = (12, 12), mode: str = "RGB", seed: int = 0) -> bytes:
    """An image file of noise, of this Pillow format (``TIFF``, ``PNG``, ``JPEG``, ``BMP``), width x height and mode."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(content, kind)
    return content.getvalue()


def write(root: Path, paths: Iterable[str], content: bytes) -> None:
    """Files of the same content; folders are made where they are missing."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
