"""VERB readers' files -> agreement, expert against model, and the expert labels of the run.

Written into the run folder:

* ``expert_labels.csv``: one row a cell, patient_id, cell_id, cell_type (a node of the taxonomy; empty where the readers
  agree on none), readers (how many) and review. The columns are those of a store's own cells, so that whoever takes
  labels from a column ``cell_type`` can join them by patient and cell. A later review adds its cells and replaces those
  that it shares with an earlier one.
* ``review/<id>.labels.csv``: one row a reader and showing, with comment and time, unblinded.
* ``review/<id>.result.json``: the figures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.errors import ReviewError
from milkit.figure_text import with_interval
from milkit.report.folder import without_formulas
from milkit.review.compare import against_model, between_readers, consensus, within_readers
from milkit.review.key import Key, find_run
from milkit.review.labels import check_readings, read_labels, to_table, with_formulas
from milkit.runs import write_json
from milkit.tables import read_table, write_table

EXPERT_LABELS = "expert_labels.csv"
_EXPERT_COLUMNS = ["patient_id", "cell_id", "cell_type", "readers", "review"]


def read_review(files: Sequence[Path], runs: list[Path], *, partial: bool = False) -> dict[str, Any]:
    """Read what readers sent back, compare it, and keep it in the run folder.

    Args:
        files: One a reader, all of one review.
        runs: Where its key may be.
        partial: Whether cells may lack a label.

    Returns:
        JSON: review, run, taxonomy, readers (cells labelled by each), n_cells, n_patients, and the figures of
        ``compare``: between_readers, within_readers, against_model; expert_labels is the path of that table.
    """
    readings = [read_labels(path) for path in files]
    for reading in readings[1:]:
        if reading.review != readings[0].review:
            msg = (
                f"{reading.path} is of the review {reading.review}, and {readings[0].path} of {readings[0].review}; "
                "give the files of one review at a time."
            )
            raise ReviewError(msg)
    run = find_run(readings[0].review, runs)
    key = Key.load(run, readings[0].review)
    check_readings(readings, key, partial=partial)
    labels = to_table(readings, key)
    cells = consensus(labels, key.taxonomy)
    first = labels[labels["showing"] == 1]
    result = {
        "review": key.review,
        "run": str(run),
        "taxonomy": key.taxonomy.name,
        "readers": {reading.reader: int((labels["reader"] == reading.reader).sum()) for reading in readings},
        "n_cells": len(cells),
        "n_patients": int(first["patient_id"].nunique()),
        "between_readers": between_readers(labels, key.taxonomy, seed=key.seed),
        "within_readers": within_readers(labels, key.taxonomy, seed=key.seed),
        "against_model": against_model(cells, key.taxonomy, seed=key.seed),
    }
    write_table(run / "review" / f"{key.review}.labels.csv", without_formulas(labels))
    write_json(run / "review" / f"{key.review}.result.json", {**result, "run": run.resolve().name})
    return {**result, "expert_labels": str(_keep(cells.assign(review=key.review)[_EXPERT_COLUMNS], run))}


def _keep(cells: pd.DataFrame, run: Path) -> Path:
    """Put the cells among those of earlier reviews."""
    path = run / EXPERT_LABELS
    table = cells
    if path.is_file():
        earlier = with_formulas(read_table(path))
        new = set(zip(cells["patient_id"], cells["cell_id"], strict=True))
        shared = [cell in new for cell in zip(earlier["patient_id"], earlier["cell_id"], strict=True)]
        others = earlier[(earlier["review"] != cells["review"].iloc[0]) & ~pd.Series(shared, dtype=bool)]
        table = pd.concat([others, cells], ignore_index=True)
    write_table(path, without_formulas(table))
    return path


def summary(result: dict[str, Any]) -> list[str]:
    """The result of ``read_review`` in sentences and rows, for a terminal."""
    readers = ", ".join(f"{name} ({n})" for name, n in result["readers"].items())
    lines = [f"review {result['review']}: {result['n_cells']} cells of {result['n_patients']} patients; {readers}"]
    for pair in result["between_readers"]:
        lines += _agreed(" and ".join(pair["readers"]), pair)
    for one in result["within_readers"]:
        lines += _agreed(f"{one['reader']} and the same again", one)
    if result["against_model"]:
        lines += [
            "",
            "Expert against model: the chance that a cell which the readers call so has a higher attention percentile",
            "in its patient than one that they call otherwise (0.5: no relation); attention is that for the predicted",
            "class, or for the output that the report shows. Shown: the reviewed cells, in which both ends of the",
            "ranking are overrepresented; all: whole bags.",
            f"{'cell type':<24} {'cells':>5} {'patients':>8}   {'AUC, shown':<22} {'AUC, all':<22}",
        ]
    for row in result["against_model"]:
        shown, whole = (with_interval(row[key], nothing="undefined") for key in ("shown", "all_cells"))
        lines.append(f"{row['cell_type']:<24} {row['n_cells']:>5} {row['n_patients']:>8}   {shown:<22} {whole:<22}")
    return lines


def _agreed(who: str, figures: dict[str, Any]) -> list[str]:
    given, levelled = figures["as_given"], figures["levelled"]
    kappas = [with_interval(figure, nothing="undefined") for figure in (given, levelled)]
    lines = [f"{who}: kappa {kappas[0]}, the same label for {given['n_equal']} of {figures['n_cells']} cells"]
    if levelled["n_equal"] != given["n_equal"]:
        lines.append(f"  at the coarser of two levels: kappa {kappas[1]}, {levelled['n_equal']} the same")
    return lines
