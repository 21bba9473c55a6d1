"""Which of a run's targets its cells are explained and counted for, and what each patient was predicted to be there."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from milkit.explain.ranking import consensus_predictions
from milkit.predictions import Predictions, choose_target
from milkit.runs import read_json


class Question(NamedTuple):
    """What is explained.

    Attributes:
        target: ``name`` and ``kind``; None where the run is on the cohort's classes.
        classes: What a cell can speak for: those of the target; of a risk or a number, being high and being low.
        predicted: The class that cells are ranked for, one of ``classes``, by patient id.
        labels: The true ones; None of a risk or a number.
    """

    target: Mapping[str, str] | None
    classes: tuple[str, ...]
    predicted: "pd.Series[str]"
    labels: "pd.Series[str] | None" = None


def read_question(run: Path, name: str | None) -> Question:
    """Of a run folder: its target of this name, or its first one."""
    path = run / "metrics.json"
    metrics = read_json(path) if path.is_file() else {}
    several = metrics.get("targets", {})
    name, path = choose_target(run, metrics, name or next(iter(several), None))
    target = several.get(name, metrics).get("target")
    predictions = Predictions.load(path, any_target=target is not None)
    if predictions.classes:
        patients = consensus_predictions(predictions)
        return Question(target, predictions.classes, patients["predicted"], patients["label"])
    what = "risk" if "risk" in predictions.table else name
    classes = f"higher {what}", f"lower {what}"
    return Question(target, classes, _direction(predictions.table, classes))


def _direction(table: pd.DataFrame, classes: tuple[str, str]) -> "pd.Series[str]":
    """Whether a patient's prediction lies above the middle one, on average over the repeats, or not.

    Risks of models of different folds have no common zero, and are compared within their fold.
    """
    column, among = ("risk", ["repeat", "fold"]) if "risk" in table else ("predicted", ["repeat"])
    above = table[column] - table.groupby(among)[column].transform("median")
    mean = above.groupby(table["patient_id"].astype(str)).mean()
    words = [classes[0] if value > 0 else classes[1] for value in mean]
    return pd.Series(words, index=mean.index, name="predicted", dtype=object)
