"""Simulated cohorts for the controls and the audit. No value of a real patient is among them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from toys import made_of

from milkit.bags import BagStore
from milkit.folds import Folds
from milkit.predictions import Predictions
from milkit.tables import digest


def people(n: int, classes: tuple[str, ...] = ("A", "B")) -> pd.DataFrame:
    """Patients P000, P001, … with the classes in turn."""
    labels = [classes[number % len(classes)] for number in range(n)]
    index = pd.Index([f"P{number:03d}" for number in range(n)], name="patient_id")
    return pd.DataFrame({"label": labels}, index=index)


def store_of(
    path: Path, patients: pd.DataFrame, sizes: Mapping[str, int], shifts: Mapping[str, float], **other: object
) -> BagStore:
    """A store of 8 normal features, the first shifted by a number of each patient; ``shifts`` may be empty."""
    generator = np.random.default_rng(0)
    cells = pd.DataFrame(
        [(f"{name}/{n}", name, f"{name}/{n}.png") for name in patients.index for n in range(sizes[name])],
        columns=["cell_id", "patient_id", "path"],
    )
    classes = sorted(set(patients["label"]))
    facts = made_of(cohort_digest=digest(cells), classes=classes) | other
    store = BagStore.create(path, patients, cells, 8, facts)
    for number, name in enumerate(patients.index):
        features = generator.normal(size=(sizes[name], 8))
        features[:, 0] += shifts.get(name, 0.0)
        digests = np.zeros((sizes[name], 32), dtype=np.uint8)
        digests[:, 0], digests[:, 1], digests[:, 2] = number, np.arange(sizes[name]), 1
        store.write(name, features.astype(np.float32), digests, {})
    store.close()
    return BagStore.open(path)


def predictions_of(folds: Folds, patients: pd.DataFrame, p_first: Mapping[str, float], role: str) -> Predictions:
    """Predictions of everybody who has the role, of two classes, from a probability of the first by patient."""
    table = folds.table.loc[folds.table["role"] == role, ["patient_id", "repeat", "fold"]].reset_index(drop=True)
    first, second = sorted(set(patients["label"]))
    table["label"] = table["patient_id"].map(patients["label"])
    share = table["patient_id"].map(dict(p_first)).astype(float)
    table["predicted"] = np.where(share >= 0.5, first, second)
    table[f"p_{first}"], table[f"p_{second}"] = share, 1 - share
    return Predictions(table, (first, second))
