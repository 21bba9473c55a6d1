"""Simulated patients and stores for the tests. No image and no value of a real patient is among them."""

from pathlib import Path

import numpy as np
import pandas as pd

from milkit.bags import BagStore
from milkit.tables import digest

CLASSES = ("NPM1", "PML_RARA", "control")


def made_of(**other: object) -> dict[str, object]:
    """The attributes that a store must be given."""
    facts = {"cohort": "toy", "cohort_digest": "c" * 64, "classes": list(CLASSES), "encoder": "toy-encoder"}
    facts |= {"encoder_digest": "e" * 64, "encoder_seen": [], "transform": {"size": 8}, "dtype": "float32"}
    facts |= {"batch_size": 4, "backend": "torch-cpu", "precision": "fp32", "milkit": "0", "encoder_made_of": {}}
    return facts | other


def toy_patients(per_class: int = 6) -> pd.DataFrame:
    """Patients P00, P01, … with the three classes in turn, and an age."""
    ids = [f"P{number:02d}" for number in range(per_class * len(CLASSES))]
    labels = [CLASSES[number % len(CLASSES)] for number in range(len(ids))]
    index = pd.Index(ids, name="patient_id")
    return pd.DataFrame({"label": labels, "age": np.arange(len(ids)) + 30.0}, index=index)


def followed_patients(per_class: int, cycle: int) -> pd.DataFrame:
    """The same with time, event and age: the first class dies soon and is young, the last one lives long and is old.

    One trio of patients in every ``cycle`` is censored, and of P04 neither time nor event is known.
    """
    patients = toy_patients(per_class)
    generator, kind = np.random.default_rng(0), patients["label"].map(CLASSES.index).to_numpy()
    patients["time"] = np.exp(kind + generator.normal(0, 0.2, len(patients)))
    patients["event"] = (np.arange(len(patients)) // 3 % cycle > 0).astype(float)
    patients["age"] = 30.0 + 20 * kind + generator.normal(0, 2, len(patients))
    patients.loc["P04", ["time", "event"]] = np.nan
    return patients


def make_store(
    path: Path, patients: pd.DataFrame, *, n_cells: int = 10, dim: int = 6, seed: int = 0, **other: object
) -> BagStore:
    """A store of simulated features: in each class, about a third of the cells is shifted along an axis of its own."""
    generator = np.random.default_rng(seed)
    counts = {name: n_cells + position % 3 for position, name in enumerate(patients.index)}
    cells = pd.DataFrame(
        [(f"{name}/image_{n}", name, f"{name}/image_{n}.png") for name, count in counts.items() for n in range(count)],
        columns=["cell_id", "patient_id", "path"],
    )
    facts = made_of(cohort_digest=digest(cells)) | other
    store = BagStore.create(path, patients, cells, dim, facts)
    for name, count in counts.items():
        features = generator.normal(size=(count, dim)).astype(np.float32)
        features[: count // 3, CLASSES.index(patients.loc[name, "label"])] += 6.0
        store.write(name, features, np.zeros((count, 32), dtype=np.uint8), {})
    store.close()
    return BagStore.open(path)
