"""A run as an audit reads it: also where its files break the rules that other commands insist on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore
from milkit.errors import RunError
from milkit.predictions import Predictions
from milkit.runs import read_json, run_settings
from milkit.settings import MilSettings
from milkit.tables import read_table


@dataclass(frozen=True, slots=True)
class Audited:
    """What is looked at.

    Attributes:
        path: The run folder.
        settings: Of the run.
        folds: The rows of ``folds.csv`` as they are: patient_id, repeat, fold, role.
        tables: Predictions of tested patients, a table for each target; the first is that which the folds balance.
        provenance: Software and digests.
        store: Behind the run.
    """

    path: Path
    settings: MilSettings
    folds: pd.DataFrame
    tables: list[pd.DataFrame]
    provenance: dict[str, Any]
    store: BagStore

    @classmethod
    def read(cls, run: Path) -> "Audited":
        """Read a run folder and open its store; what is missing is a ``RunError`` or a ``StoreError``."""
        if not (run / "settings.yaml").is_file():
            msg = f"There is no run at {run}; make one with `milkit train-mil`, or name another one."
            raise RunError(msg)
        settings, path = run_settings(run)
        folds = read_table(run / "folds.csv")
        if missing := [name for name in ("patient_id", "repeat", "fold", "role") if name not in folds]:
            msg = f"{run / 'folds.csv'} lacks {', '.join(missing)}; make the run again with `milkit train-mil`."
            raise RunError(msg)
        several = [run / f"predictions.{name}.csv" for name in (read_json(run / "metrics.json").get("targets") or ())]
        tables = [Predictions.load(file, any_target=True).table for file in several or [run / "predictions.csv"]]
        return cls(run, settings, folds, tables, read_json(run / "provenance.json"), BagStore.open(path))

    @property
    def encoders(self) -> list[Mapping[str, Any]]:
        """What is known of each encoder that a fold could choose, or of the one."""
        return self.provenance.get("encoders") or [self.store.attributes]

    @property
    def patients(self) -> list[str]:
        """Everybody who has a role in the folds and a bag in the store, in the store's order."""
        known = set(self.folds["patient_id"])
        return [str(name) for name in self.store.patients.index if name in known]

    def parted(self) -> npt.NDArray[np.bool_]:
        """Pairs of ``patients``, (n, n), of whom somewhere one is tested by a model that knows the other."""
        position = {name: row for row, name in enumerate(self.patients)}
        pairs = np.zeros((len(position), len(position)), dtype=np.bool_)
        for _, split in self.folds.groupby(["repeat", "fold"]):
            known, tested = np.zeros((2, len(position)), dtype=np.bool_)
            rows = split["patient_id"].map(position)
            there = rows.notna()
            numbers, held_out = rows[there].astype(int).to_numpy(), (split["role"] == "test")[there].to_numpy()
            tested[numbers[held_out]], known[numbers[~held_out]] = True, True
            pairs |= known[:, None] & tested[None, :]
        both: npt.NDArray[np.bool_] = pairs | pairs.T
        return both
