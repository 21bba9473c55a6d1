"""BagStore: the features of every cell of one cohort under one encoder, in one Zarr v3 group. Format 1.

A store is a folder that any Zarr v3 reader opens. It MUST hold

* the group attributes ``format`` ("milkit-bags"), ``version`` (1), ``dim``, ``dtype``, and what made it: ``cohort``,
  ``cohort_digest``, ``patients_digest``, ``classes``, ``encoder``, ``encoder_digest``, ``transform``, ``batch_size``,
  ``backend``, ``precision``, ``milkit``; further ones (``ids``, ``encoder_seen``, …) MAY say more;
* the attributes ``files_sha256`` (of the files that never change: ``cells.csv``, ``rows``, each array's ``zarr.json``)
  and ``attributes_digest``, SHA-256 over the rest of the group's ``zarr.json``;
* ``features`` (n_cells, dim), float16 or float32, in the cohort's row order, as ONE uncompressed chunk, so that a
  bag is a range of bytes; the row of a cell that could not be read is NaN;
* ``rows`` (n_groups, 2) int64: first and one-past-last row of each group. A group is a patient, or a block of 1,024
  cells in a cohort without patients;
* ``image_sha256`` (n_cells, 32) uint8: digest of each image file's bytes, zeros where the file is missing;
* ``checksums`` (n_groups, 32) uint8: SHA-256 over the bytes of a group's ``features`` and ``image_sha256`` and, where
  cells could not be read, its lines in ``failures.csv``;
* ``committed`` (n_groups,) bool: a group's own byte, set after the group's other bytes have reached the disk. What is
  not committed is never read.

Strings stay outside Zarr: ``patients.csv`` (group id first, then label and covariates), ``cells.csv`` and, where cells
could not be read, ``failures.csv`` (patient_id, cell_id, path, reason). Further files MAY be there: ``source.json``
(where the images lie, times of day), ``lock``, ``ranks`` and, until they are merged, the journals of failures.
Everything but ``source.json`` is the same whenever the same images are encoded with the same batch size, backend,
precision and threads, also after being killed and resumed, and by however many ranks.

One process, or the ranks of one job, write a store at a time (``milkit.bags.lock``). A store of a newer version is
refused by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import files, tables
from milkit.bags.arrays import BagArrays, make_arrays
from milkit.bags.checks import accepted, checksum, content_faults
from milkit.bags.files import read_attributes, room_in, write_attributes
from milkit.bags.lock import acquire_lock, join_lock, release_lock
from milkit.errors import StoreError
from milkit.runs import whole_folder
from milkit.tables import cells_digest, digest, write_table

BLOCK = 1024
"""Cells of a group in a cohort without patients."""


class Bag(NamedTuple):
    """One patient's cells: ``features`` (n_cells, dim) float32 and the ids of the rows."""

    patient_id: str
    features: npt.NDArray[np.float32]
    cell_ids: tuple[str, ...]


