"""What lies beside the page, so that every number on it is found in a file that a program reads."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from milkit.explain.verdicts import VERDICTS
from milkit.report.composition_file import COMPOSITION, TYPES
from milkit.report.folder import without_formulas
from milkit.report.patients import Patient
from milkit.report.results import Results
from milkit.report.tables import FlowStep, cohort_table, flow_steps
from milkit.runs import write_bytes
from milkit.tables import write_table

COPIED = ("metrics.json", "controls.json", VERDICTS, COMPOSITION, *TYPES)
"""Of the run, as far as they are there."""
_CELL = ["rank", "cell_id", "path", "weight", "percentile", "agreement"]


def beside(results: Results) -> dict[str, str]:
    """The files that ``write_beside`` writes, and what they hold."""
    files = {
        "patients.csv": "what is said of each patient",
        "shown_cells.csv": "the cells that are shown here",
        "top_cells.csv": "only the cells of each patient that the model weighs most",
        "predictions.csv": "the probabilities of every repeat, with folds numbered as below",
        "cohort.csv": "the cohort",
        "flow.csv": "the flow of patients",
        "metrics.json": "the results",
        "controls.json": "the controls",
        VERDICTS: "whether the order of the cells can be believed",
        **dict.fromkeys(TYPES, "the types of the cells"),
        COMPOSITION: "the same with all that is said of them",
    }
    there = {"flow.csv": flow_steps(results), "controls.json": results.controls, VERDICTS: results.verdicts}
    there |= dict.fromkeys((*TYPES, COMPOSITION), results.composition)
    return {name: what for name, what in files.items() if there.get(name, True)}


def write_beside(folder: Path, run: Path, results: Results, patients: Sequence[Patient], top: int) -> None:
    """Write the tables, in which no text is a formula of a spreadsheet, and copy the run's figures."""
    tables = {
        "top_cells": _top_cells(results, patients, top),
        "shown_cells": _shown_cells(results, patients),
        "patients": _patients(patients),
        "predictions": results.predictions.table,
        "cohort": pd.DataFrame(cohort_table(results).rows, columns=cohort_table(results).header),
    }
    if steps := flow_steps(results):
        tables["flow"] = pd.DataFrame(steps, columns=list(FlowStep._fields))
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", without_formulas(table))
    for name in COPIED:
        if (run / name).is_file():
            write_bytes(folder / name, (run / name).read_bytes())


def _top_cells(results: Results, patients: Sequence[Patient], top: int) -> pd.DataFrame:
    """The cells that weigh most for the predicted class; ``agreement`` stays empty where it was not computed."""
    position = {patient.patient_id: number for number, patient in enumerate(patients)}
    cells = _as_stored(results.cells[results.cells["rank"] <= top], results)
    cells = cells.reindex(columns=["patient_id", "class", *_CELL])
    order = cells.assign(position=cells["patient_id"].map(position)).sort_values(["position", "rank"]).index
    return cells.loc[order]


def _as_stored(cells: pd.DataFrame, results: Results) -> pd.DataFrame:
    """With paths as the store tells them, which are empty where a path says who somebody is."""
    told = results.store.cells
    return cells.assign(path=cells["cell_id"].map(dict(zip(told["cell_id"], told["path"], strict=True))))


def _shown_cells(results: Results, patients: Sequence[Patient]) -> pd.DataFrame:
    """Every cell of a gallery, in the order of the page."""
    chosen = _as_stored(pd.concat([patient.chosen for patient in patients], ignore_index=True), results)
    return chosen.reindex(columns=["patient_id", "class", "group", *_CELL, "flags"])


def _patients(patients: Sequence[Patient]) -> pd.DataFrame:
    """A row a patient: what a card says of them."""
    rows = []
    for patient in patients:
        stability, artefacts, order = patient.stability, patient.artefacts, patient.order
        rows.append(
            {
                "patient_id": patient.patient_id,
                "label": patient.label,
                "predicted": patient.predicted,
                **{f"p_{name}": probability for name, probability in patient.probabilities},
                "tested_in": patient.folds,
                "n_cells": patient.n_cells,
                "effective_cells": patient.effective,
                "cells_with_half_of_weight": patient.half,
                "stability": stability.share if stability else None,
                "n_models": stability.n_models if stability else None,
                "n_images": artefacts.n_cells if artefacts else None,
                "n_artefacts": artefacts.n_unreadable + artefacts.n_flagged if artefacts else None,
                "n_unreadable": artefacts.n_unreadable if artefacts else None,
                "n_flagged": artefacts.n_flagged if artefacts else None,
                "artefact_share": artefacts.share if artefacts else None,
                "order_faithful": order.here if order else None,
                "about": patient.about,
            }
        )
    return pd.DataFrame(rows)
