"""What drafts are filled from: the files of a run and of its store, and every number that a draft quotes from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from milkit.bags import BagStore
from milkit.errors import RunError
from milkit.figure_text import with_interval
from milkit.folds import Folds
from milkit.guidelines.sentences import Figure, pointer
from milkit.predictions import Predictions
from milkit.runs import read_json, run_settings

OF_RUN = ("metrics.json", "provenance.json", "controls.json", "tuning.json", "faithfulness.json")
"""Only the first two are in every run."""
STORE = "zarr.json of the store"
SOURCE = "source.json of the store"


@dataclass(frozen=True)
class Study:
    """A run and its store as drafts read them.

    Attributes:
        run: The run folder.
        files: What its JSON files, ``settings.yaml`` and the attributes of the store hold, by the names that drafts
            give them; a file that the run lacks is absent.
        folds: Who was tested where.
        store: The cohort's tables and failures.
        quoted: All numbers that were quoted so far, by their anchor.
    """

    run: Path
    files: Mapping[str, Any]
    folds: Folds
    store: BagStore
    quoted: dict[str, Figure] = field(default_factory=dict)

    @classmethod
    def read(cls, run: Path) -> "Study":
        """Of a run on any target; what is missing or damaged is a ``RunError``."""
        for name in ("settings.yaml", "folds.csv", "metrics.json", "provenance.json"):
            if not (run / name).is_file():
                msg = f"{run / name} is missing; name the folder of a finished run of `milkit train-mil`."
                raise RunError(msg)
        _, path = run_settings(run)
        store = BagStore.open(path)
        source = store.path / "source.json"
        files = {name: read_json(run / name) for name in OF_RUN if (run / name).is_file()}
        files["settings.yaml"] = yaml.safe_load((run / "settings.yaml").read_text(encoding="utf-8"))
        files[STORE] = dict(store.attributes)
        files[SOURCE] = read_json(source) if source.is_file() else {}
        folds = Folds.load(run / "folds.csv")
        strangers = sorted(set(folds.table["patient_id"]) - set(store.patients.index))
        if strangers:
            msg = (
                f"The store {store.path} lacks {len(strangers)} patients of the run {run}; give the store that the run "
                "was made from, or make the run again with `milkit train-mil`."
            )
            raise RunError(msg)
        return cls(run, files, folds, store)

    def value(self, file: str, *path: str | int) -> Any:
        """What stands there, None where nothing does."""
        found = self.files.get(file)
        for key in path:
            try:
                found = found[key]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def quote(self, file: str, *path: str | int, form: str = "") -> Figure | None:
        """The number, text or figure with interval that stands there, in this form; None where there is none."""
        value = self.value(file, *path)
        if isinstance(value, Mapping):
            if value.get("estimate") is None:
                return None
            return self._kept(Figure(file, pointer(path), with_interval(value, form or ".2f"), value, form or ".2f"))
        if value is None or isinstance(value, list):
            return None
        return self._kept(Figure(file, pointer(path), format(value, form), value, form))

    def count(self, file: str, what: str, number: int) -> Figure:
        """A number of rows (or files), with which of them were counted."""
        return self._kept(Figure(file, what, f"{number:,}", number, ","))

    def digest(self, file: str, what: str, digest: str) -> Figure:
        """A digest, with what it was taken over."""
        return self._kept(Figure(file, what, digest, digest, ""))

    def _kept(self, figure: Figure) -> Figure:
        self.quoted[figure.anchor] = figure
        return figure

    @cached_property
    def tested(self) -> list[str]:
        """Ids of the patients who were tested."""
        table = self.folds.table
        return sorted(set(table.loc[table["role"] == "test", "patient_id"]))

    @cached_property
    def class_table(self) -> tuple[str, Predictions] | None:
        """Predictions of classes, the first that the run has, with the name of their file; None where it has none."""
        for path in [self.run / "predictions.csv", *sorted(self.run.glob("predictions.*.csv"))]:
            if path.is_file() and (found := Predictions.load(path, any_target=True)).classes:
                return path.name, found
        return None

    @cached_property
    def labels(self) -> "pd.Series[str] | None":
        """The class of each tested patient as the run had it; None where no target of the run has classes."""
        found = self.class_table
        return None if found is None else found[1].table.groupby("patient_id")["label"].first()

    @cached_property
    def classes(self) -> list[str]:
        """Classes of ``labels``, in the order of the cohort where that has them; none where there are no labels."""
        if self.labels is None:
            return []
        there = set(self.labels)
        order = [str(name) for name in self.store.attributes.get("classes") or () if name in there]
        return order + sorted(there - set(order))

    @cached_property
    def n_cells(self) -> "pd.Series[int]":
        """Cells of each tested patient that could be read."""
        counts = self.store.cells["patient_id"].value_counts().reindex(self.tested).fillna(0).astype(int)
        failed = self.store.failures["patient_id"].value_counts().reindex(self.tested).fillna(0).astype(int)
        return counts - failed

    @property
    def parts(self) -> list[tuple[str, tuple[str, ...]]]:
        """Each target of the run (its name, empty where there is just one) and where its figures are in the metrics."""
        several = self.value("metrics.json", "targets")
        return [(str(name), ("targets", str(name))) for name in several] if several else [("", ())]
