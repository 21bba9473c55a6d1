"""A finished run and its store, read from disk for the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.bags import SCALE, BagStore, image_paths
from milkit.errors import RunError
from milkit.explain import cell_weights, consensus_predictions
from milkit.explain.verdicts import VERDICTS, Verdicts
from milkit.folds import Folds
from milkit.mil.tuning import encoders_of, heads_of
from milkit.predictions import SHARED, Attention, Predictions
from milkit.report.artefacts import Flags, read_flags
from milkit.report.composition_file import read_composition
from milkit.report.target_results import ShownTarget, all_predictions, shown_branch, told_of_patients
from milkit.runs import read_json, run_settings
from milkit.settings import MilSettings
from milkit.tables import CELL_COLUMNS, places

CONTROLS_VERSION = 1
"""Of the ``controls.json`` that is understood, which ``milkit.audit.controls`` writes and documents."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a report is made from.

    Attributes:
        settings: Of the run.
        provenance: Software and digests; any key may be missing.
        folds: Who was tested where.
        predictions: Out of fold, one row per patient and repeat.
        metrics: The content of ``metrics.json``.
        controls: The content of ``controls.json``, empty where the run has none.
        store: The cohort's features, tables and failures.
        source: Where the images lie, and notes about the cohort; any key may be missing.
        patients: One row a patient that was tested: label, predicted, mean probabilities. Index ``patient_id``.
        cells: One row a cell of these: class, weight, rank, percentile, path, flags, and agreement where it is known.
        shared_attention: Whether one attention serves all classes.
        verdicts: Which rankings of cells can be believed; None where `milkit explain` was not run.
        flags: What a check of the cohort found wrong with the cells' images.
        composition: The content of ``composition.json``, empty where `milkit differential` was not run.
    """

    settings: MilSettings
    provenance: Mapping[str, Any]
    folds: Folds
    predictions: Predictions
    metrics: Mapping[str, Any]
    controls: Mapping[str, Any]
    store: BagStore
    source: Mapping[str, Any]
    patients: pd.DataFrame
    cells: pd.DataFrame
    shared_attention: bool
    verdicts: Verdicts | None
    flags: Flags
    composition: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the probabilities."""
        return self.predictions.classes

    @property
    def cohort(self) -> str:
        """The cohort's name."""
        return str(self.store.attributes.get("cohort") or self.provenance.get("cohort") or "unnamed cohort")

    @property
    def encoder(self) -> str:
        """The encoder's name, or the names of those that training parts chose."""
        given = self.store.attributes.get("encoder") or self.provenance.get("encoder") or "unnamed encoder"
        return " or ".join(encoders_of(self.metrics, str(given)))

    @property
    def encoders(self) -> list[Mapping[str, Any]]:
        """What is known of each encoder that was used: ``encoder``, ``encoder_seen`` and more."""
        used = encoders_of(self.metrics, "")
        several = [one for one in self.provenance.get("encoders", []) if set(_names(one)) & set(used)]
        return several or [self.store.attributes]

    @property
    def heads(self) -> list[str]:
        """The names of the heads, of which there are several where each training part chose its own."""
        return heads_of(self.settings, self.metrics)

    @property
    def root(self) -> Path | None:
        """The folder of the images, where it is known."""
        return Path(self.source["root"]) if self.source.get("root") else None

    @property
    def micrometres_per_pixel(self) -> float | None:
        """Of the images, where it is known."""
        known = self.store.attributes.get(SCALE)
        return float(known) if known else None

    @property
    def imported(self) -> bool:
        """Whether the features came without images, by `milkit import`."""
        return self.store.attributes.get("backend") == "imported"

    @property
    def level(self) -> str:
        """Coverage of the intervals, as text: ``95 %``."""
        return f"{100 * float(self.metrics.get('level', self.settings.level)):g} %"


