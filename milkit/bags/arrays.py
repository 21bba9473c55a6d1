"""The five arrays of a bag store, format 1: their files, and reading and writing ranges of them.

``milkit.bags`` says what the arrays mean.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.errors import StoreError

_CACHE_LINE = 64
"""Bytes. The system copies a file a third faster into memory that starts on such a boundary, as numpy's does not."""


class BagArrays:
    """The arrays of a store, whose sizes must follow from its patients and its attributes.

    They are read, not memory-mapped: a file that is cut short, or cannot be read, is then an error and not the end of
    the process. For one bag the two take the same time.

    Attributes:
        rows: (n_groups, 2) first and one-past-last row of each group.
    """

    def __init__(self, path: Path, n_groups: int, dim: int, dtype: str) -> None:
        """Check the size of every array; one that does not fit is a ``StoreError``."""
        self._layout = _layout(n_groups, 0, dim, dtype)
        self._files = {name: chunk(path, name) for name in self._layout}
        self._check_size("rows")
        self.rows: npt.NDArray[np.int64] = self.read("rows")
        starts, ends = self.rows.T
        if not n_groups or not np.array_equal(starts, [0, *ends[:-1]]) or (starts > ends).any():
            msg = (
                f"{self._files['rows']} does not divide the cells into groups; the store is damaged, so move its "
                "folder away and extract again."
            )
            raise StoreError(msg)
        self._layout = _layout(n_groups, int(ends[-1]), dim, dtype)
        for name in self._layout:
            self._check_size(name)

    @property
    def n_cells(self) -> int:
        """Number of rows of ``features``."""
        return int(self.rows[-1, 1])

    def read(self, name: str, first: int = 0, last: int | None = None) -> npt.NDArray[Any]:
        """Rows ``first`` to ``last`` (exclusive; all by default) of an array, in new memory."""
        shape, dtype = self._layout[name]
        shape = ((shape[0] if last is None else last) - first, *shape[1:])
        size = shape[0] * self._row_bytes(name)
        room = np.empty(size + _CACHE_LINE, dtype=np.uint8)
        values = room[-room.ctypes.data % _CACHE_LINE :][:size]
        with self._files[name].open("rb") as file:
            file.seek(first * self._row_bytes(name))
            if file.readinto(values.data) < size:
                self._check_size(name)
        return values.view(dtype).reshape(shape)

    def write(self, name: str, values: npt.NDArray[Any], first: int) -> None:
        """Write rows of an array from ``first`` on, and wait until they have reached the disk."""
        with self._files[name].open("r+b") as file:
            file.seek(first * self._row_bytes(name))
            file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def marks(self) -> npt.NDArray[np.uint8]:
        """The byte of each group in ``committed``: 1 where the group is there, 0 where it is pending."""
        return self.read("committed").view(np.uint8)

    def is_committed(self, position: int) -> bool:
        """Whether a group is there."""
        return bool(self.read("committed", position, position + 1).view(np.uint8)[0] == 1)

    def mark(self, position: int, *, committed: bool) -> None:
        """Commit a group, or make it pending."""
        self.write("committed", np.array([committed]), position)

    def _row_bytes(self, name: str) -> int:
        shape, dtype = self._layout[name]
        return math.prod(shape[1:]) * np.dtype(dtype).itemsize

    def _check_size(self, name: str) -> None:
        file, expected = self._files[name], self._layout[name][0][0] * self._row_bytes(name)
        found = file.stat().st_size if file.is_file() else 0
        if found != expected:
            msg = (
                f"{file} has {found} bytes where the store's tables ask for {expected}; the store is damaged, so move "
                "its folder away and extract again."
            )
            raise StoreError(msg)


def make_arrays(folder: Path, rows: npt.NDArray[np.int64], dim: int, dtype: str) -> list[Path]:
    """Make a Zarr group with the arrays, each one uncompressed chunk of full size, all zero but ``rows``.

    Returns the files that will never change: each array's ``zarr.json``, and the chunk of ``rows``.
    """
    import zarr

    group = zarr.create_group(store=folder)
    layout = _layout(len(rows), int(rows[-1, 1]), dim, dtype)
    for name, (shape, kind) in layout.items():
        array = group.create_array(name, shape=shape, chunks=shape, dtype=kind, compressors=None)
        file = chunk(folder, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as new:
            new.truncate(math.prod(shape) * array.dtype.itemsize)
    chunk(folder, "rows").write_bytes(rows.astype("<i8").tobytes())
    return [chunk(folder, "rows"), *(folder / name / "zarr.json" for name in layout)]


def chunk(store: Path, name: str) -> Path:
    """The file that holds an array's one chunk (Zarr v3, default chunk key encoding)."""
    return store.joinpath(name, "c", *["0"] * (1 if name == "committed" else 2))


def _layout(n_groups: int, n_cells: int, dim: int, dtype: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array."""
    return {
        "features": ((n_cells, dim), dtype),
        "rows": ((n_groups, 2), "int64"),
        "image_sha256": ((n_cells, 32), "uint8"),
        "checksums": ((n_groups, 32), "uint8"),
        "committed": ((n_groups,), "bool"),
    }
