"""Masks of fields: what is marked in them, and where that lies in the field."""

from pathlib import Path

import numpy as np

from cohorts.field_crops import Found, image_size
from milkit.errors import CohortError, ImageError
from milkit.images import read_image

LEVEL = 64
"""From this value on a pixel of a mask is marked, by its brightest channel.

Published masks have the nucleus at 255 and the cytoplasm at 128 or 150, and lower values where edges were smoothed or
the mask was saved as JPEG.
"""
SPECK = 16
"""An outline whose shorter side is below this many pixels is a speck of the mask, not a cell."""


def outlines(mask: Path, field: Path, *, cropped: int = 0, level: int = LEVEL, speck: int = SPECK) -> list[Found]:
    """The bounding boxes of what a mask marks, in pixels of its field and in reading order; they have no label.

    Pixels that touch, corners included, are one object; two cells that touch are too, and specks are none. ``cropped``
    is by how many pixels the mask was cut off on each side; a mask as large as its field was not cut.
    """
    from scipy import ndimage

    try:
        pixels = read_image(mask)
    except ImageError as error:
        msg = f"The mask {mask} cannot be read, and its cells are unknown without it ({error}); get it anew."
        raise CohortError(msg) from None
    shift = _offset(mask, (pixels.shape[1], pixels.shape[0]), image_size(field), cropped)
    regions, _ = ndimage.label(pixels.max(axis=2) >= level, structure=np.ones((3, 3)))
    return [
        Found(None, columns.start + shift, rows.start + shift, columns.stop + shift, rows.stop + shift)
        for rows, columns in ndimage.find_objects(regions)
        if min(rows.stop - rows.start, columns.stop - columns.start) >= speck
    ]


def _offset(mask: Path, size: tuple[int, int], field: tuple[int, int], cropped: int) -> int:
    """Where the mask's corner lies in the field, in pixels on both axes."""
    if size == field:
        return 0
    if size == (field[0] - 2 * cropped, field[1] - 2 * cropped):
        return cropped
    or_cut = f" or {field[0] - 2 * cropped}x{field[1] - 2 * cropped}" if cropped else ""
    msg = (
        f"The mask {mask} has {size[0]}x{size[1]} pixels, expected {field[0]}x{field[1]}{or_cut} to fit its field; "
        "get both from the same source."
    )
    raise CohortError(msg)
