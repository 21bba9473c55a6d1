"""Two dimensions for cells: fitted on training cells, all others placed into the same map (McInnes et al., 1802.03426).

UMAP's ``transform`` lets the cells that are placed together depend on each other a little. So patients are placed one
at a time: where a held-out patient's cells lie depends on the training patients and on these cells alone.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.atlas.settings import MapSettings
from milkit.errors import SettingsError, StoreError
from milkit.progress import Advance

Floats = npt.NDArray[np.floating[Any]]

Embed = Callable[[Floats, Sequence[Floats], MapSettings, Advance], tuple[Floats, list[Floats]]]
"""Cells to fit (n, dim) and the other cells (m, dim) of each patient -> (n, 2), and (m, 2) of each."""

DIGITS = 4
"""Of a coordinate: what the page, the tables and a gate agree on to the last digit."""
MEASURED = 2000
"""Cells of a role that trustworthiness is computed on, at most: it compares all pairs."""


def embed_umap(fitted: Floats, others: Sequence[Floats], settings: MapSettings, advance: Advance) -> Any:
    """Fit UMAP with one thread and a seed, then place the other cells patient by patient; see ``Embed``."""
    with warnings.catch_warnings():  # of optional packages, and of islands, which a map may have
        warnings.simplefilter("ignore")
        from umap import UMAP

        model = UMAP(
            n_neighbors=settings.neighbours,
            min_dist=settings.min_dist,
            random_state=settings.seed,
            transform_seed=settings.seed,
            n_jobs=1,
        )
        points = model.fit_transform(fitted)
        advance(len(fitted))
        placed = []
        for cells in others:
            placed.append(model.transform(cells) if len(cells) else np.zeros((0, 2)))
            advance(len(cells))
    return points, placed


def standardise(features: Floats, fitted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Features (n, dim) by mean and spread of the cells that the map is fitted on, as heads see theirs.

    Raises:
        StoreError: All these cells have the same features.
    """
    seen = features[fitted].astype(np.float64)
    mean, spread = seen.mean(axis=0), seen.std(axis=0)
    if not spread.any():
        msg = f"All {len(seen)} training cells have the same features; look at the images and the encoder."
        raise StoreError(msg)
    return np.asarray((features - mean) / np.where(spread > 0, spread, 1), dtype=np.float32)


def place(
    features: Floats,
    fitted: npt.NDArray[np.bool_],
    patients: Sequence[str],
    settings: MapSettings,
    *,
    embed: Embed,
    advance: Advance,
) -> npt.NDArray[np.float64]:
    """Coordinates of all cells, (n, 2), rounded to ``DIGITS``.

    Args:
        features: (n, dim), from ``standardise``.
        fitted: (n,) the cells that the map is fitted on.
        patients: (n,) of which patient each cell is.
        settings: Of the map.
        embed: ``embed_umap``.
        advance: Is told of cells that have a place.

    Raises:
        SettingsError: There are no more such cells than neighbours are asked for.
    """
    n = int(fitted.sum())
    if n <= settings.neighbours:
        msg = (
            f"The map is fitted on {n} cells of training patients, and {settings.neighbours} neighbours of each were "
            "asked for; give fewer with --set neighbours=N, or more cells of a patient with --cells."
        )
        raise SettingsError(msg)
    names, points = np.asarray(patients, dtype=object), np.empty((len(features), 2))
    others = [(names == name) & ~fitted for name in dict.fromkeys(names[~fitted])]
    points[fitted], placed = embed(features[fitted], [features[rows] for rows in others], settings, advance)
    for rows, own in zip(others, placed, strict=True):
        points[rows] = own
    return points.round(DIGITS) + 0.0  # no negative zero


def trust(features: Floats, points: Floats, roles: Sequence[str], settings: MapSettings) -> dict[str, Any]:
    """How far neighbours on the map are neighbours among the features, for the cells of each role among themselves.

    Trustworthiness (Venna and Kaski 2001) is 1 where every neighbour on the map is one of the features', and about 0.5
    where points lie at random. It is computed on a seeded sample of ``MEASURED`` cells.

    Returns:
        For each role ``value`` (None where there are too few cells), ``n_cells`` and ``neighbours``.
    """
    from sklearn.manifold import trustworthiness

    told, of_cell = {}, np.asarray(roles, dtype=object)
    for role in _in_order(of_cell):
        rows = np.flatnonzero(of_cell == role)
        rows = np.sort(np.random.default_rng(settings.seed).permutation(rows)[:MEASURED])
        neighbours = min(settings.neighbours, (len(rows) - 1) // 2)
        value = float(trustworthiness(features[rows], points[rows], n_neighbors=neighbours)) if neighbours > 0 else None
        told[role] = {"value": value, "n_cells": len(rows), "neighbours": neighbours}
    return told


def _in_order(roles: npt.NDArray[np.object_]) -> Iterator[str]:
    return (role for role in ("train", "validation", "test") if (roles == role).any())
