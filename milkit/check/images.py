"""What is wrong with single images, from their measures: each threshold with what was measured on real ones.

The real ones: Acevedo (13,675 images, 128 px), Acevedo as published (130, 360 px), lymphocytosis (3,482, 224 px), the
fields of BCCD (364), and the white cells of BCCD (371) and Aslan (103) cut out of theirs. They are sound, as far as
people have looked at them. What of altered ones is found is measured by ``benchmarks/check.py``.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.check.findings import Finding, Flag, Verdict, cell_name, counted, listed

TORN = 9.0
"""Grey levels; a JPEG that breaks off further at a border of its blocks (``tear``) was damaged.

Measured: at most 7.1 in 17,651 real images, 0.1 in the four sound images of the bone-marrow sample and 12.4 to 49 in
its eight damaged ones (12.4 is damaged in its last 10 rows only). Of real images that 512 zeroed bytes had changed
visibly 99.5 to 100 % are above, of those that 64 random bytes had changed 88 to 100 %, that one bit had, 63 to 86 %.
"""
DARK = 64
"""An image whose brightest value is below this shows no cell on a bright ground. All real images reach 197."""
FLAT = 52
"""Grey levels between the darkest and the brightest half per cent; fewer are an empty ground or a crushed contrast.

Measured: at least 100 in Acevedo, 165 in lymphocytosis, 64 in the fields of BCCD, 67 and 71 in the cells of BCCD and of
Aslan. A public copy of LISC has 26 to 51.
"""
CLIPPED = 0.05
"""Share of pixels that are pure white, or pure black. Measured: below 0.0001 in real images, 0.011 in a torn one."""
BLURRED = 5.0
"""How many (scaled) median absolute deviations an image may be less sharp than the median of its cohort.

Measured: 4 images of 13,675 in Acevedo, 4 of 3,482 in lymphocytosis and none in the others are below. After a Gaussian
blur with a sigma of 1 % of the side 85 to 100 % are, with 0.5 % at most a quarter.
"""
LEAST_SPREAD = 0.1
"""The scaled median absolute deviation counts as this at least; real cohorts have 0.25 to 0.4."""
FEW_FOR_SPREAD = 20
"""Below this number of images nobody can say which of them is less sharp than usual."""
MAX_SIDE_RATIO = 4
"""An image with a side above this many times the median side is hardly one cell among others."""
FIELD_SIDE = 600
"""Pixels; a file without a box whose longer side exceeds this is a field.

