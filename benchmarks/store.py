"""The bag store against other ways to keep features, in one run: ``python benchmarks/store.py [--json FILE]``.

Every way keeps the same bags in the same number type, and gives back the same arrays, which is checked:

memory        the bags in this process's memory: copying them is the floor
npy           one ``.npy`` of all cells; a bag is a slice of its memory map
milkit        the bag store (one uncompressed Zarr chunk, read as a file)
hdf5          one HDF5 a patient, contiguous (CLAM, TRIDENT)
pt            one ``.pt`` a patient (CLAM), read with ``weights_only``
zarr          Zarr's default chunks and codec
zarr 512      Zarr, chunks of 512 cells, no codec

Columns, medians over rounds in which the ways take turns, page cache warm:

load          from the path to one array (cells × dim) of all cells, in the stored type, opening included
train         from the path to what training takes, a float32 tensor of all cells; for milkit with all that training
              does itself: the ids of the cells, and leaving out those that could not be read
bag           one patient's bag as float32, the patients in random order; the store is open, files a patient are not
open          opening: of the store, or of one patient's file
write         until all bytes have reached the disk; milkit waits for that patient by patient, the others at the end
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BARS = {"load_over_npload": 1.5, "open_ms": 50.0, "bag_over_hdf5": 1.0}


class Memory:
    """The floor: nothing is read."""

    def __init__(self, folder: Path, bags: list[Array]) -> None:
        """Get ready to write the bags."""
        self.folder, self.bags = folder, bags
        self.sizes = [len(bag) for bag in bags]
        self.offsets = np.cumsum([0, *self.sizes]).tolist()
        self.shape = (self.offsets[-1], bags[0].shape[1])

    def write(self) -> None:
        """Write all bags."""
        self.whole = np.concatenate(self.bags)

    def open(self) -> Any:
        """What is opened once, before bags are read."""

    def load(self) -> Array:
        """All cells of all bags in one array."""
        return self.whole.copy()

    def train(self) -> Any:
        """All cells as a float32 tensor."""
        import torch

        return torch.from_numpy(self.load()).float()

    def bag(self, opened: Any, number: int) -> Array:
        """One bag as float32."""
        return self.bags[number].astype(np.float32)


class Npy(Memory):
    """One ``.npy`` of all cells."""

    def write(self) -> None:
        """Write all bags."""
        np.save(self.folder / "all.npy", np.concatenate(self.bags))

    def open(self) -> Any:
        """The memory map."""
        return np.load(self.folder / "all.npy", mmap_mode="r")

    def load(self) -> Array:
        """All cells of all bags in one array."""
        whole: Array = np.load(self.folder / "all.npy")
        return whole

    def bag(self, opened: Any, number: int) -> Array:
        """One bag as float32."""
        return np.array(opened[self.offsets[number] : self.offsets[number + 1]], dtype=np.float32)


class Milkit(Memory):
    """The bag store."""

    def __init__(self, folder: Path, bags: list[Array]) -> None:
        """Make the tables that a cohort has before it is extracted."""
        import pandas as pd

        super().__init__(folder, bags)
        self.names = [f"P{number:04d}" for number in range(len(bags))]
        ids = [
            (f"{name}/image_{n}", name) for name, size in zip(self.names, self.sizes, strict=True) for n in range(size)
        ]
        self.cells = pd.DataFrame(ids, columns=["cell_id", "patient_id"])
        self.cells["path"] = "data/" + self.cells["cell_id"] + ".tif"
        self.patients = pd.DataFrame({"label": "A"}, index=pd.Index(self.names, name="patient_id"))

    def write(self) -> None:
        """Write all bags."""
        from milkit.bags import BagStore

        facts = {
            "dtype": self.bags[0].dtype.name,
            "cohort": "b",
            "classes": ["A"],
            "encoder": "b",
            "encoder_digest": "",
        }
        store = BagStore.create(self.folder / "bags.zarr", self.patients, self.cells, self.shape[1], facts)
        for name, bag in zip(self.names, self.bags, strict=True):
            store.write(name, bag, np.zeros((len(bag), 32), dtype=np.uint8), {})
        store.finish()
        store.close()

    def open(self) -> Any:
        """The store."""
        from milkit.bags import BagStore

        return BagStore.open(self.folder / "bags.zarr")

    def load(self) -> Array:
        """All cells of all bags in one array."""
        features: Array = self.open().load()
        return features

    def train(self) -> Any:
        """What `milkit train-mil` holds of a store."""
        import torch

        from milkit.mil.batches import Bags

        return Bags.load(self.open(), torch.device("cpu")).features

    def bag(self, opened: Any, number: int) -> Array:
        """One bag as float32."""
        features: Array = opened[self.names[number]].features
        return features


class Hdf5(Memory):
    """One HDF5 a patient."""

    def write(self) -> None:
        """Write all bags."""
        import h5py

        for number, bag in enumerate(self.bags):
            with h5py.File(self.folder / f"{number}.h5", "w") as file:
                file["features"] = bag

    def open(self) -> Any:
        """One patient's file."""
        import h5py

        h5py.File(self.folder / "0.h5", "r").close()

    def load(self) -> Array:
        """All cells of all bags in one array."""
        import h5py

        whole = np.empty(self.shape, dtype=self.bags[0].dtype)
        for number, (first, last) in enumerate(zip(self.offsets, self.offsets[1:], strict=False)):
            with h5py.File(self.folder / f"{number}.h5", "r") as file:
                file["features"].read_direct(whole, dest_sel=np.s_[first:last])
        return whole

    def bag(self, opened: Any, number: int) -> Array:
        """One bag as float32."""
        import h5py

        with h5py.File(self.folder / f"{number}.h5", "r") as file:
            bag: Array = file["features"][:]
        return bag.astype(np.float32)


