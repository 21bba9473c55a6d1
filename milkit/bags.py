"""BagStore: the features of every cell of one cohort under one encoder, in one Zarr v3 group. Format 1.

A store is a folder that any Zarr v3 reader opens. It MUST hold

* the group attributes ``format`` ("milkit-bags"), ``version`` (1), ``dim``, ``dtype``, and what made it: ``cohort``,
  ``cohort_factory``, ``cohort_digest``, ``patients_digest``, ``classes``, ``encoder``, ``encoder_digest``,
  ``transform``, ``batch_size``, ``backend``, ``precision``, ``milkit``;
* ``features`` (n_cells, dim), float16 or float32, in the cohort's row order, as ONE uncompressed chunk, so that a
  local store can be memory-mapped; the row of a cell that could not be read is NaN;
* ``rows`` (n_groups, 2) int64: first and one-past-last row of each group. A group is a patient, or a block of 1,024
  cells in a cohort without patients;
* ``image_sha256`` (n_cells, 32) uint8: digest of each image file's bytes, zeros where the file is missing;
* ``checksums`` (n_groups, 32) uint8: SHA-256 over the bytes of a group's ``features`` and ``image_sha256``;
* ``committed`` (n_groups,) bool: a group's own byte, set after the group's other bytes have reached the disk.

Strings stay outside Zarr: ``patients.csv`` (group id first, then label and covariates), ``cells.csv`` and, where cells
could not be read, ``failures.csv`` (patient_id, cell_id, path, reason). Two further files MAY be there: ``source.json``
(where the images lie, times of day) and ``lock``. Everything but ``source.json`` is the same whenever the same images
are encoded with the same settings, also after being killed and resumed.

One process writes a store at a time (an advisory lock). A store of a newer version is refused by name.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bag_files import acquire_lock, chunk, make_arrays, map_chunk, put, read_attributes, write_attributes
from milkit.errors import StoreError
from milkit.runs import whole_folder
from milkit.tables import CELL_COLUMNS, digest, read_table, write_table

BLOCK = 1024
"""Cells of a group in a cohort without patients."""


class Bag(NamedTuple):
    """One patient's cells: ``features`` (n_cells, dim) float32 and the ids of the rows."""

    patient_id: str
    features: npt.NDArray[np.float32]
    cell_ids: tuple[str, ...]


