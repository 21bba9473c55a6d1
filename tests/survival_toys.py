"""Run folders of simulated patients whose survival is known by design."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from milkit.settings import MilSettings, dump
from milkit.tables import write_table

N = 60
IDS = tuple(f"P{number:03d}" for number in range(N))


def follow_up(log_hazard: np.ndarray, seed: int = 0, scale: float = 500.0) -> tuple[np.ndarray, np.ndarray]:
    """Whole days until death or the end of follow-up, and 1 for a death."""
    generator = np.random.default_rng(seed)
    death = generator.exponential(scale * np.exp(-log_hazard))
    end = generator.uniform(200, 1500, len(log_hazard))
    return np.ceil(np.minimum(death, end)), (death <= end).astype(int)


def folds_of(n: int, k: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n) % k


def risk_table(risk: np.ndarray, time: np.ndarray, event: np.ndarray, *, k: int = 5, repeats: int = 1) -> pd.DataFrame:
    """Rows of ``predictions.csv``: the same risks in every repeat."""
    facts = {"patient_id": [f"P{number:03d}" for number in range(len(risk))], "time": time, "event": event}
    parts = [pd.DataFrame(facts).assign(repeat=r, fold=folds_of(len(risk), k, r), risk=risk) for r in range(repeats)]
    return pd.concat(parts, ignore_index=True)


def class_table(predicted: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """Rows of ``predictions.csv`` of classes, each predicted with a probability of 0.9."""
    table = pd.DataFrame({"patient_id": [f"P{number:03d}" for number in range(len(predicted))], "repeat": 0})
    table = table.assign(fold=folds_of(len(predicted)), label=predicted, predicted=predicted)
    rest = 0.1 / (len(classes) - 1)
    return table.assign(**{f"p_{name}": np.where(predicted == name, 0.9, rest) for name in classes})


def write_run(folder: Path, predictions: pd.DataFrame, patients: pd.DataFrame | None = None, **other: Any) -> Path:
    """A run of these predictions; ``patients`` (by id) become those of its store."""
    folder.mkdir()
    write_table(folder / "predictions.csv", predictions)
    store = folder.with_suffix(".zarr")
    if patients is not None:
        store.mkdir()
        write_table(store / "patients.csv", patients.rename_axis("patient_id").reset_index())
        other["store"] = store
    (folder / "settings.yaml").write_text(dump(MilSettings(bootstrap=other.pop("bootstrap", 100), **other)))
    return folder


RISK = np.random.default_rng(3).normal(size=N)
TIME, EVENT = follow_up(RISK)
CLASS = np.where(RISK > 0.5, "PML_RARA", np.where(RISK > -0.5, "NPM1", "control")).astype(object)
CLASSES = ("control", "NPM1", "PML_RARA")


def patients(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"time": TIME, "event": EVENT, **columns}, index=list(IDS))
