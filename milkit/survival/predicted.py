"""Risk groups and predicted survival of tested patients, none of them made with the patient's own outcome.

A Cox model knows risks up to a constant that each fold has its own of. Before risks of several folds meet, each is
taken relative to a *yardstick*: the risks of the training patients of the same model where the run has kept them, else
those of the patients that the same model tested (no outcome is looked at), else, in folds too small for that, all
out-of-fold risks of the repeat. Letters: n patients, T times.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.statistics.survival import breslow_survival, kaplan_meier
from milkit.survival.outcome import Outcome

Floats = npt.NDArray[np.float64]
Yardstick = Literal["training", "tested", "repeat"]

FEWEST_TESTED = 10
"""Patients that a fold must test for its own risks to be its yardstick."""

FEWEST_OF_CLASS = 5
"""Patients that a class must have elsewhere for a curve of its own."""

GROUPS = {2: ("low risk", "high risk"), 3: ("low risk", "middle risk", "high risk")}

YARDSTICKS: dict[Yardstick, str] = {
    "training": "quantiles of the risks of each model's own training patients",
    "tested": (
        "quantiles of out-of-fold risks, within each fold's tested patients, because the run has kept no risks of "
        "training patients: in a new patient these limits would have to be fixed beforehand"
    ),
    "repeat": (
        "quantiles of all out-of-fold risks of a repeat, because the run has kept no risks of training patients and "
        "its folds are small: risks of different folds may be on different scales"
    ),
}


class Risks(NamedTuple):
    """Risks of the patients, averaged over the repeats.

    Attributes:
        mean: (n,) log hazard relative to the mean of the yardstick.
        position: (n,) share of the yardstick below the patient, 0 to 1.
        rows: (rows,) relative log hazard of each row of the predictions.
        yardstick: What they were taken relative to.
    """

    mean: Floats
    position: Floats
    rows: Floats
    yardstick: Yardstick


def relative_risks(outcome: Outcome) -> Risks:
    """Risks relative to the yardstick of their fold, averaged per patient over the repeats."""
    table = outcome.predictions
    smallest = int(table.groupby(["repeat", "fold"]).size().min())
    yardstick: Yardstick = (
        "training" if outcome.training is not None else "tested" if smallest >= FEWEST_TESTED else "repeat"
    )
    rows, position = np.zeros(len(table)), np.zeros(len(table))
    for repeat, fold in _folds(table):
        own = _of_fold(table, repeat, fold)
        within = {"tested": own, "repeat": (table["repeat"] == repeat).to_numpy()}
        known = _training_of(outcome, repeat, fold)
        measure = np.sort(_risks(table[within[yardstick]] if known is None else known))
        risk = _risks(table[own])
        rows[own] = risk - measure.mean()
        below, up_to = (np.searchsorted(measure, risk, side=side) for side in ("left", "right"))
        position[own] = (below + up_to) / (2 * len(measure))
    return Risks(_per_patient(outcome, rows), _per_patient(outcome, position), rows, yardstick)


def risk_groups(position: Floats, n_groups: int) -> tuple[npt.NDArray[np.object_], tuple[str, ...]]:
    """Names of the groups that patients fall into, and all names, lowest risk first: halves or thirds."""
    names = GROUPS[n_groups]
    number = np.minimum((position * n_groups + 1e-9).astype(np.int64), n_groups - 1)
    return np.array(names, dtype=object)[number], names


def class_groups(outcome: Outcome) -> tuple[npt.NDArray[np.object_], tuple[str, ...]]:
    """The class of the highest probability, averaged over the repeats, and the classes that somebody was given."""
    columns = [f"p_{name}" for name in outcome.classes]
    means = outcome.predictions.groupby("patient_id")[columns].mean().loc[outcome.patients.index]
    chosen = np.array(outcome.classes, dtype=object)[means.to_numpy().argmax(axis=1)]
    return chosen, tuple(name for name in outcome.classes if name in set(chosen))


def predicted_survival(outcome: Outcome, risks: Risks | None, at: Floats) -> tuple[Floats, Floats] | None:
    """Survival that is predicted of each patient at given times, and that of a curve for everyone, both (n, T).

    What a prediction is turned into a survival with comes from the model's training patients where their risks are
    known, else from the patients that other folds of the same repeat tested: a baseline hazard (``breslow_survival``,
    slope 1) for risks, the Kaplan-Meier curve of the predicted class for classes (of all, where the class has fewer
    than 5 patients there). The curve for everyone is the Kaplan-Meier one of the same patients. Means over the repeats.
    None where there are no such patients, as with one fold alone.
    """
    table = outcome.predictions
    model, everyone = (np.zeros((len(table), len(at))) for _ in range(2))
    times = outcome.patients["time"].reindex(table["patient_id"]).to_numpy(dtype=np.float64)
    events = outcome.patients["event"].reindex(table["patient_id"]).to_numpy(dtype=np.bool_)
    for repeat, fold in _folds(table):
        own = _of_fold(table, repeat, fold)
        others = (table["repeat"] == repeat).to_numpy() & ~own
        known = _training_of(outcome, repeat, fold)
        if known is None:
            time, event = times[others], events[others]
        else:
            time, event = known["time"].to_numpy(dtype=np.float64), known["event"].to_numpy(dtype=np.bool_)
        if not len(time):
            return None
        everyone[own] = _curve(time, event, at)
        if risks is None:
            classes = table["predicted"].to_numpy()
            model[own] = _class_survival(time, event, classes[others], classes[own], at)
        else:
            measured = risks.rows[others] if known is None else _risks(known) - _risks(known).mean()
            model[own] = breslow_survival(time, event, measured, risks.rows[own], at)
    return _per_patient(outcome, model), _per_patient(outcome, everyone)


def _class_survival(
    time: Floats,
    event: npt.NDArray[np.bool_],
    of_others: npt.NDArray[np.object_],
    own: npt.NDArray[np.object_],
    at: Floats,
) -> Floats:
    result = np.tile(_curve(time, event, at), (len(own), 1))
    for name in np.unique(own.astype(str)):
        alike = of_others == name
        if alike.sum() >= FEWEST_OF_CLASS:
            result[own == name] = _curve(time[alike], event[alike], at)
    return result


def _curve(time: Floats, event: npt.NDArray[np.bool_], at: Floats) -> Floats:
    return np.asarray(kaplan_meier(time, event, at, np.ones((1, len(time))))[0])


def _folds(table: pd.DataFrame) -> list[tuple[int, int]]:
    there = table[["repeat", "fold"]].drop_duplicates().to_numpy(dtype=np.int64)
    return sorted((int(repeat), int(fold)) for repeat, fold in there)


def _of_fold(table: pd.DataFrame, repeat: int, fold: int) -> npt.NDArray[np.bool_]:
    return ((table["repeat"] == repeat) & (table["fold"] == fold)).to_numpy(dtype=np.bool_)


def _training_of(outcome: Outcome, repeat: int, fold: int) -> pd.DataFrame | None:
    if outcome.training is None:
        return None
    return outcome.training[_of_fold(outcome.training, repeat, fold)]


def _risks(table: pd.DataFrame) -> Floats:
    return table["risk"].to_numpy(dtype=np.float64)


def _per_patient(outcome: Outcome, rows: Floats) -> Floats:
    """Means over the rows of each patient, in the order of the patients."""
    position = outcome.patients.index.get_indexer(pd.Index(outcome.predictions["patient_id"]))
    total = np.zeros((len(outcome.patients), *rows.shape[1:]))
    np.add.at(total, position, rows)
    counts = np.bincount(position, minlength=len(total)).reshape(-1, *[1] * (rows.ndim - 1))
    return np.asarray(total / counts)
