"""The labelled cells that others are typed by: of the run's encoder, with a type, in folds that part no patient."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore, seen_in_pretraining
from milkit.composition.settings import DifferentialSettings
from milkit.errors import FoldError, StoreError, first_rows
from milkit.labelled_cells import Groups, cell_table, labels_of, nodes_of, without_overlap
from milkit.settings import find_recipe
from milkit.tables import digest, read_table
from milkit.taxonomy import Taxonomy

Ints = npt.NDArray[np.int64]

UNKNOWN = "unknown"
"""The type of a cell that is given none; labelled cells of this label say nothing and are left out."""
LEAST_GROUPS = 3
"""Patients, or fields, that cells of a type come from at least, so that each of them is typed by those of others."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Labelled cells and their folds.

    Attributes:
        store: Where they are from.
        own: Whether that is the run's own store.
        rows: (n,) of the store.
        features: (n, d) float32.
        labels: (n,) position of each cell's type in ``types``.
        types: In alphabetical order.
        groups: Which cells belong together.
        fold: (n,) the fold in which a cell is typed by cells of other groups.
        left_out: How many cells were left out, by reason.
        rare: Types that were left out, having too few cells, or cells of too few patients or fields.
        taxonomy: What translated the labels: its ``name``, the ``sha256`` of its file, and the type that each label
            means (``labels``); None where it was not asked for.
    """

    store: BagStore
    own: bool
    rows: Ints
    features: npt.NDArray[np.float32]
    labels: Ints
    types: tuple[str, ...]
    groups: Groups
    fold: Ints
    left_out: dict[str, int]
    rare: tuple[str, ...]
    taxonomy: dict[str, Any] | None

    def facts(self, settings: DifferentialSettings) -> dict[str, Any]:
        """What ``composition.json`` says of the labelled cells; no path."""
        attributes = self.store.attributes
        n_of_type = np.bincount(self.labels, minlength=len(self.types))
        return {
            "cohort": attributes.get("cohort"),
            "own": self.own,
            "cohort_digest": attributes.get("cohort_digest"),
            "cells_sha256": digest(self.store.cells),
            "labels_sha256": hashlib.sha256(settings.labels.read_bytes()).hexdigest() if settings.labels else None,
            "encoder_seen": seen_in_pretraining(attributes),
            "label": None if settings.labels else settings.label,
            "n_cells": len(self.labels),
            "types": {name: int(n) for name, n in zip(self.types, n_of_type, strict=True)},
            "unit": self.groups.unit,
            "n_units": len(np.unique(self.groups.of_cell)),
            "assumption": self.groups.assumption,
            "left_out": self.left_out,
            "rare": list(self.rare),
        }


def read_reference(run_store: BagStore, settings: DifferentialSettings) -> Reference:
    """Read the labelled cells, of the store that was named or else of the run's own.

    Left out are cells that could not be read, those without a label or called ``UNKNOWN``, of labels that the settings
    leave out, that mean no single node of the taxonomy where it is asked for, and rare types: of fewer cells than there
    are folds, or in fewer than ``LEAST_GROUPS`` patients or fields.

    Raises:
        StoreError: The store is of another encoder than the run's, or its cells have no such column.
        FoldError: Fewer than two types are left.
    """
    own = settings.labelled is None or settings.labelled.resolve() == run_store.path.resolve()
    store = run_store if own or settings.labelled is None else BagStore.open(settings.labelled)
    _require_encoder(store, run_store)
    cells, features = cell_table(store), store.load()
    published = _labels(cells, store, settings)
    named = _nodes(published, store, settings) if settings.taxonomy else published
    keep, left_out = np.ones(len(cells), dtype=bool), dict[str, int]()
    for reason, out in (
        ("unreadable", ~np.isfinite(features).all(axis=1)),
        ("unlabelled", (published.isna() | (published.str.lower() == UNKNOWN)).to_numpy()),
        ("of labels left out", published.isin(settings.leave_out).to_numpy()),
        ("of labels that mean no single node", named.isna().to_numpy()),
    ):
        left_out[reason] = int((out & keep).sum())
        keep &= ~out
    groups = Groups.of(cells)
    named = without_overlap(named.where(keep)) if settings.taxonomy else named
    rare = _rare(named[keep], groups.keep(keep), settings.folds) if keep.any() else []
    of_rare = named.isin(rare).to_numpy() & keep
    left_out["of rare types"] = int(of_rare.sum())
    keep &= ~of_rare
    types = tuple(sorted(set(named[keep])))
    _require_types(types, rare, store, groups, settings)
    labels = np.asarray(named[keep].map({name: number for number, name in enumerate(types)}), dtype=np.int64)
    groups, rows = groups.keep(keep), np.flatnonzero(keep)
    fold = groups.folds(labels, settings.folds, settings.seed)
    own_features = features[rows].astype(np.float32)
    meaning = dict(zip(published[keep], named[keep], strict=True)) if settings.taxonomy else None
    return Reference(
        store, own, rows, own_features, labels, types, groups, fold, left_out, tuple(rare), _taxonomy_facts(meaning)
    )


def _labels(cells: pd.DataFrame, store: BagStore, settings: DifferentialSettings) -> "pd.Series[Any]":
    """The label of every cell of the store, missing where there is none."""
    if settings.labels is None:
        if settings.label not in store.cells:
            msg = (
                f"The cells of {store.path} have no column '{settings.label}', only {', '.join(store.cells.columns)}; "
                "give --labelled a store of labelled cells of the same encoder, --labels a table of them, or another "
                "--label."
            )
            raise StoreError(msg)
        return labels_of(cells, settings.label)
    if not settings.labels.is_file():
        msg = f"The table {settings.labels} does not exist; give --labels a CSV file with cell_id and cell_type."
        raise StoreError(msg)
    table = read_table(settings.labels)
    if lacking := [name for name in ("cell_id", "cell_type") if name not in table]:
        msg = f"{settings.labels} lacks {' and '.join(lacking)}, expected a row a cell with both; name its columns so."
        raise StoreError(msg)
    known = table[table["cell_id"].isin(cells["cell_id"])]
    if known.empty or known["cell_id"].duplicated().any():
        what = f"the cell '{known['cell_id'].mode()[0]}' twice" if len(known) else f"no cell of {store.path}"
        msg = (
            f"{settings.labels} has {what}; expected the cells of the labelled store, one row each, so give its table."
        )
        raise StoreError(msg)
    return cells["cell_id"].map(labels_of(known, "cell_type").set_axis(known["cell_id"])).astype(object)


def _nodes(published: "pd.Series[Any]", store: BagStore, settings: DifferentialSettings) -> "pd.Series[Any]":
    """What the labels mean in the taxonomy: those of a table are nodes, of which the root says nothing."""
    if settings.labels is None:
        return nodes_of(published, store)
    taxonomy = Taxonomy.load()
    nothing = [name for name in published.dropna().unique() if name != UNKNOWN and not taxonomy.depth(name)]
    return published.mask(published.isin(nothing))


def _taxonomy_facts(meaning: dict[str, str] | None) -> dict[str, Any] | None:
    if meaning is None:
        return None
    path = find_recipe("taxonomies", "blood")
    digest_of_file = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": path.stem, "sha256": digest_of_file, "labels": dict(sorted(meaning.items()))}


def _require_encoder(store: BagStore, run_store: BagStore) -> None:
    own, wanted = (str(one.attributes["encoder_digest"]) for one in (store, run_store))
    if (own, store.dim) != (wanted, run_store.dim):
        msg = (
            f"{store.path} is of the encoder {store.attributes['encoder']} ({own[:8]}, {store.dim} features), the "
            f"run's store of {run_store.attributes['encoder']} ({wanted[:8]}, {run_store.dim} features); cells are "
            "typed by features of one encoder, so extract the labelled cells with the run's weights."
        )
        raise StoreError(msg)


def _rare(names: "pd.Series[Any]", groups: Groups, folds: int) -> list[str]:
    numbers, found = pd.factorize(names, sort=True)
    positions = np.asarray(numbers, dtype=np.int64)
    n_cells, n_groups = np.bincount(positions), groups.count(positions)
    least = folds if groups.units == ("cells",) else min(LEAST_GROUPS, folds)
    few = (n_cells < folds) | (n_groups < least)
    return [str(name) for name, rare in zip(found, few, strict=True) if rare]


def _require_types(
    types: tuple[str, ...], rare: list[str], store: BagStore, groups: Groups, settings: DifferentialSettings
) -> None:
    if len(types) < 2:
        few = f" ({first_rows(rare)} too rare)" if rare else ""
        msg = (
            f"The column '{settings.label}' of {store.path} has {len(types)} types of {settings.folds} cells or more, "
            f"of several {groups.unit}{few}, expected two; give --labelled a store with more labelled cells, or fewer "
            "folds with --set folds=2."
        )
        raise FoldError(msg)