class Pt(Memory):
    """One ``.pt`` a patient."""

    def write(self) -> None:
        """Write all bags."""
        import torch

        for number, bag in enumerate(self.bags):
            torch.save(torch.from_numpy(bag), self.folder / f"{number}.pt")

    def open(self) -> Any:
        """One patient's file."""
        self._read(0)

    def load(self) -> Array:
        """All cells of all bags in one array."""
        import torch

        whole: Array = torch.cat([self._read(number) for number in range(len(self.bags))]).numpy()
        return whole

    def bag(self, opened: Any, number: int) -> Array:
        """One bag as float32."""
        bag: Array = self._read(number).float().numpy()
        return bag

    def _read(self, number: int) -> Any:
        import torch

        return torch.load(self.folder / f"{number}.pt", weights_only=True)


class Zarr(Memory):
    """One Zarr array with Zarr's own settings."""

    settings: dict[str, Any] = {}  # noqa: RUF012

    def write(self) -> None:
        """Write all bags."""
        import zarr

        path, dtype = self.folder / "all.zarr", self.bags[0].dtype
        array = zarr.create_array(path, shape=self.shape, dtype=dtype, **self.settings)
        array[:] = np.concatenate(self.bags)  # bag by bag, chunks that two bags share would be written twice

    def open(self) -> Any:
        """The array."""
        import zarr

        return zarr.open_array(self.folder / "all.zarr", mode="r")

    def load(self) -> Array:
        """All cells of all bags in one array."""
        whole: Array = self.open()[:]
        return whole

    def bag(self, opened: Any, number: int) -> Array:
        """One bag as float32."""
        bag: Array = opened[self.offsets[number] : self.offsets[number + 1]]
        return bag.astype(np.float32)


class Zarr512(Zarr):
    """One Zarr array, in chunks of 512 cells without a codec."""

    @property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """Chunks of whole rows."""
        return {"chunks": (min(512, self.shape[0]), self.shape[1]), "compressors": None}


WAYS = {"memory": Memory, "npy": Npy, "milkit": Milkit, "hdf5": Hdf5, "pt": Pt, "zarr": Zarr, "zarr 512": Zarr512}
COLUMNS = ("load", "train", "bag", "open")


