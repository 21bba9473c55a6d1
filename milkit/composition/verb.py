"""VERB run + labelled cells -> the differential: the types of all cells, and of those that the models weigh most."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore, store_of_run
from milkit.composition.cell_typing import CrossTyped, Typed, type_cells, type_labelled, untaught
from milkit.composition.differential import BAG, COLUMNS, Counts, class_rows, count, patient_rows
from milkit.composition.enrichment import enrichment_rows, enrichment_table
from milkit.composition.known_types import agreement
from milkit.composition.rankings import Ranked, read_rankings
from milkit.composition.reference import UNKNOWN, Reference, read_reference
from milkit.composition.sentences import assumptions, sentences, warnings
from milkit.composition.settings import DifferentialSettings
from milkit.composition.shares import shares_over_groups
from milkit.composition.table import CELL_TYPES, CellTypes
from milkit.explain.verdicts import Verdicts
from milkit.progress import progress
from milkit.report.folder import without_formulas
from milkit.runs import provenance, write_json
from milkit.statistics.intervals import without_nan
from milkit.tables import write_table

FORMAT, VERSION = "milkit-composition", 1
COMPOSITION, DIFFERENTIAL, ENRICHMENT = "composition.json", "differential.csv", "enrichment.csv"

Bools = npt.NDArray[np.bool_]


class _TypedRun(NamedTuple):
    """The run's store, typed: ``cell_types.parquet``, how the labelled cells fared, and what stays unknown untaught."""

    cell_types: pd.DataFrame
    labelled: CrossTyped
    untaught: dict[str, dict[str, float]]
    not_converged: int
    n_unreadable: int


def compose(run: Path, settings: DifferentialSettings) -> dict[str, Any]:
    """Type every cell of a run's store by labelled cells, and compare the top of each ranking with the whole bags.

    Writes ``cell_types.parquet``, ``differential.csv``, ``enrichment.csv`` and ``composition.json`` into the run
    folder, in place of those that are there.

    Returns:
        The content of ``composition.json``: ``format``, ``version``, provenance, ``cohort``, ``encoder``,
        ``encoder_digest``, ``settings``; ``labelled`` (``Reference.facts``) and ``taxonomy`` (None without it);
        ``typing`` (how sure labelled cells show it to be), ``cells`` (what the run's cells became), ``known_types``
        (``known_types.agreement``); ``types``, ``rankings`` with their verdict ``faithful``; ``classes`` (for each the
        ``differential`` rows, of ``differential.COLUMNS``, and ``enrichment`` rows, of ``enrichment.COLUMNS``),
        ``patients`` (the same rows of each), ``few`` (patients with too few typed cells), and
        ``sentences``, ``warnings`` and ``assumptions`` for people.

    Raises:
        RunError: The folder is no finished run, or its store changed.
        StoreError: The labelled cells are of another encoder, or have no labels.
        FoldError: There are too few labelled cells.
    """
    ranked, store = read_rankings(run, settings.top), store_of_run(run)
    reference = read_reference(store, settings)
    typed = _type_run(store, reference, settings)
    counts = count(ranked, typed.cell_types, reference.types)
    differential = class_rows(counts, ranked.classes, settings)
    enrichment = enrichment_rows(counts, ranked.classes, settings)
    of_patients = patient_rows(counts, settings.level)
    facts = {
        "target": ranked.target,
        "cohort": store.attributes.get("cohort"),
        "encoder": store.attributes.get("encoder"),
        "encoder_digest": store.attributes.get("encoder_digest"),
        "labelled": reference.facts(settings),
        "taxonomy": reference.taxonomy,
    }
    n_typed = dict(zip(counts.patients, counts.parts[BAG][:, :-1].sum(axis=1).tolist(), strict=True))
    result: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        **provenance(),
        **facts,
        "settings": settings.model_dump(mode="json", exclude={"run", "labelled", "labels"}),
        "typing": _typing(reference, typed, settings),
        "cells": _became(typed, settings),
        "known_types": agreement(store, typed.cell_types, reference, settings),
        "types": list(counts.types),
        "rankings": _rankings(run, counts),
        "classes": _classes(ranked, differential, enrichment),
        "patients": _patients(ranked, of_patients, n_typed),
        "few": {name: n for name, n in n_typed.items() if n < settings.enough},
    }
    result |= {"sentences": sentences(result), "warnings": warnings(result), "assumptions": assumptions(result)}
    plain: dict[str, Any] = without_nan(result)
    CellTypes(typed.cell_types).save(run / CELL_TYPES, **facts)
    table = pd.DataFrame([*of_patients, *differential], columns=list(COLUMNS))
    write_table(run / DIFFERENTIAL, without_formulas(table))
    write_table(run / ENRICHMENT, without_formulas(enrichment_table(enrichment)))
    write_json(run / COMPOSITION, plain)
    return plain


