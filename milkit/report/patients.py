"""The patients as the page shows them: what was predicted, from which cells, and which of these are shown."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from milkit.cohort import natural_key
from milkit.explain import choose_cells
from milkit.explain.ranking import TOP
from milkit.report.artefacts import Artefacts, artefacts_of_patients
from milkit.report.composition import Differential, differentials
from milkit.report.rankings import Order, orders
from milkit.report.results import Results
from milkit.report.settings import ReportSettings
from milkit.report.weights_plot import cells_with_half, weights_plot


class Stability(NamedTuple):
    """How far models agree on the ``TOP`` cells.

    ``share`` is the mean, over these cells, of the share of the models in which a cell is among the ``TOP``.
    """

    share: float
    n_models: int


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient's card, without the images.

    Attributes:
        patient_id: The patient.
        label: The class that is taken as true.
        predicted: The class of the highest probability.
        probabilities: Class and probability, in the order of the classes.
        folds: Where the patient was tested, in words.
        n_cells: Cells that were weighed.
        effective: 1 / Σ w²: how many cells of equal weight would share the attention as evenly.
        about: Age and sex, where they are known.
        chosen: The cells to show, one row each (see ``gallery.encode``).
        order: Whether the cells' order can be believed; None where that was not tested.
        half: The fewest cells that have half of the attention together.
        weights: How the attention is spread, as a small figure.
        stability: How far the models agree on the highest cells; None where there is one model, or too few cells.
        artefacts: How many cells are none to be judged; None where that is unknown.
        differential: The types of the cells; None where `milkit differential` was not run.
    """

    patient_id: str
    label: str
    predicted: str
    probabilities: tuple[tuple[str, float], ...]
    folds: str
    n_cells: int
    effective: float
    about: str
    chosen: pd.DataFrame
    order: Order | None = None
    half: int = 0
    weights: Markup = field(default_factory=Markup)
    stability: Stability | None = None
    artefacts: Artefacts | None = None
    differential: Differential | None = None

    @property
    def wrong(self) -> bool:
        """Whether the prediction differs from the label."""
        return bool(self.probabilities) and self.label != self.predicted

    @property
    def probability(self) -> float:
        """Of the predicted class."""
        return dict(self.probabilities)[self.predicted]

    @property
    def slug(self) -> str:
        """Names the patient's page and anchor: safe in any file system and URL, different for different ids."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.patient_id.lower()).strip("-")[:40]
        digest = hashlib.sha256(self.patient_id.encode()).hexdigest()[:8]
        return f"{plain or 'patient'}-{digest}"


def all_patients(results: Results, settings: ReportSettings) -> list[Patient]:
    """Every patient that was tested, in the natural order of ids."""
    cells = {str(name): part for name, part in results.cells.groupby("patient_id", sort=False)}
    nothing = results.cells.iloc[:0]
    covariates = results.store.patients.to_dict("index")
    tested = results.predictions.table.sort_values(["repeat", "fold"])
    folds = {str(name): _folds(part) for name, part in tested.groupby("patient_id", sort=False)}
    columns = [f"p_{name}" for name in results.classes]
    believed, typed = orders(results.verdicts), differentials(results.composition, results.verdicts)
    artefacts = artefacts_of_patients(results.store, results.cells, results.flags)
    patients = []
    for patient_id in sorted(map(str, results.patients.index), key=natural_key):
        row, bag = results.patients.loc[patient_id], cells.get(patient_id, nothing)
        weights = bag["weight"].to_numpy(dtype=np.float64)
        patients.append(
            Patient(
                patient_id=patient_id,
                label=str(row["label"]),
                predicted=str(row["predicted"]),
                probabilities=tuple(zip(results.classes, map(float, row[columns]), strict=True)),
                folds=folds[patient_id],
                n_cells=len(bag),
                effective=float(1.0 / np.square(weights).sum()) if len(bag) else 0.0,
                about=_about(covariates.get(patient_id, {})),
                chosen=_choose(bag, settings, f"{results.settings.seed}/{patient_id}"),
                order=believed.get(patient_id),
                half=cells_with_half(weights),
                weights=weights_plot(weights),
                stability=_stability(bag),
                artefacts=artefacts.get(patient_id),
                differential=typed.get(patient_id),
            )
        )
    return patients


def _choose(bag: pd.DataFrame, settings: ReportSettings, key: str) -> pd.DataFrame:
    """The sample is keyed by patient, so that it does not depend on who else is in the report."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    chosen = choose_cells(bag, top=settings.top, random=settings.random, bottom=settings.bottom, seed=seed)
    return chosen.assign(n_cells=len(bag))


def _stability(bag: pd.DataFrame) -> Stability | None:
    top = bag[(bag["rank"] <= TOP) & bag["agreement"].notna()]
    if top.empty:
        return None
    return Stability(float((top["in_top"] / top["n_models"]).mean()), int(top["n_models"].max()))


def _folds(tested: pd.DataFrame) -> str:
    pairs = list(zip(tested["repeat"], tested["fold"], strict=True))
    if tested["repeat"].nunique() == 1:
        return "fold " + ", ".join(str(fold) for _, fold in pairs)
    return "; ".join(f"repeat {repeat} fold {fold}" for repeat, fold in pairs)


def _about(covariates: dict[Any, Any]) -> str:
    age, sex = covariates.get("age"), covariates.get("sex")
    known = [] if pd.isna(age) else [f"{age:.0f} years" if isinstance(age, float | int) else f"{age} years"]
    known += [] if pd.isna(sex) else [{"F": "female", "M": "male"}.get(str(sex).upper(), str(sex))]
    return ", ".join(known)
