"""Which of a run's targets its cells are explained for, and what that asks of each head."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from milkit.explain.parts import EVERY_CLASS, Asked
from milkit.explain.ranking import consensus_predictions
from milkit.predictions import Predictions, choose_target
from milkit.runs import read_json
from milkit.target_choice import described_target
from milkit.targets import Classes, Target


class Question(NamedTuple):
    """What is explained.

    Attributes:
        target: ``name`` and ``kind``; None where the run is on the cohort's classes.
        classes: What a cell can speak for: those of the target; of a risk or a number, being high and being low.
        predicted: The class that cells are ranked for, one of ``classes``, by patient id.
    """

    target: Mapping[str, str] | None
    classes: tuple[str, ...]
    predicted: "pd.Series[str]"


def read_question(run: Path, name: str | None) -> Question:
    """Of a run folder: its target of this name, or its first one."""
    path = run / "metrics.json"
    metrics = read_json(path) if path.is_file() else {}
    several = metrics.get("targets", {})
    name, path = choose_target(run, metrics, name or next(iter(several), None))
    target = several.get(name, metrics).get("target")
    predictions = Predictions.load(path, any_target=target is not None)
    if predictions.classes:
        return Question(target, predictions.classes, consensus_predictions(predictions)["predicted"])
    what = "risk" if "risk" in predictions.table else name
    classes = f"higher {what}", f"lower {what}"
    return Question(target, classes, _direction(predictions.table, classes))


def asked_of(facts: Mapping[str, Any], question: Question) -> Asked:
    """What the question asks of a head that was saved with these facts."""
    if question.target is None:
        return EVERY_CLASS
    names = [one["name"] for one in facts["targets"]]
    place = names.index(question.target["name"])
    first, one = n_outputs({"targets": facts["targets"][:place]}), facts["targets"][place]
    target = described_target(one)
    number = None if isinstance(target, Classes) else partial(_number, target, torch.tensor(one["fitted"]))
    return Asked(slice(first, first + len(one["outputs"])), number)


def n_outputs(facts: Mapping[str, Any]) -> int:
    """Of a head that was saved with these facts."""
    return sum(len(one["outputs"]) for one in facts["targets"]) if "targets" in facts else len(facts["classes"])


def _number(target: Target, fitted: Tensor, outputs: Tensor) -> Tensor:
    return target.scores(outputs, fitted.to(outputs.device))[:, 0]


def _direction(table: pd.DataFrame, classes: tuple[str, str]) -> "pd.Series[str]":
    """Whether a patient's prediction lies above the middle one, on average over the repeats, or not.

    Risks of models of different folds have no common zero, and are compared within their fold.
    """
    column, among = ("risk", ["repeat", "fold"]) if "risk" in table else ("predicted", ["repeat"])
    above = table[column] - table.groupby(among)[column].transform("median")
    mean = above.groupby(table["patient_id"].astype(str)).mean()
    words = [classes[0] if value > 0 else classes[1] for value in mean]
    return pd.Series(words, index=mean.index, name="predicted", dtype=object)
