"""The cells at the top of a run's rankings, for the class that was predicted: those that the galleries show first."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from milkit.errors import RunError
from milkit.explain import cell_weights
from milkit.explain.question import read_question
from milkit.explain.ranking import in_top
from milkit.explain.table import EXPLANATIONS, Explanations
from milkit.explain.verdicts import Verdicts
from milkit.predictions import SHARED, Attention
from milkit.report.target_results import figures_by_target, shown_branch

ATTENTION = "attention"


class Ranked(NamedTuple):
    """The tested patients and their weighed cells.

    Attributes:
        target: ``name`` and ``kind`` of what they are ranked for; None where the run is on the cohort's classes.
        classes: In the order of the run; of a risk or a number, being high and being low.
        patients: predicted, one of these, and label, which is None of a risk or a number. Index patient_id.
        cells: patient_id and cell_id of every cell that was weighed, and for each ranking a bool column of its name:
            whether the cell is among the top beyond doubt (``ranking.in_top``).
        rankings: Their names, attention first.
    """

    target: Mapping[str, str] | None
    classes: tuple[str, ...]
    patients: pd.DataFrame
    cells: pd.DataFrame
    rankings: tuple[str, ...]


def read_rankings(run: Path, top: int) -> Ranked:
    """Read a run's attention and, where `milkit explain` was run, its other rankings; else a ``RunError``."""
    if not (run / "settings.yaml").is_file() or not list(run.glob("predictions*.csv")):
        msg = f"{run} is no finished run; make one with `milkit train-mil`, or name its folder."
        raise RunError(msg)
    verdicts = Verdicts.load(run)
    question = read_question(run, verdicts.target if verdicts else None)  # that which the other rankings are of
    patients = pd.DataFrame({"label": question.labels, "predicted": question.predicted}, index=question.predicted.index)
    attention, shown = Attention.load(run / "attention.parquet"), patients["predicted"]
    if figures_by_target(run):
        shown = shown_branch(attention, patients, verdicts)
    weights = cell_weights(attention, shown)
    weights = weights[weights["patient_id"].isin(patients.index)].reset_index(drop=True)
    cells = weights[["patient_id", "cell_id"]].assign(attention=_tops(weights["weight"], weights["patient_id"], top))
    rankings = [ATTENTION]
    if (run / EXPLANATIONS).is_file():
        table = Explanations.load(run / EXPLANATIONS).table
        wanted = (table["class"] == SHARED) | (table["class"] == table["patient_id"].map(patients["predicted"]))
        for name, part in table[wanted & (table["method"] != ATTENTION)].groupby("method", sort=False):
            own = part.assign(**{str(name): _tops(part["score"], part["patient_id"], top)})
            joined = cells.merge(own[["patient_id", "cell_id", str(name)]], on=["patient_id", "cell_id"], how="left")
            if len(joined) != len(cells) or len(own) != len(cells) or joined[str(name)].isna().any():
                msg = (
                    f"{run / EXPLANATIONS} ranks other cells than the run weighed; make it again with `milkit explain "
                    f"{run}`."
                )
                raise RunError(msg)
            cells = joined.astype({str(name): bool})
            rankings.append(str(name))
    return Ranked(question.target, question.classes, patients, cells, tuple(rankings))


def _tops(scores: "pd.Series[float]", patients: "pd.Series[str]", top: int) -> "pd.Series[bool]":
    by_patient = scores.groupby(patients, sort=False)
    return by_patient.transform(lambda own: in_top(own.to_numpy(), top)).astype(bool)
