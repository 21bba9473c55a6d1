"""Pictures of many cells for one page: as large as a limit allows, and fewer where the smallest are still too many."""

import base64
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from milkit.errors import ImageError
from milkit.images import read_bytes, read_cell
from milkit.progress import progress

SIDES = (96, 64, 48, 32)
"""Longest sides in px, the first that fits being taken; smaller images stay as they are."""
_TRIED = 64
"""Cells by which the size of all is foreseen."""


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """What was encoded.

    Attributes:
        encoded: (n,) WebP in base64, empty where there is no picture.
        side: Longest side in px.
        n_reduced: Pictures that are smaller than the images.
        n_unreadable: Images that could not be read.
        n_left_out: Images that did not fit into the limit.
    """

    encoded: list[str]
    side: int
    n_reduced: int
    n_unreadable: int
    n_left_out: int

    @property
    def size(self) -> int:
        """Letters of all."""
        return sum(map(len, self.encoded))


def thumbnails(places: Sequence[tuple[str, str]], turns: Sequence[int], root: Path | None, *, limit: int) -> Thumbnails:
    """Encode cells.

    Args:
        places: (n,) path and box of each.
        turns: (n,) who comes first where not all fit: the lowest numbers, such as a cell's place within its patient.
        root: What the paths are relative to; None where it is unknown, which gives no pictures.
        limit: Letters of all together.
    """
    if root is None:
        return Thumbnails([""] * len(places), SIDES[-1], 0, 0, 0)
    some = [places[row] for row in np.unique(np.linspace(0, len(places) - 1, _TRIED).astype(int))]
    side = next((side for side in SIDES if _size(some, root, side) * len(places) / len(some) <= limit), SIDES[-1])
    while True:
        found = _encode(places, root, side)
        smaller = [other for other in SIDES if other < side]
        if sum(len(picture) for picture, _ in found) <= limit or not smaller:
            break
        side = smaller[0]
    encoded, left, n_left_out = [picture for picture, _ in found], limit, 0
    for row in sorted(range(len(encoded)), key=lambda row: (turns[row], row)):
        if len(encoded[row]) > left:
            encoded[row], left = "", 0  # none is taken after the first that does not fit, so that turns hold
            n_left_out += 1
        left -= len(encoded[row])
    kept = [reduced for picture, (_, reduced) in zip(encoded, found, strict=True) if picture]
    return Thumbnails(encoded, side, sum(kept), sum(not picture for picture, _ in found), n_left_out)


def _size(places: Sequence[tuple[str, str]], root: Path, side: int) -> int:
    return sum(len(_encode_one(root, place, side)[0]) for place in places)


def _encode(places: Sequence[tuple[str, str]], root: Path, side: int) -> list[tuple[str, bool]]:
    found = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, progress("atlas", len(places), "images") as advance:
        for one in pool.map(lambda place: _encode_one(root, place, side), places):
            found.append(one)
            advance()
    return found


def _encode_one(root: Path, place: tuple[str, str], side: int) -> tuple[str, bool]:
    """The picture, empty where it cannot be read, and whether it is smaller than the image."""
    try:
        image = read_cell(read_bytes(root, place[0]), place[1])
    except ImageError:
        return "", False
    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((side, side))
    picture.save(buffer, "WEBP", quality=80, method=3)
    letters = base64.b64encode(buffer.getvalue()).decode("ascii")
    assert len(letters) == 4 * math.ceil(buffer.tell() / 3)
    return letters, max(image.shape[:2]) > side
