"""Folds that others published, so that results can be compared: what is read, and what it means.

* A folder with a folder for each fold, of which each holds ``train.csv``, ``val.csv`` (or ``validation.csv``) and
  ``test.csv``, one patient a row with the id in the first column and, optional, ``labels`` (GenBloom's layout). Where
  all test the same patients, the folds count as repeats, whose figures are averaged; where each patient is tested
  once, they are one partition. Anything between is refused.
* milkit's own ``folds.csv``: patient_id, repeat, fold, role.
* A table with the id in ``patient_id``, or else in the first column, and a column of folds, whose values are each
  tested once, or of roles: train, test and, optional, validation. Without validation patients each of several
  stratified parts of the training patients serves once, and these count as repeats.

Patients that only the publication has, and those that only the store has, are left out and counted in a note.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from milkit.clinical_tables import plain, read_table
from milkit.cohort import natural_key
from milkit.errors import FoldError, first_rows
from milkit.folds import ROLES, Folds, refuse_unequal_repeats, so_many

_ROLE_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
Names = Callable[["pd.Series[Any]"], "pd.Series[Any]"]

MOST_FOLDS = 20
"""A column with more values is none of folds."""


class Published(NamedTuple):
    """Folds of the store's patients, and what a reader should know, one sentence each."""

    folds: Folds
    notes: tuple[str, ...]


def published_folds(
    path: Path,
    labels: "pd.Series[str]",
    column: str | None = None,
    *,
    inner: int = 5,
    seed: int = 0,
    named: Names = lambda ids: ids,
) -> Published:
    """Read published folds for the patients of a store.

    Args:
        path: A folder or a table, see above.
        labels: Of the store's patients, index patient_id.
        column: Of a table with several: the folds or roles.
        inner: Parts of the training patients, each of which validates once where no validation patients are given.
        seed: Determines these parts.
        named: Turns published ids into the store's, where its runs know patients by study ids.

    Raises:
        FoldError: What does not fit: no such layout, a patient in two roles, tests that overlap in part, labels that
            cannot be those of the store, or a fold without patients of a role.
    """
    if path.is_dir():
        table, told = _from_folder(path, named)
        _check_labels(path, told, labels)
    elif path.is_file():
        table = _from_table(path, labels, column, named, inner=inner, seed=seed)
    else:
        msg = f"The folds {path} do not exist; give a table of folds, or a folder with train, val and test.csv a fold."
        raise FoldError(msg)
    known = table["patient_id"].isin(labels.index)
    strangers, absent = table.loc[~known, "patient_id"].nunique(), int((~labels.index.isin(table["patient_id"])).sum())
    are = ["is" if n == 1 else "are" for n in (strangers, absent)]
    notes = [f"{so_many(strangers)} of the published folds {are[0]} not in the store."] if strangers else []
    if absent:
        notes.append(f"{so_many(absent)} of the store {are[1]} not in the published folds, and out of this run.")
    folds = Folds(table[known].reset_index(drop=True))
    _check(path, folds, labels)
    refuse_unequal_repeats(folds.tested)
    return Published(folds, tuple(notes))


