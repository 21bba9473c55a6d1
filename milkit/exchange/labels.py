"""The labels of imported bags: from the files that milkit wrote, from a table of patients, or from integers.

In this order. A table is CSV in UTF-8 with a header, ``patient_id`` and ``label``; further columns become covariates
(age, sex, …) and ``hdf5_file``, which ``milkit export`` writes, is left aside. Where two sources name a patient's
class, they must agree.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from milkit.cohort import natural_key
from milkit.errors import CohortError, StoreError, first_rows
from milkit.exchange.patient_files import PatientFile
from milkit.tables import read_table


class Labelled(NamedTuple):
    """Patients (index patient_id; label and covariates), the classes in order, and notes, one sentence each."""

    patients: pd.DataFrame
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_patients(path: Path) -> pd.DataFrame:
    """Read a table of patients, index ``patient_id``; one that breaks the rules above is a ``CohortError``."""
    try:
        table = read_table(path)
    except (StoreError, OSError, ValueError):
        msg = (
            f"The table {path} is missing or no table; give a CSV file in UTF-8 with the columns patient_id and label "
            "with --patients."
        )
        raise CohortError(msg) from None
    absent = [name for name in ("patient_id", "label") if name not in table]
    if absent:
        msg = (
            f"The table {path} has the columns {', '.join(map(str, table))} and lacks {', '.join(absent)}; name them "
            "in its first line, separated by commas."
        )
        raise CohortError(msg)
    table["patient_id"], table["label"] = table["patient_id"].str.strip(), table["label"].str.strip()
    ids = table["patient_id"]
    faults = {
        "no patient_id in row": [str(row + 2) for row in table.index[ids.isna() | (ids == "")]],
        "several rows for": ids[ids.duplicated() & ids.notna()].tolist(),
        "no label for": ids[table["label"].isna() | (table["label"] == "")].astype(str).tolist(),
    }
    if found := "; ".join(f"{what} {first_rows(rows)}" for what, rows in faults.items() if rows):
        msg = f"The table {path} needs one row with a label for each patient ({found}); mend the table."
        raise CohortError(msg)
    return table.set_index("patient_id").drop(columns="hdf5_file", errors="ignore")


def imported_labels(
    files: Mapping[str, tuple[Path, PatientFile]], table: pd.DataFrame | None, named: Sequence[str]
) -> Labelled:
    """Find each patient's label; a missing or contradictory one is a ``CohortError`` that names the file.

    Args:
        files: Path and content by patient.
        table: From ``read_patients``.
        named: The names that the integers in ``labels`` stand for; also the order of the classes.
    """
    known = {} if table is None else dict(zip(table.index, table["label"], strict=True))
    labels = {}
    for name, (path, patient) in files.items():
        labels[name] = _label(path, patient, known if table is not None else None, named)
    classes = tuple(named) or _classes_of_files(files) or tuple(sorted(set(labels.values()), key=natural_key))
    for name, label in labels.items():
        if label not in classes:
            msg = (
                f"{files[name][0]} has the label '{label}', which is none of the classes {', '.join(classes)}; mend "
                "the label, or name all classes with --classes."
            )
            raise CohortError(msg)
    patients = pd.DataFrame({"label": pd.Series(labels)}).rename_axis("patient_id").sort_index()
    if table is not None:
        patients = patients.join(table.drop(columns="label"))
    return Labelled(patients, classes, tuple(_notes(files, table, labels, named)))


def _label(path: Path, patient: PatientFile, known: Mapping[str, str] | None, named: Sequence[str]) -> str:
    sources: dict[str, str] = {}
    if patient.label:
        sources["the file's own label"] = patient.label
    if known is not None and patient.patient_id in known:
        sources["the table of patients"] = known[patient.patient_id]
    if named and patient.number is not None and not patient.label:
        if patient.number >= len(named):
            msg = (
                f"{path} has `labels` {patient.number}, counted from 0, and --classes names {len(named)} classes; name "
                "all classes, in the order of the integers."
            )
            raise CohortError(msg)
        sources["--classes"] = named[patient.number]
    if len(set(sources.values())) > 1:
        said = " and ".join(f"'{label}' by {source}" for source, label in sources.items())
        msg = f"The patient of {path} is labelled {said}; mend one of them, or leave it out."
        raise CohortError(msg)
    if sources:
        return next(iter(sources.values()))
    if known is not None:
        msg = f"The patient '{patient.patient_id}' of {path} has no row in the table of patients; add it to the table."
        raise CohortError(msg)
    if patient.number is None:
        msg = f"{path} holds no `labels`; give a table with the columns patient_id and label with --patients."
        raise CohortError(msg)
    return str(patient.number)


def _classes_of_files(files: Mapping[str, tuple[Path, PatientFile]]) -> tuple[str, ...]:
    said = [(path, patient.classes) for path, patient in files.values() if patient.classes]
    for path, classes in said:
        if classes != said[0][1]:
            msg = (
                f"{path} names the classes {', '.join(classes)}, and {said[0][0].name} beside it "
                f"{', '.join(said[0][1])}; import the bags of one cohort at a time, or name the classes with --classes."
            )
            raise CohortError(msg)
    return said[0][1] if said else ()


def _notes(
    files: Mapping[str, tuple[Path, PatientFile]],
    table: pd.DataFrame | None,
    labels: Mapping[str, str],
    named: Sequence[str],
) -> list[str]:
    notes = []
    if table is None and not named and any(not patient.label for _, patient in files.values()):
        notes.append(
            "The files name their classes by integers only, and so does this cohort; name them with --classes, in the "
            "order of the integers."
        )
    if table is not None:
        if strangers := len(table.index.difference(list(files))):
            notes.append(f"{strangers} patients of the table have no file and were left out.")
        meant = defaultdict(set)
        for name, (_, patient) in files.items():
            if patient.number is not None:
                meant[patient.number].add(labels[name])
        if several := [f"{number} ({', '.join(sorted(of))})" for number, of in sorted(meant.items()) if len(of) > 1]:
            notes.append(f"Integers in the files stand for several labels of the table: {'; '.join(several)}.")
    return notes
