"""The files of a bag store, format 1: arrays, attributes and the lock. ``milkit.bags`` says what they mean."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.errors import StoreError
from milkit.runs import write_text

FORMAT = "milkit-bags"
VERSION = 1


def make_arrays(folder: Path, rows: npt.NDArray[np.int64], n_cells: int, attributes: Mapping[str, Any]) -> None:
    """Make the Zarr group with its five arrays, each one uncompressed chunk of full size, all zero but ``rows``."""
    import zarr

    n_groups = len(rows)
    arrays = {
        "features": ((n_cells, int(attributes["dim"])), str(attributes["dtype"])),
        "rows": ((n_groups, 2), "int64"),
        "image_sha256": ((n_cells, 32), "uint8"),
        "checksums": ((n_groups, 32), "uint8"),
        "committed": ((n_groups,), "bool"),
    }
    group = zarr.create_group(
        store=folder, attributes={"format": FORMAT, "version": VERSION, **attributes}, overwrite=True
    )
    for name, (shape, dtype) in arrays.items():
        array = group.create_array(name, shape=shape, chunks=shape, dtype=dtype, compressors=None)
        path = chunk(folder, name, len(shape))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(int(np.prod(shape)) * array.dtype.itemsize)
    chunk(folder, "rows", 2).write_bytes(rows.astype("<i8").tobytes())


def chunk(store: Path, name: str, n_axes: int) -> Path:
    """The file that holds an array's one chunk (Zarr v3, default chunk key encoding)."""
    return store.joinpath(name, "c", *["0"] * n_axes)


def map_chunk(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Memory-map a chunk for reading; a file of another size is a ``StoreError``."""
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    found = path.stat().st_size if path.is_file() else 0
    if found != expected:
        msg = (
            f"{path} has {found} bytes where the store's tables ask for {expected}; the store is damaged, so move its "
            "folder away and extract again."
        )
        raise StoreError(msg)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def put(path: Path, values: npt.NDArray[Any], offset: int) -> None:
    """Write bytes at an offset of a chunk, and wait until they have reached the disk."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a store; what is no store, or of a newer version, is a ``StoreError``."""
    metadata = path / "zarr.json"
    if not metadata.is_file():
        msg = f"There is no bag store at {path}; make one with `milkit extract`."
        raise StoreError(msg)
    try:
        attributes: dict[str, Any] = json.loads(metadata.read_text(encoding="utf-8")).get("attributes", {})
    except ValueError:
        msg = f"{metadata} is not valid JSON; the store is damaged, so move its folder away and extract again."
        raise StoreError(msg) from None
    if attributes.get("format") != FORMAT:
        msg = f"{path} is a Zarr group but not a bag store; make one with `milkit extract`."
        raise StoreError(msg)
    if int(attributes["version"]) > VERSION:
        msg = (
            f"The store {path} has format version {attributes['version']}, this milkit reads up to version {VERSION}; "
            "update milkit, or extract the cohort again."
        )
        raise StoreError(msg)
    return attributes


def write_attributes(path: Path, changes: Mapping[str, Any]) -> None:
    """Change some attributes of a store, the others staying as they are."""
    metadata = path / "zarr.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["attributes"] |= changes
    write_text(metadata, json.dumps(content, indent=2))


def acquire_lock(path: Path) -> int:
    """Hold an advisory lock that dies with the process, so that none is ever left behind."""
    handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # no advisory locks on this system: two writers are then the user's care
        pass
    except OSError:
        os.close(handle)
        msg = f"Another process is writing the store {path}; wait until it has finished, then run the command again."
        raise StoreError(msg) from None
    return handle
