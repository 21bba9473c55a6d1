"""Labelled cells of stores, and which of them must stay together: what probes and batch reports ask of a store."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit import settings
from milkit.bags import BagStore, cohort_names
from milkit.taxonomy import LabelMap, Taxonomy

Ints = npt.NDArray[np.int64]

_NO_FILE = "0" * 64
"""In place of a digest where a file is missing, or features were imported without images."""

Unit = Literal["patients", "fields", "cells"]
"""What is divided between training and test, and drawn for intervals, as a whole."""

UNITS: tuple[Unit, ...] = ("patients", "fields", "cells")
_ASSUMED: dict[Unit, str] = {
    "fields": "over fields as if no two were of one patient",
    "cells": "over cells as if each were independent, too narrow where patients are behind them",
}


def cell_table(store: BagStore) -> pd.DataFrame:
    """One row a cell in the store's order: its own columns, those of its patient, and ``image_sha256`` of its file.

    Where a cell and its patient have a column of the same name, it is the cell's.
    """
    cells = store.cells.copy()
    if cells["patient_id"].notna().any():
        cells = cells.join(
            store.patients.drop(columns=store.patients.columns.intersection(cells.columns)), on="patient_id"
        )
    cells["image_sha256"] = [row.tobytes().hex() for row in store.image_digests()]
    return cells


def labels_of(cells: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """A column as text; missing where it is empty or consists of blanks."""
    text = cells[column].map(lambda value: str(value).strip(), na_action="ignore").astype(object)
    return text.mask(text == "")


def nodes_of(labels: "pd.Series[Any]", store: BagStore) -> "pd.Series[Any]":
    """The node of the taxonomy that each label of the store's cohort means; missing where it means none or several.

    What labels mean stands in ``configs/taxonomies/labels``, by the name of the cohort or of its factory. A cohort or
    a label that is not there is an ``UnknownName``.
    """
    taxonomy, known = Taxonomy.load(), settings.recipe_names("taxonomies/labels")
    names = cohort_names(store.attributes)
    meaning = LabelMap.load(next((name for name in names if name in known), names[0]), taxonomy)
    nodes = {label: meaning.node(label) for label in labels.dropna().unique()}
    return labels.map({label: node for label, node in nodes.items() if meaning.nodes[label] == (node,)})


def without_overlap(nodes: "pd.Series[Any]") -> "pd.Series[Any]":
    """Each node as the uppermost of its ancestors, or itself, that occurs, so that no class contains another.

    Where one source says neutrophil and another tells bands from segmented ones, all are neutrophils.
    """
    taxonomy, there = Taxonomy.load(), set(nodes.dropna())
    above = {node: next(name for name in (*taxonomy.ancestors(node), node) if name in there) for node in there}
    return nodes.map(above)


@dataclass(frozen=True, slots=True)
class Groups:
    """Cells that belong together.

    Attributes:
        of_cell: (n,) number of each cell's group.
        kinds: (n,) what the group is, a position in ``UNITS``: the cell's patient; the field, where its image has
            several cells and it has no patient; else the cell itself, to which only copies of its image belong.
    """

    of_cell: Ints
    kinds: Ints

    @property
    def units(self) -> tuple[Unit, ...]:
        """What the groups are; several where cohorts with patients and without are looked at together."""
        return tuple(unit for number, unit in enumerate(UNITS) if (self.kinds == number).any())

    @property
    def unit(self) -> str:
        """The same as a word, or as several: ``patients, fields and cells``."""
        return " and ".join(part for part in (", ".join(self.units[:-1]), self.units[-1]) if part)

    @property
    def assumption(self) -> str:
        """What intervals over the groups take for granted, to follow "the intervals are"; empty where nothing."""
        return ", and ".join(_ASSUMED[unit] for unit in self.units if unit in _ASSUMED)

    @classmethod
    def of(cls, cells: pd.DataFrame) -> "Groups":
        """The groups of a ``cell_table``: all cells of a patient, of an image file, and of files with the same bytes.

        Patients who share an image are one group. A cell whose file is not known has none in common with another.
        """
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        rows = pd.Series([f"row {number}" for number in range(len(cells))], index=cells.index)
        known_files = cells["image_sha256"].where(cells["image_sha256"] != _NO_FILE, rows)
        files = pd.factorize(known_files)[0].astype(np.int64)
        patients = pd.factorize(cells["patient_id"])[0].astype(np.int64)  # -1 where there is none
        known = patients >= 0
        boxed = (cells["box"].fillna("") != "").to_numpy() if "box" in cells else np.zeros(len(cells), dtype=bool)
        kinds = np.where(known, 0, np.where(boxed, 1, 2))
        if not known.any():
            return cls(files, kinds)
        n_files, n_nodes = int(files.max()) + 1, int(files.max()) + 1 + int(patients.max()) + 1
        edges = (np.ones(known.sum()), (files[known], n_files + patients[known]))
        joined = connected_components(coo_matrix(edges, shape=(n_nodes, n_nodes)), directed=False)[1]
        return cls(np.unique(joined[files], return_inverse=True)[1], kinds)

    def keep(self, rows: npt.NDArray[np.bool_]) -> "Groups":
        """The groups of some of the cells."""
        return Groups(np.unique(self.of_cell[rows], return_inverse=True)[1], self.kinds[rows])

    def count(self, labels: Ints) -> Ints:
        """How many groups hold each class; copies of an image with two labels count for the first."""
        if self.units == ("cells",):
            return np.bincount(labels[self._first_cells()], minlength=int(labels.max()) + 1)
        pairs = np.unique(np.stack([labels, self.of_cell]), axis=1)
        return np.bincount(pairs[0], minlength=int(labels.max()) + 1)

    @property
    def to_draw(self) -> Ints | None:
        """The groups that a bootstrap draws whole; None where it draws cells."""
        return None if self.units == ("cells",) else self.of_cell

    def folds(self, labels: Ints, k: int, seed: int) -> Ints:
        """The fold in which each cell is tested, (n,): ``k`` folds of like class shares, shuffled, no group divided."""
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        fold = np.empty(len(labels), dtype=np.int64)
        if self.units == ("cells",):  # nearly every group is one cell, for which the splitter of groups takes minutes
            first = self._first_cells()
            splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
            of_group = np.empty(len(first), dtype=np.int64)
            for number, (_, tested) in enumerate(splitter.split(first, labels[first])):
                of_group[tested] = number
            return np.asarray(of_group[self.of_cell])
        grouped = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        for number, (_, tested) in enumerate(grouped.split(labels, labels, self.of_cell)):
            fold[tested] = number
        return fold

    def _first_cells(self) -> Ints:
        """The first cell of each group, in the order of the groups."""
        return np.unique(self.of_cell, return_index=True)[1]