def _type_run(store: BagStore, reference: Reference, settings: DifferentialSettings) -> _TypedRun:
    features = store.load()
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    steps = settings.folds + 1 + (len(reference.types) if settings.left_out_cells else 0)
    with progress("differential", steps, "trainings") as advance:
        labelled = type_labelled(reference, settings, advance)
        typed, converged = type_cells(reference, features[rows].astype(np.float32), labelled.rules, settings, advance)
        new = untaught(reference, labelled.rules, settings, advance)
    learned = np.isin(rows, reference.rows) if reference.own else np.zeros(len(rows), dtype=bool)
    for whole, out_of_fold in zip(typed, labelled.typed if reference.own else (), strict=False):
        whole[learned] = out_of_fold  # both are in the order of the store's rows
    table = _table(store.cells.iloc[rows], typed, learned, reference.types)
    return _TypedRun(table, labelled, new, labelled.not_converged + (not converged), store.n_cells - len(rows))


def _table(cells: pd.DataFrame, typed: Typed, out_of_fold: Bools, types: tuple[str, ...]) -> pd.DataFrame:
    likeliest = np.array(types, dtype=object)[typed.likeliest]
    reasons = np.array(["", "unsure", "unlike", "unsure, unlike"], dtype=object)
    return pd.DataFrame(
        {
            "patient_id": cells["patient_id"].to_numpy(),
            "cell_id": cells["cell_id"].to_numpy(),
            "cell_type": np.where(typed.known, likeliest, UNKNOWN),
            "probability": typed.probability.astype(np.float32),
            "likeliest": likeliest,
            "because": reasons[typed.unsure + 2 * typed.unlike],
            "usual": typed.usual.astype(np.float32),
            "out_of_fold": out_of_fold,
        }
    )


def _typing(reference: Reference, typed: _TypedRun, settings: DifferentialSettings) -> dict[str, Any]:
    """What the labelled cells say of the typing: each was typed by others, under rules that it had no part in."""
    labels, own, rules = reference.labels, typed.labelled.typed, typed.labelled.rules
    right, everything = own.likeliest == labels, np.ones(len(labels), dtype=bool)
    asked = {"accuracy": (right, own.known), "typed": (own.known, everything), "without_unknown": (right, everything)}
    per_type = {}
    for number, name in enumerate(reference.types):
        of_type, given = labels == number, own.known & (own.likeliest == number)
        per_type[name] = {
            "n": int(of_type.sum()),
            "found": float((given & of_type).sum() / of_type.sum()),
            "unknown": float((~own.known & of_type).sum() / of_type.sum()),
            "right_of_given": float((given & of_type).sum() / given.sum()) if given.any() else None,
        }
    return {
        **shares_over_groups(asked, everything, reference.groups.to_draw, settings),
        "temperature": rules.temperature,
        "threshold": rules.threshold.value,
        "accuracy_attained": rules.threshold.attained,
        "unlike": float(own.unlike.mean()),
        "types": per_type,
        "untaught": typed.untaught,
        "not_converged": typed.not_converged,
    }


def _became(typed: _TypedRun, settings: DifferentialSettings) -> dict[str, Any]:
    """How many of the run's cells are unknown, and why; ``unlike`` would be ``unlike_expected`` if they were alike."""
    table = typed.cell_types
    return {
        "n": len(table),
        "n_unreadable": typed.n_unreadable,
        "n_typed": int((table["cell_type"] != UNKNOWN).sum()),
        "n_out_of_fold": int(table["out_of_fold"].sum()),
        "unsure": float(table["because"].str.contains("unsure").mean()),
        "unlike": float(table["because"].str.contains("unlike").mean()),
        "unlike_expected": settings.unlike,
    }


def _rankings(run: Path, counts: Counts) -> dict[str, Any]:
    verdicts = Verdicts.load(run)
    return {
        name: {
            "faithful": verdicts.faithful(name) if verdicts else None,
            "n_patients": int(counts.has_top(name).sum()),
            "n_without_top": int((~counts.has_top(name)).sum()),
        }
        for name in counts.rankings
    }


def _classes(ranked: Ranked, differential: list[Any], enrichment: list[Any]) -> dict[str, Any]:
    predicted, label = ranked.patients["predicted"], ranked.patients["label"]
    return {
        name: {
            "n_patients": int((predicted == name).sum()),
            "n_labelled_so": None if label.isna().all() else int(((predicted == name) & (label == name)).sum()),
            "differential": [row for row in differential if row["class"] == name],
            "enrichment": [row for row in enrichment if row["class"] == name],
        }
        for name in ranked.classes
    }


def _patients(ranked: Ranked, rows: list[dict[str, Any]], n_typed: dict[str, int]) -> list[dict[str, Any]]:
    own: dict[str, list[dict[str, Any]]] = {name: [] for name in n_typed}
    for row in rows:
        own[row["patient_id"]].append({key: row[key] for key in ("cells", "cell_type", "count", "n_cells", "share")})
        own[row["patient_id"]][-1] |= {"ci_low": row["ci_low"], "ci_high": row["ci_high"]}
    predicted = ranked.patients["predicted"]
    return [
        {"patient_id": name, "class": str(predicted[name]), "n_typed": n_typed[name], "differential": found}
        for name, found in own.items()
    ]
