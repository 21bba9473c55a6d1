"""Cells of different patients that are the same: by file, by their looks, or by their features.

Letters: n cells, d features.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

TWIN = 0.2
"""Of the median distance to the nearest cell of another patient: up to this share of it, two cells are one picture.

Measured on the 3,482 cells of lymphocytosis under milkit-mini: the nearest two cells of different patients are at 0.46;
of 40 cells, copies that were coded anew with quality 90 are at 0.05 to 0.19, and reduced to 0.8 of their size at 0.02
to 0.10. Copies of quality 50 (0.09 to 0.79), brighter or cropped are mostly missed: ``near_pairs`` finds those.
"""

_SAMPLE = 1000
_DIRECTIONS = 64
_MARGIN = 1.4
"""How far random directions may overestimate a distance; 64 of them do so by more for seven pairs in a million."""
_ENTRIES = 2**24


class Pairs(NamedTuple):
    """Rows of cells (pairs, 2), each pair of two patients."""

    rows: Ints


def same_files(digests: npt.NDArray[np.uint8], patients: Ints) -> Pairs:
    """Cells of the same file: (n, 32) of bytes, zeros where unknown; (n,) the patient of each.

    Of cells that several patients share, each is paired with the first of another patient.
    """
    known = np.asarray(digests.any(axis=1))
    _, file = np.unique(np.ascontiguousarray(digests).view("V32").ravel(), return_inverse=True)
    order = np.lexsort((np.arange(len(file)), file))
    order = order[known[order]]
    pairs = []
    for rows in np.split(order, np.flatnonzero(np.diff(file[order])) + 1):
        others = rows[patients[rows] != patients[rows[0]]] if len(rows) > 1 else rows[:0]
        pairs += [(rows[0], row) for row in others]
    return Pairs(np.array(pairs, dtype=np.int64).reshape(-1, 2))


def feature_twins(features: Floats, patients: Ints, seed: int = 0) -> Pairs:
    """Cells of two patients whose features, (n, d), are far nearer to each other than cells of two patients are.

    The yardstick is the median distance of a cell to the nearest of another patient, from a sample of cells; a pair
    counts below ``TWIN`` of it. Candidates are found in random directions (Johnson and Lindenstrauss 1984) and then
    measured; cells with a feature that is not finite are left out.
    """
    readable = np.flatnonzero(np.isfinite(features).all(axis=1))
    values, owner = features[readable].astype(np.float32), patients[readable]
    if len(np.unique(owner)) < 2:
        return Pairs(np.empty((0, 2), dtype=np.int64))
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.permutation(len(values))[:_SAMPLE])
    nearest = np.sqrt(np.concatenate([_nearest_of_others(values, owner, part) for part in _blocks(drawn, len(values))]))
    limit = TWIN * float(np.median(nearest))
    if values.shape[1] > _DIRECTIONS:
        directions = generator.normal(size=(values.shape[1], _DIRECTIONS)).astype(np.float32) / np.sqrt(_DIRECTIONS)
        found = _within(values @ directions.astype(np.float32), owner, _MARGIN * limit)
    else:
        found = _within(values, owner, limit)
    apart = np.sqrt(((values[found[:, 0]] - values[found[:, 1]]) ** 2).sum(axis=1))
    return Pairs(readable[found[apart <= limit]])


def _blocks(rows: Ints, n: int) -> list[Ints]:
    step = max(1, _ENTRIES // n)
    return [rows[first : first + step] for first in range(0, len(rows), step)]


def _squared(values: Floats, rows: Ints) -> Floats:
    """Squared distances of some rows to all, (some, n)."""
    lengths = (values**2).sum(axis=1)
    squared: Floats = np.maximum(lengths[rows][:, None] + lengths[None, :] - 2 * values[rows] @ values.T, 0.0)
    return squared


def _nearest_of_others(values: Floats, owner: Ints, rows: Ints) -> Floats:
    squared = _squared(values, rows)
    squared[owner[rows][:, None] == owner[None, :]] = np.inf
    return np.asarray(squared.min(axis=1))


def _within(values: Floats, owner: Ints, limit: float) -> Ints:
    """Pairs (pairs, 2) of rows of different owners within a distance, the first row above the second."""
    parts = []
    for rows in _blocks(np.arange(len(values)), len(values)):
        i, j = np.nonzero(_squared(values, rows) <= limit**2)
        keep = (rows[i] < j) & (owner[rows[i]] != owner[j])
        parts.append(np.stack([rows[i[keep]], j[keep]], axis=1))
    return np.concatenate(parts)