class BagStore:
    """A store on disk, opened for reading or (``writable``) for adding the groups that are pending."""

    def __init__(self, path: Path, *, writable: bool = False, rank: int = 0) -> None:
        """Open a store.

        Args:
            path: Its folder.
            writable: Whether groups are to be added; rank 0 then holds the store's lock until ``close``.
            rank: Of this process among those of one job, which write disjoint groups. The others take no lock: the
                caller sees to it that rank 0 opens the store before them, and finishes and closes it after them.

        Raises:
            StoreError: There is no store, it is damaged or of a newer format, or another process writes it.
        """
        self.path, self.rank = path, rank
        self.attributes = read_attributes(path)
        self.dim, self.dtype = int(self.attributes["dim"]), np.dtype(self.attributes["dtype"])
        self._writable, self._lock = writable, None
        self._journalled: set[str] = set()
        if writable:
            with room_in(path):
                self._lock = acquire_lock(path) if rank == 0 else join_lock(path)
        try:
            self.patients = tables.read_patients(path)
            tables.check_there(path / "cells.csv")
            self._position = {str(group): position for position, group in enumerate(self.patients.index)}
            self._arrays = BagArrays(path, len(self.patients), self.dim, self.dtype.name)
            if writable and rank == 0:
                for partial in path.glob(".*.partial-*"):  # of a writer that was killed
                    partial.unlink()
                self.finish()
        except BaseException:
            self.close()
            raise

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
        patients, rows = tables.divide(patients, cells, BLOCK)
        table = patients.rename_axis("patient_id").reset_index()
        with room_in(path), whole_folder(path) as folder:
            write_table(folder / "patients.csv", table)
            write_table(folder / "cells.csv", cells)
            fixed = [folder / "cells.csv", *make_arrays(folder, rows, dim, made_of["dtype"])]
            facts = {"format": files.FORMAT, "version": files.VERSION, "dim": dim, **made_of}
            facts |= {"patients_digest": digest(table), "files_sha256": files.file_digests(folder, fixed)}
            write_attributes(folder, facts)
            for file in [*fixed, folder]:
                files.sync(file)
        return cls(path, writable=True)

    @classmethod
    def open(cls, path: Path) -> "BagStore":
        """Open a complete store for reading; one with pending groups is a ``StoreError``.

        Where the cohort's ids identify, it is read under study ids, see ``milkit.bags.study``.
        """
        store = cls(path)
        store._refuse_pending()
        if store.attributes.get("ids") == "identifying":
            from milkit.bags.study import StudyStore  # is a store, too

            return StudyStore(path)
        return store

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell, in the order of ``features``; read when it is first asked for."""
        return tables.read_cells(self.path, self.n_cells)

    @property
    def n_cells(self) -> int:
        """Number of cells, without reading their table."""
        return self._arrays.n_cells

    def pending(self) -> list[str]:
        """Groups that are not committed yet, in order."""
        return self._groups(committed=False)

    def rows_of(self, patient_id: str) -> slice:
        """The rows of one group's cells, in ``features`` and in ``cells``."""
        if patient_id not in self._position:
            msg = f"The store {self.path} has no patient '{patient_id}'; its patients.csv lists those that it holds."
            raise StoreError(msg)
        first, last = self._arrays.rows[self._position[patient_id]]
        return slice(int(first), int(last))

    def write(
        self,
        patient_id: str,
        features: npt.NDArray[np.floating[Any]],
        image_sha256: npt.NDArray[np.uint8],
        failures: Mapping[str, str],
    ) -> None:
        """Write one group and commit it; when the disk is full, a ``StoreError``, and the group is pending.

        Args:
            patient_id: The group.
            features: (n_cells, dim); the rows of cells that could not be read become NaN.
            image_sha256: (n_cells, 32), digests of the image files.
            failures: Reason by cell id, for the cells that could not be read.
        """
        if not self._writable:
            msg = f"The store {self.path} was opened for reading; open it with writable=True to add patients."
            raise StoreError(msg)
        rows, position, arrays = self.rows_of(patient_id), self._position[patient_id], self._arrays
        cells = self.cells.iloc[rows]
        expected = (len(cells), self.dim)
        if features.shape != expected or image_sha256.shape != (len(cells), 32):
            msg = (
                f"Patient '{patient_id}' was given features {features.shape} and digests {image_sha256.shape}, "
                f"expected {expected} and ({len(cells)}, 32); give one row a cell in the store's order."
            )
            raise StoreError(msg)
        stored, failed = accepted(patient_id, cells, features, self.dtype, failures)
        with room_in(self.path):
            if was_there := arrays.is_committed(position):
                arrays.mark(position, committed=False)
            if failed or was_there or patient_id in self._journalled:  # a line that may be there holds no longer
                self._journalled.add(patient_id)
                tables.journal(self.path, self.rank, patient_id, failed)
            arrays.write("features", stored, rows.start)
            arrays.write("image_sha256", image_sha256, rows.start)
            arrays.write("checksums", checksum(stored, image_sha256, failed), position)
            arrays.mark(position, committed=True)  # last: the group is there from now on

    def __getitem__(self, patient_id: str) -> Bag:
        """One patient's bag, as float32; a ``StoreError`` where it is pending."""
        rows = self.rows_of(patient_id)
        if not self._arrays.is_committed(self._position[patient_id]):
            msg = (
                f"Patient '{patient_id}' is not in the store {self.path} yet; run the same `milkit extract` again, it "
                "goes on where it stopped."
            )
            raise StoreError(msg)
        features = self._arrays.read("features", rows.start, rows.stop).astype(np.float32, copy=False)
        return Bag(patient_id, features, tuple(self._cell_ids[rows]))

    def __iter__(self) -> Iterator[Bag]:
        """All bags in the store's order."""
        return (self[group] for group in self._position)

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.patients)

    def load(self) -> npt.NDArray[np.floating[Any]]:
        """Read all features at once: (n_cells, dim) in the order of ``cells`` and in the stored type."""
        self._refuse_pending()
        return self._arrays.read("features")

    def image_digests(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of each cell's image file: (n_cells, 32), zeros where it was missing or is unknown."""
        return self._arrays.read("image_sha256")

    @property
    def failures(self) -> pd.DataFrame:
        """Cells of committed groups that could not be read: patient_id, cell_id, path, reason."""
        return tables.failure_table(tables.read_failures(self.path, self._groups(committed=True)))

    def finish(self) -> None:
        """Merge what the ranks noted of failed cells into ``failures.csv``, for rank 0 when all ranks are done."""
        if self._lock is None or self.rank:
            msg = f"The store {self.path} was opened without its lock; finish it as rank 0, with writable=True."
            raise StoreError(msg)
        with room_in(self.path):
            tables.merge_failures(self.path, self._groups(committed=True))

    def replace_patients(self, patients: pd.DataFrame, classes: Sequence[str]) -> None:
        """Take over labels, classes and covariates of the same patients, as a corrected table has them."""
        if list(patients.index) != list(self.patients.index):
            msg = f"The store {self.path} holds other patients than the table; extract the cohort into a new store."
            raise StoreError(msg)
        table = patients.rename_axis("patient_id").reset_index()
        with room_in(self.path):
            write_table(self.path / "patients.csv", table)
            write_attributes(self.path, {"classes": list(classes), "patients_digest": digest(table)})
        self.patients, self.attributes = patients, read_attributes(self.path)

    def replace_cells(self, cells: pd.DataFrame) -> None:
        """Take over labels and further columns of the same cells, as a corrected table has them."""
        if cells_digest(cells) != self.attributes.get("cohort_digest"):
            msg = f"The store {self.path} holds other cells than the table; extract the cohort into a new store."
            raise StoreError(msg)
        known = dict(self.attributes.get("files_sha256", {}))
        if known.get("cells.csv") != digest(cells):
            with room_in(self.path):
                write_table(self.path / "cells.csv", cells)
                write_attributes(self.path, {"files_sha256": known | {"cells.csv": digest(cells)}})
            self.cells, self.attributes = cells, read_attributes(self.path)

    def retry_failed(self) -> None:
        """Make the groups with unreadable cells pending again, so that mended images are read."""
        for group in self.failures["patient_id"].unique():
            self._arrays.mark(self._position[group], committed=False)
        self.finish()

    def verify(self) -> list[str]:
        """Read everything and say what is wrong, one sentence each; an empty list means that the store is sound."""
        faults = files.metadata_faults(self.path)
        try:
            if cells_digest(self.cells) != self.attributes.get("cohort_digest"):
                faults.append("cells.csv does not hold the cells that its cohort_digest is of")
            return faults + content_faults(self.path, self._arrays, list(self._position), self.cells)
        except StoreError as error:
            return [*faults, str(error)]

    def close(self) -> None:
        """Write no more, and let another process do so."""
        self._writable = False
        if self._lock is not None:
            release_lock(self._lock)
            self._lock = None

    def _refuse_pending(self) -> None:
        if pending := self.pending():
            msg = (
                f"The store {self.path} lacks {len(pending)} of {len(self)} patients; "
                "run the same `milkit extract` again, it goes on where it stopped."
            )
            raise StoreError(msg)

    @cached_property
    def _cell_ids(self) -> npt.NDArray[np.object_]:
        return self.cells["cell_id"].to_numpy()

    def _groups(self, *, committed: bool) -> list[str]:
        marks = self._arrays.marks() == 1
        return [group for group, position in self._position.items() if marks[position] == committed]