Published images of single cells have up to 575 (Raabin), published fields 640 and more (BCCD, Chula, LISC,
LeukemiaAttri). Fields that were reduced, such as Aslan's of 256, are not found by this.
"""
NAMED = 10
"""Cells that get a sentence of their own; the others are in the table."""


def about_images(name: str, table: pd.DataFrame, reasons: dict[int, str]) -> Iterator[Verdict]:
    """Everything but copies.

    Args:
        name: The cohort's.
        table: A row a cell: ``cell_id``, ``patient_id``, ``path``, optional ``box``, and the measures.
        reasons: By row, why a cell could not be read.
    """
    read = ~np.isin(np.arange(len(table)), list(reasons))
    yield from _unreadable(name, table, reasons)
    yield from _damaged(name, table, read & (table["tear"] > TORN).to_numpy())
    blank = read & (table["constant"] | (table["brightest"] < DARK)).to_numpy()
    yield from _several(
        name, table, blank, "blank", f"one colour only or no value of {DARK} or above",
        "look at them, and leave out those without a cell",
    )  # fmt: skip
    flat = read & ~blank & (table["contrast"] < FLAT).to_numpy()
    yield from _several(
        name, table, flat, "flat", f"fewer than {FLAT} grey levels between dark and bright",
        "see whether they are empty, or get originals whose contrast was not reduced",
    )  # fmt: skip
    clipped = read & ~blank & (table[["white", "black"]].max(axis=1) > CLIPPED).to_numpy()
    yield from _several(
        name, table, clipped, "clipped", f"pure white or pure black in more than {CLIPPED:.0%} of the pixels",
        "see whether they are overexposed, or masked or padded, which an encoder sees too",
    )  # fmt: skip
    blurred = read & ~blank & ~flat & (_below_median(table["sharpness"].to_numpy(float), read & ~blank) > BLURRED)
    yield from _several(
        name, table, blurred, "blurred",
        f"edges far less sharp than the cohort's median (by more than {BLURRED:g} deviations)",
        "look at them, and leave out those that are out of focus",
    )  # fmt: skip
    yield from _fields(name, table, read)


def _unreadable(name: str, table: pd.DataFrame, reasons: dict[int, str]) -> Iterator[Verdict]:
    rows = sorted(reasons)
    for row in rows[:NAMED]:
        cell = table.iloc[row]
        text = (
            f"{cell['path']} cannot be read: {reasons[row]}; get the file anew from its source, or leave the cell out."
        )
        subject = cell_name(cell["cell_id"], cell["patient_id"])
        yield Verdict(Finding("error", subject, text, "unreadable"), np.array([row]))
    yield from _others(name, "unreadable", rows[NAMED:], "cannot be read either")


def _damaged(name: str, table: pd.DataFrame, torn: npt.NDArray[np.bool_]) -> Iterator[Verdict]:
    rows = np.flatnonzero(torn).tolist()
    for row in rows[:NAMED]:
        cell = table.iloc[row]
        text = (
            f"{cell['path']} can be decoded but is damaged: its picture breaks off about pixel row {cell['tear_row']}, "
            "and what is below may be wrong; get the file anew from its source, or leave the cell out."
        )
        subject = cell_name(cell["cell_id"], cell["patient_id"])
        yield Verdict(Finding("error", subject, text, "damaged"), np.array([row]))
    yield from _others(name, "damaged", rows[NAMED:], "are damaged like that")


def _others(name: str, flag: Flag, rows: list[int], what: str) -> Iterator[Verdict]:
    if rows:
        text = f"Another {len(rows):,} cells {what}; the table lists them under the flag '{flag}'."
        yield Verdict(Finding("error", name, text, flag), np.array(rows))


def _several(
    name: str, table: pd.DataFrame, chosen: npt.NDArray[np.bool_], flag: Flag, what: str, advice: str
) -> Iterator[Verdict]:
    rows = np.flatnonzero(chosen)
    if len(rows):
        ids = listed(table["cell_id"].iloc[rows], len(rows))
        text = f"{counted(len(rows), 'image', 'has', 'have')} {what}: {ids}; {advice}."
        yield Verdict(Finding("warning", name, text, flag), rows)


def _below_median(values: npt.NDArray[np.float64], counts: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """How many deviations each value lies below the median: (median - value) / (1.4826 median |value - median|)."""
    known = values[counts & np.isfinite(values)]
    if len(known) < FEW_FOR_SPREAD:
        return np.zeros(len(values))
    median = np.median(known)
    spread = max(1.4826 * float(np.median(np.abs(known - median))), LEAST_SPREAD)
    return np.nan_to_num((median - values) / spread)


def _fields(name: str, table: pd.DataFrame, read: npt.NDArray[np.bool_]) -> Iterator[Verdict]:
    """Images that are too large beside the others, or too large for a cell anyhow, where no box cuts the cell out."""
    sides = table[["width", "height"]].max(axis=1).to_numpy(float)
    if not read.any():
        return
    whole = (table["box"].fillna("") == "").to_numpy() if "box" in table else np.ones(len(table), dtype=bool)
    median = float(np.median(sides[read]))
    unlike = sides > MAX_SIDE_RATIO * median  # what could not be read has sides of 0
    fields = whole & ~unlike & (sides > FIELD_SIDE)
    for chosen, what, advice in (
        (
            unlike,
            f"a side above {MAX_SIDE_RATIO} times the median of {median:g} pixels",
            "see whether they show single cells, and crop or leave out those that do not",
        ),
        (
            fields,
            f"a side above {FIELD_SIDE} pixels and no box, where images of single cells have up to 575",
            "if they are fields with several cells, give each cell a row with its box",
        ),
    ):
        rows = np.flatnonzero(chosen)
        if len(rows):
            sizes = (f"{cell.cell_id} ({cell.width}x{cell.height})" for cell in table.iloc[rows].itertuples())
            text = f"{counted(len(rows), 'image', 'has', 'have')} {what}: {listed(sizes, len(rows))}; {advice}."
            yield Verdict(Finding("warning", name, text, "field"), rows)
