"""Stores of simulated labelled cells for the tests of probes and batch reports."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from toys import made_of

from milkit.bags import BagStore
from milkit.tables import cells_digest

COUNTS = {"BAS": 30, "LYT": 45, "MON": 24}


def labelled_cells(counts: Mapping[str, int] = COUNTS, *, cohort: str = "toy") -> pd.DataFrame:
    """Cells without patients, the classes mixed among them."""
    types = [name for name, count in counts.items() for _ in range(count)]
    order = np.random.default_rng(1).permutation(len(types))
    ids = [f"{cohort}_{number:05d}" for number in range(len(types))]
    cells = pd.DataFrame({"cell_id": ids, "patient_id": None, "path": [f"{name}.png" for name in ids]})
    return cells.assign(cell_type=np.array(types)[order])


def labelled_store(
    path: Path,
    cells: pd.DataFrame | None = None,
    *,
    features: np.ndarray | None = None,
    separation: float = 2.0,
    dim: int = 8,
    seed: int = 0,
    failed: tuple[int, ...] = (),
    files: list[int] | None = None,
    **other: object,
) -> BagStore:
    """A store of these cells; without ``features``, noise around a centre for each class, ``separation`` spreads apart.

    Cells with the same number in ``files`` come from files with the same bytes, those with -1 from unknown ones;
    ``failed`` rows could not be read.
    Where the cells have patients, each has the label of its number's parity and a site of its number modulo 3.
    """
    cells = labelled_cells() if cells is None else cells
    if features is None:
        generator = np.random.default_rng(seed)
        codes, names = pd.factorize(cells["cell_type"], sort=True)
        centres = np.eye(len(names), dim) * separation
        features = centres[codes] + generator.normal(size=(len(cells), dim))
    features = np.array(features, dtype=np.float32)
    ids = sorted(cells["patient_id"].dropna().unique())
    patients = pd.DataFrame(
        {"label": [("A", "B")[n % 2] for n in range(len(ids))], "site": [f"site {n % 3}" for n in range(len(ids))]},
        index=pd.Index(ids, name="patient_id"),
    )
    facts = made_of(cohort_digest=cells_digest(cells), classes=[]) | other
    store = BagStore.create(path, patients if ids else patients.iloc[:0], cells, features.shape[1], facts)
    numbers = np.arange(len(cells)) if files is None else np.array(files)
    digests = np.stack([np.frombuffer(int(n).to_bytes(32, "big"), dtype=np.uint8) for n in numbers + 1])
    for group in store.pending():
        rows = store.rows_of(group)
        reasons = {store.cells["cell_id"].iloc[row]: "torn" for row in failed if rows.start <= row < rows.stop}
        store.write(group, features[rows], digests[rows], reasons)
    store.close()
    return BagStore.open(path)


def with_patients(cells: pd.DataFrame, n_patients: int) -> pd.DataFrame:
    """The same cells as those of patients P00, P01, …, about equally many each, in the patients' order."""
    names = [f"P{row * n_patients // len(cells):02d}" for row in range(len(cells))]
    return cells.assign(patient_id=names)