def main() -> None:
    """Measure, print the table, and write the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--patients", type=int, default=242)
    parser.add_argument("--cells", type=int, default=421, help="Cells of a patient, on average.")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="Where to write meanwhile; the system's place for such files.")
    given = parser.parse_args()
    random = np.random.default_rng(0)
    sizes = random.integers(given.cells - given.cells // 3, given.cells + given.cells // 3 + 1, given.patients)
    bags = [random.standard_normal((size, given.dim), dtype=np.float32).astype(given.dtype) for size in sizes]
    with tempfile.TemporaryDirectory(prefix="milkit-benchmark-", dir=given.folder) as folder:
        results = measure(Path(folder), bags, given.rounds)
    results |= {"patients": given.patients, "cells": int(sizes.sum()), "dim": given.dim, "dtype": given.dtype}
    show(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, bags: list[Array], rounds: int) -> dict[str, Any]:
    """Write the bags in every way, check that they come back, and let the ways take turns."""
    import h5py  # noqa: F401  # imported here, so that no way pays for it
    import torch  # noqa: F401
    import zarr  # noqa: F401

    figures, ways = dict[str, dict[str, Any]](), dict[str, Memory]()
    for name, kind in WAYS.items():
        (folder / name).mkdir()
        ways[name] = way = kind(folder / name, bags)
        written = timed(partial(on_disk, way))
        files = [path for path in way.folder.rglob("*") if path.is_file()]
        figures[name] = {"write_mb_s": sum(bag.nbytes for bag in bags) / written / 1e6, "files": len(files)}
        figures[name] |= {"size_mb": sum(path.stat().st_size for path in files) / 1e6}
        check(way, bags)
    times = {name: {column: list[float]() for column in COLUMNS} for name in ways}
    for number in range(rounds + 1):
        order = np.random.default_rng(number).permutation(len(bags)).tolist()
        for name, way in ways.items():
            taken = one_round(way, order)
            for column in COLUMNS if number else ():  # the first round only warms up
                times[name][column].append(taken[column])
    for name, columns in times.items():
        figures[name] |= {f"{column}_ms": statistics.median(values) * 1e3 for column, values in columns.items()}
        figures[name]["load_spread_ms"] = [min(columns["load"]) * 1e3, max(columns["load"]) * 1e3]
    return {
        "load_over_npload": figures["milkit"]["load_ms"] / figures["npy"]["load_ms"],
        "open_ms": figures["milkit"]["open_ms"],
        "bag_over_hdf5": figures["milkit"]["bag_ms"] / figures["hdf5"]["bag_ms"],
        "train_over_npload": figures["milkit"]["train_ms"] / figures["npy"]["train_ms"],
        "rounds": rounds,
        "ways": figures,
    }


def on_disk(way: Memory) -> None:
    """Write the bags, and wait until all files have reached the disk."""
    way.write()
    for path in way.folder.rglob("*"):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def check(way: Memory, bags: list[Array]) -> None:
    """A way that gives back other bags than it was given has no place in the table."""
    whole, opened = np.concatenate(bags), way.open()
    np.testing.assert_array_equal(way.load(), whole, strict=True)
    np.testing.assert_array_equal(way.train().numpy(), whole.astype(np.float32), strict=True)
    for number in (0, len(bags) - 1):
        np.testing.assert_array_equal(way.bag(opened, number), bags[number].astype(np.float32), strict=True)


def one_round(way: Memory, order: list[int]) -> dict[str, float]:
    """Seconds of each column."""
    opened = way.open()
    way.bag(opened, order[0])  # what is read once, such as a table of ids, is no part of a bag's time
    bags = timed(lambda: [len(way.bag(opened, number)) for number in order])
    return {"load": timed(way.load), "train": timed(way.train), "bag": bags / len(order), "open": timed(way.open)}


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes; what it returns is freed after that."""
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    del result
    return seconds


def show(results: dict[str, Any]) -> None:
    """Print the table and the bars."""
    ways, floor = results["ways"], results["ways"]["memory"]
    print(
        f"{results['patients']} patients, {results['cells']} cells x {results['dim']} {results['dtype']}; medians of "
        f"{results['rounds']} rounds; x is over the floor, the same bags in memory"
    )
    print(f"{'way':<10}{'load ms':>9}{'x':>6}{'train ms':>10}{'x':>6}{'bag ms':>8}{'x':>6}{'open ms':>9}", end="")
    print(f"{'write MB/s':>12}{'files':>7}{'MB':>8}")
    for name, way in ways.items():
        cells = [f"{name:<10}"]
        for column, width, digits in (("load_ms", 9, 1), ("train_ms", 10, 1), ("bag_ms", 8, 3)):
            cells.append(f"{way[column]:>{width}.{digits}f}{way[column] / floor[column]:>6.1f}")
        kept = way["files"] > 0
        cells.append(f"{way['open_ms']:>9.2f}" if kept else f"{'-':>9}")
        cells.append(f"{way['write_mb_s']:>12.0f}{way['files']:>7}{way['size_mb']:>8.1f}" if kept else f"{'-':>12}")
        print("".join(cells))
    for key, bar in BARS.items():
        print(f"{key} {results[key]:.2f}, bar {bar:g}: {'met' if results[key] <= bar else 'MISSED'}")
    print(f"train_over_npload {results['train_over_npload']:.2f}")


if __name__ == "__main__":
    main()