def read_results(run: Path, targets: tuple[ShownTarget, ...] = ()) -> Results:
    """Read a run folder and the store it names; what is missing, or does not fit together, is a ``RunError``.

    Args:
        run: The folder.
        targets: Of a run that is reported by target; its results have no classes, and words in ``patients``.
    """
    if not run.is_dir():
        msg = f"There is no run at {run}; make one with `milkit train-mil`, or name another with --run."
        raise RunError(msg)
    for name in ("settings.yaml", "folds.csv"):
        if not (run / name).is_file():
            msg = (
                f"{run / name} is missing; the folder is not a finished run, so make it again with `milkit train-mil`."
            )
            raise RunError(msg)
    settings, path = run_settings(run)
    predictions = all_predictions(targets) if targets else Predictions.load(run / "predictions.csv")
    attention = Attention.load(run / "attention.parquet")
    metrics, provenance = read_json(run / "metrics.json"), read_json(run / "provenance.json")
    store = BagStore.open(path)
    source = store.path / "source.json"
    patients = told_of_patients(targets) if targets else consensus_predictions(predictions)
    _require(patients.index.difference(store.patients.index).tolist(), "patients", store)
    verdicts = _verdicts(run, patients["predicted"], in_words=bool(targets))
    shown = shown_branch(attention, patients, verdicts) if targets else patients["predicted"]
    cells = cell_weights(attention, shown)
    flags = read_flags(store)
    if cells.empty:
        msg = (
            f"{run / 'attention.parquet'} has no weights of the tested patients; make the run again with "
            "`milkit train-mil`."
        )
        raise RunError(msg)
    return Results(
        settings=settings,
        provenance=provenance,
        folds=Folds.load(run / "folds.csv"),
        predictions=predictions,
        metrics=metrics,
        controls=_controls(run),
        store=store,
        source=read_json(source) if source.is_file() else {},
        patients=patients,
        cells=_with_paths(cells, store).assign(flags=lambda table: table["cell_id"].map(flags.by_cell).fillna("")),
        shared_attention=bool((attention.table["class"] == SHARED).all()),
        verdicts=verdicts,
        flags=flags,
        composition=read_composition(run),
    )


def _names(encoder: Mapping[str, Any]) -> tuple[str, str]:
    """As a choice of encoders has it: with a part of its digest where several are called alike."""
    return str(encoder["encoder"]), f"{encoder['encoder']}-{str(encoder['encoder_digest'])[:8]}"


def _controls(run: Path) -> Mapping[str, Any]:
    """The run's ``controls.json``, empty where none was written; of another version it is a ``RunError``."""
    path = run / "controls.json"
    if not path.is_file():
        return {}
    found = read_json(path)
    if found.get("version") != CONTROLS_VERSION:
        msg = (
            f"{path} is of version {found.get('version')}, and this milkit reads version {CONTROLS_VERSION}; make the "
            "controls again with it."
        )
        raise RunError(msg)
    own = list(found.get("targets", {}).values())
    if len(own) == 1 and "per_class" in own[0]["model"]:  # one target of classes reads like a run without a target
        return {**own[0], **{key: found[key] for key in ("warnings", "sentences")}}
    return found


def _verdicts(run: Path, predicted: "pd.Series[str]", *, in_words: bool) -> Verdicts | None:
    """The run's ``faithfulness.json``, None where it was not explained; one of other predictions is a ``RunError``.

    Predictions ``in_words``, as of survival, name no class that could be compared; the patients can be.
    """
    verdicts = Verdicts.load(run)
    if verdicts is None:
        return None
    asked = {row["patient_id"]: row["class"] for row in verdicts.told["patients"]}
    known = {str(name): str(value) for name, value in predicted.items()}
    if asked != known and not (in_words and asked.keys() <= known.keys()):
        msg = (
            f"{run / VERDICTS} is of other patients or predictions than those of the run; make it again with "
            f"`milkit explain {run}`."
        )
        raise RunError(msg)
    return verdicts


def _with_paths(cells: pd.DataFrame, store: BagStore) -> pd.DataFrame:
    boxes = [box for _, box in places(store.cells)]
    known = store.cells[list(CELL_COLUMNS)].assign(path=image_paths(store), box=boxes)
    joined = cells.merge(known, on=["patient_id", "cell_id"], how="left", validate="one_to_one")
    _require(joined.loc[joined["path"].isna(), "cell_id"].tolist(), "cells", store)
    return joined


def _require(lacking: list[str], what: str, store: BagStore) -> None:
    if lacking:
        msg = (
            f"The store {store.path} lacks {len(lacking)} {what} of the run, the first being '{lacking[0]}'; give "
            "the store that the run was made from, or make the run again with `milkit train-mil`."
        )
        raise RunError(msg)
