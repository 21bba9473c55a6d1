"""A store whose ids identify, as all who read it see it: with study ids, in their order, and without paths.

Everything that a run, a report or an export holds comes from such a view, so that no verb has to know of ids. The order
is that of the study ids, too: in that of the store, which sorts by source ids, the tenth of fifty patients would be
somebody whose name begins with C.
"""

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import tables
from milkit.bags.files import read_attributes
from milkit.bags.keys import find_key, keys_folder, map_path, write_map
from milkit.bags.store import Bag, BagStore

IDENTIFYING = "identifying"
"""What the attribute ``ids`` says of a store that is read by study ids. One without the attribute is of an earlier
milkit, whose runs show its ids: it counts as pseudonymous until the next `milkit extract` writes what the recipe says.
"""


class StudyStore(BagStore):
    """A store for reading, whose ``patients``, ``cells``, ``failures`` and bags have study ids.

    The ``path`` of cells is empty, and ``image_paths`` says where their images lie. The further columns of both tables
    are as they are: one that tells who somebody is should not be named in the cohort's recipe.
    """

    def __init__(self, path: Path) -> None:
        """Open a store, and write the map of its ids where it is not there yet; see ``keys`` for what is refused."""
        super().__init__(path)
        folder = keys_folder(path)
        self._key = find_key(folder, str(self.attributes["cohort"]))
        self.attributes = {**self.attributes, "ids": "study"}
        names = self._study_index(self.patients.index)
        self._source = dict(zip(names, map(str, self.patients.index), strict=True))
        stored = dict(zip(names, self._position.values(), strict=True))
        self.patients = self.patients.set_axis(pd.Index(list(stored), name="patient_id", dtype=object))
        if "label" in self.patients:
            self.patients = self.patients.sort_index()
        self._position = {str(name): stored[name] for name in self.patients.index}
        bounds = [self._bounds(name) for name in self._position]
        self._order: npt.NDArray[np.int64] = np.concatenate([np.arange(*own) for own in bounds])
        ends = np.cumsum([last - first for first, last in bounds]).tolist()
        self._rows = {
            name: slice(end - last + first, end)
            for name, end, (first, last) in zip(self._position, ends, bounds, strict=True)
        }
        place = map_path(folder, self._key, str(self.attributes["cohort_digest"]))
        if not place.is_file():
            write_map(place, self._map())

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell, in the order of ``load``; the paths are empty."""
        cells = self._stored_cells.assign(cell_id=self._study_cells, path="")
        if "label" in self.patients:
            cells["patient_id"] = cells["patient_id"].map({old: new for new, old in self._source.items()})
        if "sample_id" in cells:
            cells["sample_id"] = self._key.study_ids("sample", cells["sample_id"])
        return cells.iloc[self._order].reset_index(drop=True)

    @cached_property
    def paths(self) -> "pd.Series[str]":
        """The path of each cell's image, in the order of ``cells``."""
        return self._stored_cells["path"].iloc[self._order].reset_index(drop=True)

    @property
    def failures(self) -> pd.DataFrame:
        """Cells that could not be read: patient_id, cell_id, path (empty) and the reason, without the file's name."""
        failed = tables.failure_table(tables.read_failures(self.path, list(self._source.values())))
        reasons = [
            reason.replace(Path(path).name, "its file") if path else reason
            for reason, path in zip(failed["reason"], failed["path"], strict=True)
        ]
        own = {"patient_id": self.study_patients(failed["patient_id"]), "cell_id": self.study_cells(failed["cell_id"])}
        return failed.assign(**own, path="", reason=reasons)

    def study_patients(self, ids: "pd.Series[Any]") -> "pd.Series[Any]":
        """The study ids of patients of a table from outside; what is no source id of this store stays."""
        return ids.map({old: new for new, old in self._source.items()} if "label" in self.patients else {}).fillna(ids)

    def study_cells(self, ids: "pd.Series[Any]") -> "pd.Series[Any]":
        """The same for cells."""
        return ids.map(dict(zip(self._stored_cells["cell_id"], self._study_cells, strict=True))).fillna(ids)

    def source_texts(self) -> frozenset[str]:
        """Source ids, and file and folder names with the id of a patient in them: what must not leave."""
        cells, patients = self._stored_cells, set(self._source.values())
        ids = {*cells["cell_id"], *cells.get("sample_id", pd.Series(dtype=object)).dropna()}
        parts = {part for path in cells["path"] for part in (*Path(path).parts, Path(path).stem)}
        if "label" not in self.patients:
            return frozenset(ids | {Path(path).stem for path in cells["path"]})
        return frozenset(ids | patients | {part for part in parts if patients & set(re.split(r"[\W_]+", part))})

    def rows_of(self, patient_id: str) -> slice:
        """The rows of one group's cells, in ``load`` and in ``cells``."""
        super().rows_of(patient_id)  # refuses strangers
        return self._rows[patient_id]

    def __getitem__(self, patient_id: str) -> Bag:
        """One patient's bag, as float32."""
        features = self._arrays.read("features", *self._bounds(patient_id)).astype(np.float32, copy=False)
        return Bag(patient_id, features, tuple(self.cells["cell_id"].iloc[self.rows_of(patient_id)]))

    def load(self) -> npt.NDArray[np.floating[Any]]:
        """Read all features at once, (n_cells, dim) in the order of ``cells``, without ever holding them twice."""
        self._refuse_pending()
        features = np.empty((self.n_cells, self.dim), dtype=self.dtype)
        for name, rows in self._rows.items():
            features[rows] = self._arrays.read("features", *self._bounds(name))
        return features

    def image_digests(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of each cell's image file: (n_cells, 32), in the order of ``cells``."""
        digests: npt.NDArray[np.uint8] = super().image_digests()[self._order]
        return digests

    def verify(self) -> list[str]:
        """As of the store itself, under its own ids."""
        return BagStore(self.path).verify()

    def _bounds(self, patient_id: str) -> tuple[int, int]:
        """First and one-past-last row of a group on the disk."""
        first, last = self._arrays.rows[self._position[patient_id]]
        return int(first), int(last)

    @cached_property
    def _stored_cells(self) -> pd.DataFrame:
        return tables.read_cells(self.path, self.n_cells)

    @cached_property
    def _study_cells(self) -> "pd.Series[str]":
        """Of the cells as they are stored."""
        return self._key.study_ids("cell", self._stored_cells["cell_id"])

    def _study_index(self, index: "pd.Index[str]") -> list[str]:
        """The study ids of the groups; the blocks of a cohort without patients keep their names."""
        if "label" not in self.patients:
            return [str(name) for name in index]
        return self._key.study_ids("patient", index.to_series()).tolist()

    def _map(self) -> pd.DataFrame:
        """The way back: kind, study_id, source_id and, of cells, path."""
        cells = self._stored_cells
        patients = pd.DataFrame({"kind": "patient", "study_id": list(self._source), "source_id": self._source.values()})
        of_cells = {"kind": "cell", "study_id": self._study_cells, "source_id": cells["cell_id"], "path": cells["path"]}
        parts = [patients if "label" in self.patients else patients.iloc[:0], pd.DataFrame(of_cells)]
        if "sample_id" in cells:
            samples = pd.Series(cells["sample_id"].dropna().unique(), dtype=object)
            of_samples = {"kind": "sample", "study_id": self._key.study_ids("sample", samples), "source_id": samples}
            parts.append(pd.DataFrame(of_samples))
        return pd.concat(parts, ignore_index=True)


def image_paths(store: BagStore) -> "pd.Series[str]":
    """The path of each cell's image relative to the root, in the order of ``store.cells``: to be read, not written."""
    return store.paths if isinstance(store, StudyStore) else store.cells["path"]


def study_patients(store: BagStore, ids: "pd.Series[Any]") -> "pd.Series[Any]":
    """Ids of patients in a table from outside, as the store's runs have them."""
    return store.study_patients(ids) if isinstance(store, StudyStore) else ids


def study_cells(store: BagStore, ids: "pd.Series[Any]") -> "pd.Series[Any]":
    """Ids of cells in a table from outside, as the store's runs have them."""
    return store.study_cells(ids) if isinstance(store, StudyStore) else ids


def source_texts(store: BagStore) -> frozenset[str]:
    """Ids and names of files that must not leave; none, where ids are pseudonymous."""
    return store.source_texts() if isinstance(store, StudyStore) else frozenset()


def open_patients(store: Path) -> "tuple[pd.DataFrame, Callable[[pd.Series[Any]], pd.Series[Any]]]":
    """The patients of a store as its runs know them, and what turns source ids of other tables into theirs."""
    identifies = (store / "zarr.json").is_file() and read_attributes(store).get("ids") == IDENTIFYING
    if not identifies:
        return tables.read_patients(store), lambda ids: ids
    view = StudyStore(store)
    return view.patients, view.study_patients
