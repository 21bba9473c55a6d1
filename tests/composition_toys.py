"""Runs and labelled cells of simulated kinds, well apart, for the tests of differentials."""

from pathlib import Path

import numpy as np
import pandas as pd
from probe_toys import labelled_store
from toys import made_of

from milkit.bags import BagStore
from milkit.bags.study import StudyStore
from milkit.folds import Folds
from milkit.predictions import SHARED, Attention, Predictions
from milkit.runs import write_json, write_text
from milkit.settings import MilSettings, dump
from milkit.statistics.intervals import without_nan
from milkit.statistics.summary import summarise
from milkit.tables import cells_digest

KINDS = ("lymphocyte", "monocyte", "neutrophil")
STRANGER = "stranger"
"""A kind that no labelled cell has."""
CLASSES = ("sick", "well")
CENTRES = 4.0 * np.eye(4, 8)


def features_of(kinds: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Noise of half a unit around the centre of each kind."""
    names = [*KINDS, STRANGER]
    positions = np.array([names.index(kind) for kind in kinds])
    return (CENTRES[positions] + 0.5 * generator.normal(size=(len(kinds), 8))).astype(np.float32)


def labelled(path: Path, *, n: int = 150, n_patients: int = 0, **other: object) -> BagStore:
    """A store of ``n`` labelled cells of the three kinds, of some patients or of none."""
    generator = np.random.default_rng(3)
    kinds = np.array([KINDS[number % 3] for number in range(n)])
    cells = pd.DataFrame({"cell_id": [f"c{number:04d}" for number in range(n)], "patient_id": None})
    cells = cells.assign(path=cells["cell_id"] + ".png", cell_type=kinds)
    if n_patients:
        cells["patient_id"] = [f"L{row * n_patients // n:02d}" for row in range(n)]
    return labelled_store(path, cells, features=features_of(kinds, generator), **other)


def make_run(
    root: Path,
    *,
    n_patients: int = 24,
    n_cells: int = 60,
    planted: bool = True,
    strangers: int = 6,
    known: bool = True,
    cohort: str = "toy",
    ids: str = "pseudonymous",
    name: str = "run",
    seed: int = 0,
) -> Path:
    """A run over patients with equal shares of the kinds; monocytes lead the ranking of the ``sick``, if planted.

    Each patient has ``strangers`` cells of a kind that nobody labelled. ``known`` writes the true kinds into the store.
    """
    generator = np.random.default_rng(seed)
    patient_ids = [f"P{number:02d}" for number in range(n_patients)]
    labels = [CLASSES[number % 2] for number in range(n_patients)]
    cells = pd.DataFrame(
        [(f"{patient}/{n}", patient, f"{patient}/{n}.png") for patient in patient_ids for n in range(n_cells)],
        columns=["cell_id", "patient_id", "path"],
    )
    kinds = np.array([*[STRANGER] * strangers, *np.resize(KINDS, n_cells - strangers)])
    all_kinds = np.concatenate([generator.permutation(kinds) for _ in patient_ids])
    if known:
        cells["cell_type"] = all_kinds
    facts = made_of(cohort=cohort, ids=ids, cohort_digest=cells_digest(cells), classes=list(CLASSES))
    patients = pd.DataFrame({"label": labels}, index=pd.Index(patient_ids, name="patient_id"))
    store = BagStore.create(root / f"{name}.zarr", patients, cells, 8, facts)
    rows, features = [], features_of(all_kinds, generator)
    for number, (patient, label) in enumerate(zip(patient_ids, labels, strict=True)):
        own = slice(number * n_cells, (number + 1) * n_cells)
        store.write(patient, features[own], np.zeros((n_cells, 32), dtype=np.uint8), {})
        scores = generator.random(n_cells)
        if planted and label == "sick":
            scores += 0.4 * (all_kinds[own] == "monocyte")
        weights = scores / scores.sum()
        rank = np.argsort(np.argsort(-weights)) + 1
        for cell, weight, place in zip(cells["cell_id"][own], weights, rank, strict=True):
            rows.append((patient, cell, 0, 0, number % 3, SHARED, weight, place, 100.0 * (n_cells - place) / n_cells))
    store.close()
    ids_of_run, run = patient_ids, root / name
    run.mkdir()
    columns = ["patient_id", "cell_id", "repeat", "seed", "fold", "class", "weight", "rank", "percentile"]
    attention = pd.DataFrame(rows, columns=columns)
    if ids == "identifying":
        view = StudyStore(store.path)
        attention["patient_id"] = view.study_patients(attention["patient_id"])
        attention["cell_id"] = view.study_cells(attention["cell_id"])
        ids_of_run = view.study_patients(pd.Series(ids_of_run)).tolist()
    Attention(attention).save(run / "attention.parquet")
    table = pd.DataFrame(
        {"patient_id": ids_of_run, "repeat": 0, "fold": [n % 3 for n in range(n_patients)], "label": labels}
    )
    shares = {f"p_{c}": [0.8 if label == c else 0.2 for label in labels] for c in CLASSES}
    predictions = Predictions(table.assign(predicted=labels, **shares), CLASSES)
    predictions.save(run / "predictions.csv")
    write_json(run / "metrics.json", without_nan(summarise(predictions, n_bootstrap=100, level=0.95, seed=0)))
    Folds.partition(pd.Index(ids_of_run), np.array([[n % 3 for n in range(n_patients)]])).save(run / "folds.csv")
    write_text(run / "settings.yaml", dump(MilSettings(store=store.path)))
    write_json(run / "provenance.json", {key: facts[key] for key in ("cohort_digest", "encoder_digest")})
    return run
