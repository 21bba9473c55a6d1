"""A small run with drawn pictures for the tests of maps, and an embedding that needs no UMAP."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from toys import made_of

from milkit.atlas.settings import MapSettings
from milkit.bags import BagStore
from milkit.explain import ranks
from milkit.folds import Folds
from milkit.predictions import SHARED, Attention, Predictions
from milkit.settings import MilSettings, dump
from milkit.tables import digest

CLASSES = ("NPM1", "PML_RARA", "control")
PATIENTS = tuple(f"P{number}" for number in range(1, 10))
N_CELLS = 12
SIDE = 24
KINDS = ("blast", "lymphocyte", "monocyte")


def first_two(training: Any, others: Sequence[Any], settings: MapSettings, advance: Callable[[int], None]) -> Any:
    """In place of UMAP: the first two features."""
    advance(len(training))
    return training[:, :2], [cells[:, :2] for cells in others]


def make_run(
    root: Path,
    *,
    patients: Sequence[str] = PATIENTS,
    classes: Sequence[str] = CLASSES,
    changed: str = "",
    kinds: Sequence[str] = KINDS,
    n_cells: int = N_CELLS,
    images: bool = True,
    **other: Any,
) -> Path:
    """A store of patients in three classes with cell types and sites, and a run of three folds; returns the run.

    The cells of the patient ``changed`` have other features. The first cell of the second patient could not be read.
    """
    labels = pd.Series([classes[n % 3] for n in range(len(patients))], index=list(patients))
    cells = pd.DataFrame(
        [
            (f"{name}/c{c}", name, f"{p}/{c}.png", kinds[c % len(kinds)])
            for p, name in enumerate(patients)
            for c in range(n_cells)
        ],
        columns=["cell_id", "patient_id", "path", "cell_type"],
    )
    table = pd.DataFrame(
        {
            "label": labels,
            "site": [f"site {n % 2}" for n in range(len(patients))],
            "age": np.linspace(20, 90, len(labels)),
        }
    ).rename_axis("patient_id")
    facts = made_of(cohort_digest=digest(cells[["cell_id", "patient_id", "path"]]), classes=list(classes)) | other
    store = BagStore.create(root / "toy.zarr", table, cells, 6, facts)
    for position, name in enumerate(patients):
        generator = np.random.default_rng([1, position])
        features = generator.normal(size=(n_cells, 6)) + 4 * (np.arange(n_cells) % 3)[:, None] * np.eye(6)[position % 3]
        features = features[:, ::-1] * 2 + 1 if name == changed else features
        lost = {f"{name}/c0": "torn"} if position == 1 else {}
        store.write(name, features, np.zeros((n_cells, 32), np.uint8), lost)
    store.close()
    if images:
        generator = np.random.default_rng(2)
        for path in cells["path"]:
            (root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / path)
        (root / "toy.zarr" / "source.json").write_text(json.dumps({"root": str(root / "images")}))
    _write_run(root / "runs" / "first", labels, cells, facts)
    (root / "runs" / "first" / "settings.yaml").write_text(dump(MilSettings(store=root / "toy.zarr", folds=3)))
    return root / "runs" / "first"


def _write_run(run: Path, labels: "pd.Series[str]", cells: pd.DataFrame, facts: dict[str, Any]) -> None:
    run.mkdir(parents=True)
    generator, classes = np.random.default_rng(3), list(dict.fromkeys(labels))
    folds = Folds.stratified(labels, 3, seed=0)
    folds.save(run / "folds.csv")
    rows, attention = [], []
    for split in folds.splits():
        for name in split.test:
            shares = {f"p_{c}": 0.6 if c == labels[name] else 0.2 for c in classes}
            rows.append({"patient_id": name, "repeat": 0, "fold": split.fold, "label": labels[name],
                         "predicted": labels[name], **shares})  # fmt: skip
            ids = cells["cell_id"][cells["patient_id"] == name].tolist()
            weight = generator.dirichlet(np.ones(len(ids)))
            rank, percentile = ranks(weight)
            attention.append(pd.DataFrame(
                {"patient_id": name, "cell_id": ids, "repeat": 0, "seed": 0, "fold": split.fold, "class": SHARED,
                 "weight": weight, "rank": rank, "percentile": percentile}
            ))  # fmt: skip
    Predictions(pd.DataFrame(rows), tuple(classes)).save(run / "predictions.csv")
    Attention(pd.concat(attention, ignore_index=True)).save(run / "attention.parquet")
    known = {key: facts[key] for key in ("cohort_digest", "encoder_digest")}
    (run / "provenance.json").write_text(json.dumps(known))
