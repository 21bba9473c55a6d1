"""What a map of cells is made from: a store, who is training and who is held out, and what a run says of its cells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from milkit.bags import BagStore, store_of_run
from milkit.errors import RunError, SettingsError, StoreError, UnknownName
from milkit.explain import cell_weights, consensus_predictions
from milkit.folds import ROLES, Folds
from milkit.predictions import SHARED, Attention, Predictions
from milkit.runs import read_json

TYPES = "cell_types.parquet"
"""In a run's folder: patient_id, cell_id, cell_type, the types that a probe gave to cells."""


@dataclass(frozen=True, slots=True)
class Source:
    """A store, and what is known about its patients and cells.

    Attributes:
        store: Complete.
        root: The folder of the images, where it is known.
        roles: By patient id: ``train``, ``validation`` or ``test``. Patients that are not in it are not on the map.
        divided: By what these were told apart, for people.
        weights: One row a cell of the patients that the run tested: patient_id, cell_id, weight, percentile.
        predicted: The class that held-out models predict, by patient id.
        types: The run's ``cell_types.parquet``.
        made_of: Digests of the run's splits, and its name; empty without a run.
    """

    store: BagStore
    root: Path | None
    roles: "pd.Series[str]"
    divided: str
    weights: pd.DataFrame | None
    predicted: "pd.Series[str] | None"
    types: pd.DataFrame | None
    made_of: dict[str, Any]


def source_of_run(run: Path, repeat: int, fold: int) -> Source:
    """One split of a run.

    Raises:
        RunError: The folder is no finished run, its store changed, or it has no such split.
    """
    store = store_of_run(run)
    folds = Folds.load(run / "folds.csv")
    splits = {(split.repeat, split.fold): split for split in folds.splits()}
    if (repeat, fold) not in splits:
        known = ", ".join(f"{r}/{f}" for r, f in splits)
        msg = f"Fold {fold} of repeat {repeat} was asked for, and {run} has the splits (repeat/fold) {known}; name one."
        raise RunError(msg)
    split = splits[repeat, fold]
    roles = pd.Series({name: role for role in ROLES for name in getattr(split, role)}, dtype=object)
    if lacking := sorted(set(roles.index) - set(store.patients.index)):
        msg = (
            f"The store {store.path} lacks {len(lacking)} patients of the run, the first being '{lacking[0]}'; give "
            "the store that the run was made from, or make the run again with `milkit train-mil`."
        )
        raise RunError(msg)
    weights, predicted = run_weights(run)
    return Source(
        store=store,
        root=images_of(store),
        roles=roles,
        divided=f"fold {fold} of repeat {repeat} of the run",
        weights=weights,
        predicted=predicted,
        types=_types(run),
        made_of={"run": run.resolve().name, "folds_digest": folds.digest, "repeat": repeat, "fold": fold},
    )


def source_of_store(store: BagStore, share: float, seed: int) -> Source:
    """A store without a run: of each class, a seeded share of its patients is training, the others are held out.

    Raises:
        StoreError: It holds cells without patients.
    """
    patients = store.patients
    if store.cells["patient_id"].isna().any():
        msg = (
            f"The store {store.path} holds cells without patients, where a map is fitted on some patients and shows "
            "the others; give a store of patients, or look at these cells with `milkit probe`."
        )
        raise StoreError(msg)
    labels = patients["label"].astype(str) if "label" in patients else pd.Series("", index=patients.index)
    generator = np.random.default_rng(seed)
    roles = pd.Series("test", index=patients.index, dtype=object)
    for _, own in labels.groupby(labels, sort=True):
        chosen = generator.permutation(len(own))[: max(1, round(share * len(own)))]
        roles[own.index[chosen]] = "train"
    divided = f"{100 * share:g} % of each class, drawn with seed {seed}" if share < 1 else "all of them"
    return Source(store, images_of(store), roles, divided, None, None, None, {"share": share})


def run_weights(run: Path) -> "tuple[pd.DataFrame | None, pd.Series[str] | None]":
    """Weight and percentile of each cell that a run tested, and the predicted classes where it predicts classes.

    Without classes, the attention that serves all outputs is taken, where there is such a one.
    """
    if not (run / "attention.parquet").is_file() or not (run / "predictions.csv").is_file():
        return None, None  # a run on several targets
    attention = Attention.load(run / "attention.parquet")
    predictions = Predictions.load(run / "predictions.csv", any_target=True)
    if predictions.classes:
        predicted = consensus_predictions(predictions)["predicted"]
        return cell_weights(attention, predicted), predicted
    table = attention.table[attention.table["class"] == SHARED]
    if table.empty:
        return None, None
    nothing = pd.Series(SHARED, index=table["patient_id"].unique())
    return cell_weights(Attention(table), nothing), None


def images_of(store: BagStore) -> Path | None:
    """The folder of a store's images, where it is known."""
    path = store.path / "source.json"
    root = read_json(path).get("root") if path.is_file() else None
    return Path(root) if root else None


def require_column(table: pd.DataFrame, column: str) -> None:
    """``UnknownName`` where neither the cells nor the patients have a column."""
    if column not in table:
        msg = f"Neither the cells nor the patients have a column '{column}'; give one of {', '.join(table.columns)}."
        raise UnknownName(msg)


def refuse_both(run: Path | None, store: Path | None) -> None:
    """``SettingsError`` where both a run and a store are named."""
    if run and store:
        msg = f"The run {run} and the store {store} were both named; a run names its own store, so leave one out."
        raise SettingsError(msg)


def _types(run: Path) -> pd.DataFrame | None:
    path = run / TYPES
    if not path.is_file():
        return None
    table = pd.read_parquet(path)
    if not {"patient_id", "cell_id", "cell_type"} <= set(table.columns):
        msg = f"{path} has not the columns patient_id, cell_id and cell_type; make it again."
        raise RunError(msg)
    return table
