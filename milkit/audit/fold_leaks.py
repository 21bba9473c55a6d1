"""What the folds of a run give away: patients on both sides, and steps that were fitted on others than they may be."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from milkit.audit.findings import AuditFinding, several
from milkit.audit.subject import Audited
from milkit.folds import Folds, patients_digest

_AGAIN = "make the run again with folds that hold each patient once"


def about_folds(audited: Audited) -> Iterator[AuditFinding]:
    """Whether each patient has one role in a fold and is tested once a repeat, by a model that did not know them."""
    yield from _two_roles(audited.folds)
    yield from _two_folds(audited.folds)
    yield from _own_models(audited)
    yield from _groups(audited)
    recorded = audited.provenance.get("folds_digest")
    if recorded is not None and recorded != Folds(audited.folds).digest:
        text = "folds.csv is not the table that the run was made with; get the original back, or make the run again."
        yield AuditFinding("error", "folds-changed", text)
    yield from _fitted(audited)


def _two_roles(folds: pd.DataFrame) -> Iterator[AuditFinding]:
    twice = folds[folds.duplicated(["patient_id", "repeat", "fold"], keep=False)]
    for _, own in twice.groupby(["repeat", "fold"], sort=True):
        people = sorted(set(own["patient_id"].astype(str)))
        repeat, fold, roles = own["repeat"].iloc[0], own["fold"].iloc[0], " and ".join(sorted(set(own["role"])))
        what = several(people, "patient", "has", "have")
        text = f"{what} two rows in fold {fold} (repeat {repeat}), with the roles {roles}; {_AGAIN}."
        yield AuditFinding("error", "patient-in-two-roles", text)


def _two_folds(folds: pd.DataFrame) -> Iterator[AuditFinding]:
    tested = folds[folds["role"] == "test"].drop_duplicates(["patient_id", "repeat", "fold"])
    for repeat, own in tested.groupby("repeat"):
        times = own["patient_id"].value_counts()
        if people := sorted(str(name) for name in times.index[times > 1]):
            text = f"{several(people, 'patient', 'is', 'are')} tested in two folds of repeat {repeat}; {_AGAIN}."
            yield AuditFinding("error", "patient-in-two-folds", text)


def _own_models(audited: Audited) -> Iterator[AuditFinding]:
    """Predictions by a model of a fold whose training or validation knew the patient, or of no such fold."""
    keys = ["patient_id", "repeat", "fold"]
    tested = audited.folds.loc[audited.folds["role"] == "test", keys].drop_duplicates()
    predicted = pd.concat([table[keys] for table in audited.tables], ignore_index=True)
    found = predicted.merge(tested, on=keys, how="left", indicator=True)
    if people := sorted(set(found.loc[found["_merge"] == "left_only", "patient_id"].astype(str))):
        text = (
            f"{several(people, 'patient', 'was', 'were')} predicted by a fold that does not test them, so that its "
            "model may know them; make the run again."
        )
        yield AuditFinding("error", "prediction-of-known-patient", text)


def _groups(audited: Audited) -> Iterator[AuditFinding]:
    """Whether patients who were to stay together do."""
    column = audited.settings.by or ("site" if audited.settings.splits != "partition" else None)
    if column is None or column not in audited.store.patients or audited.settings.folds_file is not None:
        return
    group = audited.store.patients[column].astype(str)
    roles = audited.folds.assign(group=audited.folds["patient_id"].map(group), tested=audited.folds["role"] == "test")
    sides = roles.groupby(["repeat", "fold", "group"])["tested"].nunique()
    if parted := sorted(set(sides.index[sides > 1].get_level_values("group"))):
        what = several(parted, "value", "is", "are")
        text = f"Of '{column}', {what} trained on and tested in one fold; make the run again."
        yield AuditFinding("error", "group-parted", text)


def _fitted(audited: Audited) -> Iterator[AuditFinding]:
    """Whether every fitted step saw the fold's own training or validation patients, and nobody else."""
    fitted: dict[str, Any] = audited.provenance.get("fitted_on") or {}
    if not fitted:
        text = "provenance.json does not say on whom the run's steps were fitted, so that cannot be checked."
        yield AuditFinding("warning", "not-assessed", text)
    for split in Folds(audited.folds.drop_duplicates(["patient_id", "repeat", "fold", "role"])).splits():
        train, validation = patients_digest(split.train), patients_digest(split.validation)
        inner = patients_digest([*split.train, *split.validation])
        strict = {"train": {train}, "validation": {validation}}
        for step, found in (fitted.get(split.name) or {}).items():
            if found not in strict.get(step, {train, validation, inner}):
                text = (
                    f"The step '{step}' of {split.name} was fitted on {_whom(found, split, audited)}, where it may "
                    "know this fold's training or validation patients only; make the run again."
                )
                yield AuditFinding("error", "fitted-outside-fold", text)


def _whom(found: str, split: Any, audited: Audited) -> str:
    everybody = [*split.train, *split.validation, *split.test]
    known = {
        patients_digest(split.test): "its tested patients",
        patients_digest(everybody): "all patients of the fold, the tested ones among them",
        patients_digest([*split.train, *split.test]): "its training and tested patients",
        patients_digest(list(map(str, audited.store.patients.index))): "all patients of the cohort",
        patients_digest(split.train): "its training patients",
        patients_digest(split.validation): "its validation patients",
    }
    return known.get(found, "other patients than those of folds.csv")
