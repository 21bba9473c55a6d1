"""Cell images for a page: encoded by threads, in order, and a placeholder where an image can no longer be read."""

import math
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.errors import ImageError
from milkit.explain.ranking import TOP
from milkit.images import data_uri, read_bytes, read_cell
from milkit.report.scale import ScaleBar, scale_bar

SHOWN = 144
"""Smaller images are enlarged towards this width, in whole multiples; larger ones stay as they are. CSS pixels."""
REDUCED = 72
"""Longest side of reduced images in px, shown at half the size of ``SHOWN``."""

GROUPS = {
    "top": "Cells the model weighs most",
    "random": "Random cells from between",
    "bottom": "Cells it weighs least",
}
"""The rows of a gallery, and what they are called."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One cell on a page.

    Attributes:
        cell_id: The cell.
        group: A key of ``GROUPS``.
        rank: Among the patient's cells, 1 being the highest weight.
        n_cells: The patient's cells.
        percentile: 100 for the highest weight, 0 for the lowest.
        uri: ``data:`` URI; empty where there is no picture.
        width: On the page, CSS pixels.
        height: On the page, CSS pixels.
        true_pixels: Whether the picture is the image itself, which a screen must not smooth, and not a reduced one.
        missing: Why there is no picture; empty where there is one.
        agreement: In how many held-out models the cell is among the highest, such as ``9 of 10``; empty where unknown.
        flags: What a check of the cohort found wrong with the image, such as ``blurred``.
        bar: To stand below the picture; None where the size of a pixel is unknown.
    """

    cell_id: str
    group: str
    rank: int
    n_cells: int
    percentile: float
    uri: str
    width: int
    height: int
    true_pixels: bool
    missing: str = ""
    agreement: str = ""
    flags: str = ""
    bar: ScaleBar | None = None

    @property
    def caption(self) -> str:
        """Rank and percentile, rounded down so that only the first cell is at 100."""
        return f"#{self.rank} · P{math.floor(self.percentile * 10) / 10:g}"

    @property
    def badge(self) -> str:
        """How many models hold up a cell of the top; empty for other cells, and where there is one model."""
        return f"top {TOP} in {self.agreement} models" if self.group == "top" and self.agreement else ""

    @property
    def description(self) -> str:
        """For who cannot see the image."""
        more = "".join(f", {part}" for part in (self.flags, self.missing) if part)
        return f"Cell {self.cell_id}, group {self.group}, rank {self.rank} of {self.n_cells}{more}"


def encode(
    chosen: pd.DataFrame, root: Path | None, *, reduced: bool, micrometres_per_pixel: float | None = None
) -> Generator[Picture, None, None]:
    """Read and encode cells, in their order, some threads ahead of who takes them.

    Args:
        chosen: One row a picture: cell_id, path, box, group, rank, percentile, n_cells; agreement and flags where they
            are known.
        root: What the paths are relative to; None where it is unknown, which makes placeholders.
        reduced: Small lossy images instead of the true pixels.
        micrometres_per_pixel: Of the images, where it is known.
    """
    encode_one = partial(_encode_one, root=root, reduced=reduced, micrometres_per_pixel=micrometres_per_pixel)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            yield from pool.map(encode_one, chosen.to_dict("records"))
        finally:  # who stops early does not wait for the rest
            pool.shutdown(wait=False, cancel_futures=True)


def _encode_one(
    cell: dict[Any, Any], root: Path | None, *, reduced: bool, micrometres_per_pixel: float | None
) -> Picture:
    uri, width, height, scale, bar = "", SHOWN, SHOWN, 1, None
    missing = "no image" if root is None else ""
    try:
        if root is not None:
            image = read_cell(read_bytes(root, cell["path"]), cell["box"])
            height, width = image.shape[:2]
            bar = scale_bar(width, micrometres_per_pixel)
            uri = data_uri(image, reduce_to=REDUCED if reduced else None)
            scale = 1 if reduced else max(1, SHOWN // width)
            if reduced:
                shrink = min(1.0, REDUCED / max(height, width))
                height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    except ImageError:
        missing = "image cannot be read"
    return Picture(
        cell_id=str(cell["cell_id"]),
        group=str(cell["group"]),
        rank=int(cell["rank"]),
        n_cells=int(cell["n_cells"]),
        percentile=float(cell["percentile"]),
        uri=uri,
        width=width * scale,
        height=height * scale,
        true_pixels=not reduced,
        missing=missing,
        agreement="" if pd.isna(cell.get("agreement")) else str(cell["agreement"]),
        flags=str(cell.get("flags") or ""),
        bar=bar,
    )
