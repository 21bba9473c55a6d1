"""The targets that settings ask for, from the columns of the patients; what cannot be learned is refused here."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from milkit.covariates import MOST_LEVELS
from milkit.errors import FoldError, SettingsError, first_rows
from milkit.folds import Folds
from milkit.registry import unknown_name
from milkit.settings import Component, MilSettings
from milkit.targets import Classes, DiscreteSurvival, Floats, Regression, Survival, Target, as_texts, is_known

KINDS = ("label", "classes", "survival", "discrete-survival", "regression")
MOST_BINS = 50


def choose_targets(settings: MilSettings, patients: pd.DataFrame, classes: Sequence[str]) -> tuple[Target, ...]:
    """The targets of a run, in the order in which they were named; none where that is the cohort's classes alone.

    ``label`` are the cohort's classes, ``classes:COLUMN`` those of another column, ``regression:COLUMN`` is a number,
    ``survival`` and ``discrete-survival`` take the columns ``time`` and ``event`` or those that their arguments of that
    name give; ``bins`` are those of time, and ``called`` is another name for the target.

    Args:
        settings: Of `milkit train-mil`.
        patients: The patient table.
        classes: Of the cohort's ``label``, in the order of the outputs.

    Raises:
        UnknownName: A kind or a column that there is not.
        SettingsError: Arguments that a target does not take, columns that do not hold such a target, a target that is
            a covariate, or two of one name.
    """
    targets = tuple(
        _target(component, patients, classes, weighted=settings.training.class_weights) for component in settings.target
    )
    for target in targets:
        if [other.name for other in targets].count(target.name) > 1:
            msg = (
                f"Several targets are called '{target.name}', where each needs a name of its own; give one by `called`."
            )
            raise SettingsError(msg)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_. -]*", target.name):
            msg = (
                f"The target '{target.name}' names a file, expected letters, digits, blanks and _.- only; give it "
                "another name by `called`."
            )
            raise SettingsError(msg)
        if both := set(target.columns) & set(settings.covariates):
            msg = f"The column '{min(both)}' is a covariate and the target; name it as one of them only."
            raise SettingsError(msg)
    if [target.columns for target in targets] == [("label",)] and isinstance(targets[0], Classes):
        return ()
    return targets


def described_target(facts: Mapping[str, Any]) -> Target:
    """The target that was saved beside a head: ``name``, ``kind``, ``columns`` and ``outputs``."""
    name, columns, outputs = str(facts["name"]), tuple(facts["columns"]), tuple(facts["outputs"])
    match facts["kind"]:
        case Classes.kind:
            return Classes(name, columns, outputs)
        case Survival.kind:
            return Survival(name, columns)
        case DiscreteSurvival.kind:
            return DiscreteSurvival(name, columns, len(outputs))
    return Regression(name, columns)


def stratify(targets: Sequence[Target], patients: pd.DataFrame) -> pd.DataFrame:
    """The patients of whom some outcome is known, with what their folds are balanced by in the place of ``label``.

    That is the first target; who lacks it counts as most of the others do.
    """
    known = np.stack([is_known(target.outcomes(patients)) for target in targets])
    strata = np.full(len(patients), "", dtype=object)
    strata[known[0]] = targets[0].strata(targets[0].outcomes(patients)[known[0]])
    names, counts = np.unique(strata[known[0]].astype(str), return_counts=True)
    strata[~known[0]] = names[counts.argmax()]
    return patients.assign(label=strata).iloc[np.flatnonzero(known.any(axis=0))]


def check_splits(targets: Sequence[Target], patients: pd.DataFrame, folds: Folds) -> None:
    """Refuse splits in which a target cannot be learned, or training not be stopped.

    Raises:
        FoldError: A target that the training patients of a split tell nothing about, or a split whose validation
            patients tell nothing about any.
    """
    rows = {str(name): row for row, name in enumerate(patients.index)}
    outcomes = [target.outcomes(patients) for target in targets]
    for split in folds.splits():
        train, validation = (
            [values[own][is_known(values[own])] for values in outcomes]
            for own in ([rows[name] for name in role] for role in (split.train, split.validation))
        )
        where = f"of repeat {split.repeat}, fold {split.fold}"
        for target, known in zip(targets, train, strict=True):
            if lack := target.lacks(known):
                msg = (
                    f"The training patients {where} lack {lack}, from which the target '{target.name}' is learned; "
                    "give fewer folds or other splits, or leave the target out."
                )
                raise FoldError(msg)
        if not any(_has_loss(target, known) for target, known in zip(targets, validation, strict=True)):
            msg = (
                f"The validation patients {where} lack {targets[0].lacks(validation[0])}, by which the training on the "
                f"target '{targets[0].name}' is stopped; give fewer folds or other splits."
            )
            raise FoldError(msg)


def _has_loss(target: Target, known: Floats) -> bool:
    """Whether a loss of these patients can fall and rise; that of survival cannot without events."""
    return not target.lacks(known) if isinstance(target, Survival) else len(known) > 0


def _target(component: Component, patients: pd.DataFrame, classes: Sequence[str], *, weighted: bool) -> Target:
    kind, arguments = component.name, component.arguments
    if kind not in KINDS:
        raise unknown_name("kind of target", kind, list(KINDS))  # noqa: EM101
    if kind in {"survival", "discrete-survival"}:
        columns = (str(arguments.pop("time", "time")), str(arguments.pop("event", "event")))
        name = str(arguments.pop("called", kind))
        bins = arguments.pop("bins", 4) if kind == "discrete-survival" else None
        _take_no(arguments, kind)
        _check_times(patients, columns, kind)
        return Survival(name, columns) if bins is None else DiscreteSurvival(name, columns, _bins(bins))
    column = str(arguments.pop("model", arguments.pop("column", "label" if kind == "label" else "")))
    name = str(arguments.pop("called", column))
    _take_no(arguments, kind)
    if column not in patients:
        what = f"column for the target '{kind}'"
        raise unknown_name(what, column, [str(known) for known in patients])
    if kind == "regression":
        _require(patients, column, "numbers", lambda values: np.isfinite(values))
        return Regression(name, (column,))
    return Classes(name, (column,), _classes_of(patients, column, classes), weighted)


def _take_no(arguments: dict[str, Any], kind: str) -> None:
    if arguments:
        msg = f"The target '{kind}' was given {first_rows(sorted(arguments))}, which it does not take; leave that out."
        raise SettingsError(msg)


def _bins(bins: object) -> int:
    if not isinstance(bins, int) or not 2 <= bins <= MOST_BINS:
        msg = (
            f"The target 'discrete-survival' was given bins {bins}, expected 2 to {MOST_BINS}; give a number of these."
        )
        raise SettingsError(msg)
    return bins


def _check_times(patients: pd.DataFrame, columns: tuple[str, str], kind: str) -> None:
    if absent := [name for name in columns if name not in patients]:
        msg = (
            f"The store's patients have no column {' and no column '.join(absent)}, which the target '{kind}' needs; "
            "add time and event (1 or 0) to the cohort's table of patients and run `milkit extract` again, or name "
            "other columns."
        )
        raise SettingsError(msg)
    time, event = columns
    _require(patients, time, "times from 0 upwards", lambda values: np.isfinite(values) & (values >= 0))
    _require(patients, event, "1 (event) or 0 (end of follow-up)", lambda values: np.isin(values, (0.0, 1.0)))
    known = patients[event].notna() & patients[time].notna()
    if not patients.loc[known, event].astype(bool).any():
        msg = (
            f"None of the {int(known.sum())} patients with a time in '{time}' has an event in '{event}', from which "
            f"the target '{kind}' is learned; follow them up for longer, or name another target."
        )
        raise SettingsError(msg)


def _require(patients: pd.DataFrame, column: str, what: str, holds: Callable[[Any], Any]) -> None:
    """Refuse a column with a value, of those that are there, that is not what was expected."""
    own = patients[column].dropna()
    try:
        right = np.asarray(holds(own.to_numpy(dtype=np.float64)), dtype=np.bool_)
    except (TypeError, ValueError):
        right = np.array([not isinstance(value, str) for value in own])
    if own.empty or not right.all():
        found = f"'{own[~right].iloc[0]}' for patient '{own.index[~right][0]}'" if len(own) else "no value"
        msg = f"The column '{column}' holds {found}, expected {what}; mend the table of patients."
        raise SettingsError(msg)


def _classes_of(patients: pd.DataFrame, column: str, classes: Sequence[str]) -> tuple[str, ...]:
    if column == "label":
        return tuple(classes)
    names = tuple(sorted(set(as_texts(patients[column])) - {""}))
    if not 2 <= len(names) <= MOST_LEVELS:
        msg = (
            f"The column '{column}' has {len(names)} different values, expected 2 to {MOST_LEVELS} classes; group "
            f"them, or, where they are numbers, name `regression:{column}`."
        )
        raise SettingsError(msg)
    return names