class BagStore:
    """A store on disk, opened for reading or (``writable``) for adding the groups that are pending."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Open; raises ``StoreError`` when there is no store, it is of a newer format, or another process writes it."""
        self.path = path
        self.attributes = read_attributes(path)
        self.patients = read_table(path / "patients.csv").set_index("patient_id")
        self.cells = read_table(path / "cells.csv")
        self.dim = int(self.attributes["dim"])
        self.dtype: np.dtype[Any] = np.dtype(self.attributes["dtype"])
        self._lock = acquire_lock(path) if writable else None
        n_cells, n_groups = len(self.cells), len(self.patients)
        self._rows = self._map("rows", np.int64, (n_groups, 2))
        self._features = self._map("features", self.dtype, (n_cells, self.dim))
        self._digests = self._map("image_sha256", np.uint8, (n_cells, 32))
        self._checksums = self._map("checksums", np.uint8, (n_groups, 32))
        self._committed = self._map("committed", np.bool_, (n_groups,))
        self._position = {group: position for position, group in enumerate(self.patients.index)}

    @classmethod
    def create(
        cls, path: Path, patients: pd.DataFrame, cells: pd.DataFrame, dim: int, made_of: Mapping[str, Any]
    ) -> "BagStore":
        """Make an empty store, whole or not at all, and open it for writing.

        Args:
            path: The new folder.
            patients: Index ``patient_id`` in the order of the cells; empty for a cohort without patients.
            cells: One row a cell, the cells of a patient together: ``cell_id``, ``patient_id``, ``path``.
            dim: Length of a feature vector.
            made_of: The attributes of the format's first rule, ``dtype`` among them; plain values.
        """
        patients, rows = _groups(patients, cells)
        with whole_folder(path) as folder:
            table = patients.rename_axis("patient_id").reset_index()
            make_arrays(folder, rows, len(cells), {"dim": dim, **made_of, "patients_digest": digest(table)})
            write_table(folder / "patients.csv", table)
            write_table(folder / "cells.csv", cells)
        return cls(path, writable=True)

    @classmethod
    def open(cls, path: Path) -> "BagStore":
        """Open a complete store for reading; one with pending groups is a ``StoreError``."""
        store = cls(path)
        if pending := store.pending():
            msg = (
                f"The store {path} lacks {len(pending)} of {len(store.patients)} patients; "
                "run the same `milkit extract` again, it goes on where it stopped."
            )
            raise StoreError(msg)
        return store

    def pending(self) -> list[str]:
        """Groups that are not committed yet, in order."""
        return [str(group) for group, done in zip(self.patients.index, self._committed, strict=True) if not done]

    def rows_of(self, patient_id: str) -> slice:
        """The rows of one group's cells, in ``features`` and in ``cells``."""
        if patient_id not in self._position:
            msg = f"The store {self.path} has no patient '{patient_id}'; its patients.csv lists those that it holds."
            raise StoreError(msg)
        first, last = self._rows[self._position[patient_id]]
        return slice(int(first), int(last))

    def write(
        self,
        patient_id: str,
        features: npt.NDArray[np.floating[Any]],
        image_sha256: npt.NDArray[np.uint8],
        failures: Mapping[str, str],
    ) -> None:
        """Write one group and commit it.

        Args:
            patient_id: The group.
            features: (n_cells, dim); NaN rows for cells that could not be read.
            image_sha256: (n_cells, 32), digests of the image files.
            failures: Reason by cell id, for the cells that could not be read.
        """
        if self._lock is None:
            msg = f"The store {self.path} was opened for reading; open it with writable=True to add patients."
            raise StoreError(msg)
        rows, position = self.rows_of(patient_id), self._position[patient_id]
        expected = (rows.stop - rows.start, self.dim)
        if features.shape != expected or image_sha256.shape != (expected[0], 32):
            msg = (
                f"Patient '{patient_id}' was given features {features.shape} and digests {image_sha256.shape}, "
                f"expected {expected} and ({expected[0]}, 32); give one row a cell in the store's order."
            )
            raise StoreError(msg)
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(features, dtype=self.dtype)
        ids = self.cells["cell_id"].iloc[rows]
        wrong = [
            cell for cell, row in zip(ids, stored, strict=True) if cell not in failures and not np.isfinite(row).all()
        ]
        if wrong:
            msg = (
                f"Cell '{wrong[0]}' was given features that are not finite as {self.dtype}, without a reason; "
                "list it among the failures, or store the features as float32."
            )
            raise StoreError(msg)
        digests = np.ascontiguousarray(image_sha256)
        self._add_failures(patient_id, rows, failures)
        self._put("features", stored, rows.start * self.dim * self.dtype.itemsize)
        self._put("image_sha256", digests, rows.start * 32)
        self._put("checksums", _checksum(stored, digests), position * 32)
        self._put("committed", np.ones(1, dtype=np.bool_), position)  # last: the group is there from now on

    def __getitem__(self, patient_id: str) -> Bag:
        """One patient's bag, as float32."""
        rows = self.rows_of(patient_id)
        features = np.asarray(self._features[rows], dtype=np.float32)
        return Bag(patient_id, features, tuple(self.cells["cell_id"].iloc[rows]))

    def __iter__(self) -> Iterator[Bag]:
        """All bags in the store's order."""
        return (self[str(patient_id)] for patient_id in self.patients.index)

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.patients)

    @property
    def failures(self) -> pd.DataFrame:
        """Cells that could not be read: patient_id, cell_id, path, reason."""
        path = self.path / "failures.csv"
        columns = ["patient_id", "cell_id", "path", "reason"]
        return read_table(path) if path.is_file() else pd.DataFrame(columns=columns)

    def replace_patients(self, patients: pd.DataFrame, classes: Sequence[str]) -> None:
        """Take over labels, classes and covariates of the same patients, as a corrected table has them."""
        if list(patients.index) != list(self.patients.index):
            msg = f"The store {self.path} holds other patients than the table; extract the cohort into a new store."
            raise StoreError(msg)
        table = patients.rename_axis("patient_id").reset_index()
        write_table(self.path / "patients.csv", table)
        write_attributes(self.path, {"classes": list(classes), "patients_digest": digest(table)})
        self.patients, self.attributes = patients, read_attributes(self.path)

    def retry_failed(self) -> None:
        """Make the groups with unreadable cells pending again, so that mended images are read."""
        for group in self.failures["patient_id"].unique():
            self._put("committed", np.zeros(1, dtype=np.bool_), self._position[str(group)])

    def verify(self) -> list[str]:
        """Read everything and say what is wrong, one sentence each; an empty list means that the store is sound."""
        faults = [f"patient '{group}' is not committed" for group in self.pending()]
        if digest(self.cells[list(CELL_COLUMNS)]) != self.attributes["cohort_digest"]:
            faults.append("cells.csv is not the table that was written")
        if hashlib.sha256((self.path / "patients.csv").read_bytes()).hexdigest() != self.attributes["patients_digest"]:
            faults.append("patients.csv is not the table that was written")
        for group, position in self._position.items():
            rows = self.rows_of(str(group))
            found = _checksum(np.asarray(self._features[rows]), np.asarray(self._digests[rows]))
            if self._committed[position] and not np.array_equal(found, self._checksums[position]):
                faults.append(f"the bytes of patient '{group}' are not those that were written")
        return faults

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _map(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Memory-map an array; zarr's own reader takes 45 times as long for one bag (its cost is per call)."""
        return map_chunk(chunk(self.path, name, len(shape)), dtype, shape)

    def _put(self, name: str, values: npt.NDArray[Any], offset: int) -> None:
        put(chunk(self.path, name, 1 if name == "committed" else 2), values, offset)

    def _add_failures(self, patient_id: str, rows: slice, failures: Mapping[str, str]) -> None:
        known = self.failures
        others = known[known["patient_id"] != patient_id]
        cells = self.cells.iloc[rows]
        mine = cells.loc[cells["cell_id"].isin(list(failures)), ["cell_id", "path"]].assign(patient_id=patient_id)
        mine["reason"] = mine["cell_id"].map(dict(failures))
        if len(mine) or len(others) < len(known):
            table = pd.concat([others, mine[others.columns]])
            order = np.argsort(table["patient_id"].map(self._position).to_numpy(), kind="stable")
            if len(table):
                write_table(self.path / "failures.csv", table.iloc[order])
            else:
                (self.path / "failures.csv").unlink()


def _groups(patients: pd.DataFrame, cells: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    if len(patients):
        counts = cells["patient_id"].value_counts().reindex(patients.index).to_numpy()
        if not np.array_equal(np.repeat(patients.index.to_numpy(), counts), cells["patient_id"].to_numpy()):
            msg = "The cells are not sorted like the patients; give both tables of a Cohort, which sorts them."
            raise StoreError(msg)
        ends = np.cumsum(counts)
        return patients, np.stack([ends - counts, ends], axis=1).astype(np.int64)
    starts = np.arange(0, len(cells), BLOCK, dtype=np.int64)
    index = pd.Index([f"block-{number:05d}" for number in range(len(starts))], name="patient_id")
    return pd.DataFrame(index=index), np.stack([starts, np.minimum(starts + BLOCK, len(cells))], axis=1)


def _checksum(features: npt.NDArray[Any], digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(features.tobytes() + digests.tobytes()).digest(), dtype=np.uint8)