def _from_folder(path: Path, named: Names) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The folds (patient_id, repeat, fold, role), and the published labels (patient_id, label), which may be empty."""
    folders = sorted({file.parent for file in path.rglob("test.csv")}, key=lambda folder: natural_key(folder.name))
    if not folders:
        msg = f"{path} holds no folder with train.csv, val.csv and test.csv; give the folder that holds one a fold."
        raise FoldError(msg)
    parts, labels = [], []
    for fold, folder in enumerate(folders):
        for role, names in (("train", ("train",)), ("validation", ("val", "validation")), ("test", ("test",))):
            there = [file for name in names if (file := folder / f"{name}.csv").is_file()]
            if not there:
                msg = f"{folder} has no {names[0]}.csv, where train.csv, val.csv and test.csv were expected; add it."
                raise FoldError(msg)
            rows = read_table(there[0])
            ids = named(rows.iloc[:, 0].map(plain))
            parts.append(pd.DataFrame({"patient_id": ids, "repeat": 0, "fold": fold, "role": role}))
            if "labels" in rows:
                labels.append(pd.DataFrame({"patient_id": ids, "label": rows["labels"]}))
    table = pd.concat(parts, ignore_index=True)
    _refuse_two_roles(path, table)
    tests = [frozenset(part["patient_id"]) for _, part in table[table["role"] == "test"].groupby("fold")]
    if len(tests) > 1 and len(set(tests)) == 1:
        table = table.assign(repeat=table["fold"], fold=0)
    elif sum(map(len, tests)) > len(frozenset().union(*tests)):
        msg = (
            f"The folds in {path} test some patients several times and others not; expected folds that all test the "
            "same patients, or each patient once, so give one such set of folds."
        )
        raise FoldError(msg)
    return table, pd.concat(labels, ignore_index=True) if labels else pd.DataFrame(columns=["patient_id", "label"])


def _from_table(
    path: Path, labels: "pd.Series[str]", column: str | None, named: Names, *, inner: int, seed: int
) -> pd.DataFrame:
    rows = read_table(path)
    if column is None and {"patient_id", "repeat", "fold", "role"} <= set(rows):
        own = Folds.load(path).table
        return own.assign(patient_id=named(own["patient_id"]))
    ids = named(rows["patient_id" if "patient_id" in rows else rows.columns[0]].map(plain))
    others = [str(name) for name in rows.columns if name not in {ids.name, "labels", "label"}]
    column = column or (others[0] if len(others) == 1 else None)
    if column is None or column not in others:
        msg = (
            f"{path} has the columns {first_rows(others, 10)} beside '{ids.name}'; say with --by which of them holds "
            "the fold or the role of each patient."
        )
        raise FoldError(msg)
    if ids.duplicated().any():
        msg = f"{path} has several rows for patient '{ids[ids.duplicated()].iloc[0]}', expected one; leave one of them."
        raise FoldError(msg)
    values = pd.Series(rows[column].map(plain).to_numpy(), index=pd.Index(ids, name="patient_id"))
    values = values[values != ""]
    roles = values.str.lower().map(_ROLE_NAMES)
    if roles.notna().all() and len(roles):
        return _of_roles(path, roles, labels, inner=inner, seed=seed)
    names = sorted(set(values), key=natural_key)
    if roles.notna().any() or not 3 <= len(names) <= MOST_FOLDS:
        msg = (
            f"The column '{column}' of {path} holds {first_rows(names)}, expected train and test, or from 3 to "
            f"{MOST_FOLDS} folds; name another column with --by."
        )
        raise FoldError(msg)
    return Folds.partition(values.index, np.array([[names.index(value) for value in values]])).table


def _of_roles(path: Path, roles: "pd.Series[str]", labels: "pd.Series[str]", *, inner: int, seed: int) -> pd.DataFrame:
    """One fixed test, with the published validation patients or with each part of the training patients in turn."""
    tables = [roles]
    if "validation" not in set(roles):
        of_training = labels[labels.index.isin(roles.index[roles == "train"])]
        if of_training.empty:
            msg = f"{path} trains on no patient of the store; give the folds of this cohort."
            raise FoldError(msg)
        parts = Folds.stratified(of_training, inner, seed=seed).splits()
        tables = [roles.mask(roles.index.isin(part.test), "validation") for part in parts]
    return pd.concat(
        [
            pd.DataFrame({"patient_id": own.index, "repeat": repeat, "fold": 0, "role": own.to_numpy()})
            for repeat, own in enumerate(tables)
        ],
        ignore_index=True,
    )


def _refuse_two_roles(path: Path, table: pd.DataFrame) -> None:
    twice = table[table.duplicated(["patient_id", "repeat", "fold"])]
    if len(twice):
        name, fold = twice[["patient_id", "fold"]].iloc[0]
        msg = f"{path} has patient '{name}' twice in fold {fold}, expected one role; leave one of the rows."
        raise FoldError(msg)


def _check_labels(path: Path, named: pd.DataFrame, labels: "pd.Series[str]") -> None:
    """Refuse labels that change within a class of the store: then the ids mean other patients. Names may differ."""
    own = named.assign(here=named["patient_id"].map(labels)).dropna()
    for label, here in own.groupby("label", sort=True)["here"]:
        if len(there := sorted(set(here))) > 1:
            msg = (
                f"The label '{label}' in {path} stands for {' and '.join(there[:3])} in the store, expected one class; "
                "give the folds of this cohort, or mend its labels."
            )
            raise FoldError(msg)


def _check(path: Path, folds: Folds, labels: "pd.Series[str]") -> None:
    """Refuse folds without patients of a role, and training that lacks a class."""
    n_splits = 0
    for split in folds.splits():
        n_splits += 1
        for role in ROLES:
            if not getattr(split, role):
                msg = (
                    f"Fold {split.fold} (repeat {split.repeat}) of {path} has no {role} patient that is in the store; "
                    "give the folds of this cohort."
                )
                raise FoldError(msg)
        if lacking := sorted(set(labels[[*split.test, *split.validation]]) - set(labels[split.train])):
            msg = (
                f"Fold {split.fold} (repeat {split.repeat}) of {path} has no training patient of the class "
                f"'{lacking[0]}'; leave out that class, or use other folds."
            )
            raise FoldError(msg)
    if not n_splits:
        msg = f"{path} has no patient of the store; give the folds of this cohort."
        raise FoldError(msg)
