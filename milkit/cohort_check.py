"""VERB cohort -> findings: who is in a cohort, and what in its tables and images would spoil a study."""

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from milkit.cohort import Cohort, numeric
from milkit.errors import ImageError, SettingsError, first_rows
from milkit.images import read_image
from milkit.progress import progress

Level = Literal["note", "warning", "error"]

MIN_CELLS = 100
"""Patients with fewer cells are noted: their attention weights rest on little."""
MIN_PATIENTS = 5
"""Classes with fewer patients are warned of: five folds cannot test one of them each."""
DARK = 64
"""An image whose brightest value is below this shows no cell on a bright ground."""
MAX_SIDE_RATIO = 4
"""An image with a side above this many times the median side is hardly one cell among others."""

_AT_ONCE = 1024
"""Images that are handed to the threads together; an interruption waits for those only."""


@dataclass(frozen=True)
class Finding:
    """One sentence about a cohort; only an ``error`` must be mended before a study.

    Attributes:
        level: ``note``, ``warning`` or ``error``.
        subject: What the sentence is about: the cohort, a class, a patient or a cell.
        text: The sentence.
    """

    level: Level
    subject: str
    text: str


class _Look(NamedTuple):
    """What is kept of one image that was read; without a ``reason`` it could be decoded."""

    sha256: bytes
    height: int = 0
    width: int = 0
    blank: bool = False
    reason: str = ""


def describe(cohort: Cohort) -> pd.DataFrame:
    """One row per class: patients, cells, cells per patient, and age and sex where the cohort knows them.

    Medians and shares are over the patients whose value is known; how many are not is written behind them. Cells
    without patients are counted by their ``cell_type``.
    """
    rows = []
    for name in cohort.classes:
        patients = cohort.patients[cohort.patients["label"] == name] if cohort.has_patients else cohort.patients
        cells = cohort.cells["patient_id"].isin(patients.index)
        if not cohort.has_patients and "cell_type" in cohort.cells.columns:
            cells = cohort.cells["cell_type"] == name
        counts = cohort.cells.loc[cells, "patient_id"].value_counts()
        row = {"class": name, "patients": len(patients), "cells": int(cells.sum()), "cells/patient": _spread(counts)}
        if "age" in patients.columns:
            row["age"] = _spread(numeric(patients["age"]))
        if "sex" in patients.columns:
            row["female"] = _women(patients["sex"])
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(values: "pd.Series[Any]") -> str:
    """``median (min-max)`` of the known values."""
    known = values.dropna()
    text = f"{_short(known.median())} ({_short(known.min())}-{_short(known.max())})" if len(known) else "-"
    return text + _missing(len(values) - len(known))


def _women(sex: "pd.Series[Any]") -> str:
    """``n (p %)`` of the patients whose sex is F or M; any other value counts as missing."""
    women, known = int((sex == "F").sum()), int(sex.isin(["F", "M"]).sum())
    return (f"{women} ({100 * women / known:.0f} %)" if known else "-") + _missing(len(sex) - known)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _missing(count: int) -> str:
    return f", {count} missing" if count else ""


def check_cohort(cohort: Cohort, *, sample: int | None = None) -> list[Finding]:
    """Read every image once, and list what is wrong or worth knowing: notes first, errors last.

    Args:
        cohort: Its tables are valid already; a broken rule does not get past ``Cohort``.
        sample: Read only this many images, evenly spread; damage and duplicates among the others stay unseen.
    """
    if sample is not None and sample < 1:
        msg = f"The sample has {sample} images, expected at least 1; leave --sample out to read all."
        raise SettingsError(msg)
    findings = [Finding("note", cohort.name, note) for note in cohort.notes]
    findings += [*_few_cells(cohort), *_few_patients(cohort)]
    cells = cohort.cells
    if sample is not None and sample < len(cells):
        cells = cells.iloc[np.linspace(0, len(cells) - 1, sample).round().astype(int)].reset_index(drop=True)
        text = f"Only {sample:,} of {len(cohort.cells):,} images were read, so damage and duplicates may go unseen."
        findings.append(Finding("note", cohort.name, text))
    looks = _look_at([cohort.root / path for path in cells["path"]])
    findings += [
        *_unreadable(cells, looks),
        *_blank(cohort.name, cells, looks),
        *_duplicates(cohort.name, cells, looks),
        *_large(cohort.name, cells, looks),
    ]
    return sorted(findings, key=lambda finding: get_args(Level).index(finding.level))


def _look_at(paths: list[Path]) -> list[_Look]:
    """Read the images with as many threads as there are cores; no pixel outlives its thread's turn."""
    looks: list[_Look] = []
    with progress("check", len(paths), "images") as advance, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            for look in pool.map(_look, paths[start : start + _AT_ONCE]):
                looks.append(look)
                advance()
    return looks


def _look(path: Path) -> _Look:
    try:
        content = path.read_bytes()
    except OSError as error:
        return _Look(b"", reason=f"the file cannot be opened ({error.strerror})")
    sha256 = hashlib.sha256(content).digest()
    try:
        image = read_image(io.BytesIO(content))
    except ImageError as error:
        return _Look(sha256, reason=str(error))
    constant = bool((image == image[0, 0]).all())
    return _Look(sha256, image.shape[0], image.shape[1], blank=constant or int(image.max()) < DARK)


def _few_cells(cohort: Cohort) -> Iterator[Finding]:
    counts = cohort.cells["patient_id"].value_counts()
    few = [str(name) for name in cohort.patients.index if counts[name] < MIN_CELLS]
    if few:
        text = f"{_count(few, 'patient')} fewer than {MIN_CELLS} cells: {first_rows(few)}."
        yield Finding("note", cohort.name, text)


def _few_patients(cohort: Cohort) -> Iterator[Finding]:
    for name in cohort.classes if cohort.has_patients else ():
        count = int((cohort.patients["label"] == name).sum())
        if count < MIN_PATIENTS:
            text = (
                f"The class has {count} patients where at least {MIN_PATIENTS} are needed for five folds; "
                "add patients, or merge or leave out the class."
            )
            yield Finding("warning", f"class {name}", text)


def _unreadable(cells: pd.DataFrame, looks: list[_Look]) -> Iterator[Finding]:
    for cell, owner, path, look in zip(cells["cell_id"], cells["patient_id"], cells["path"], looks, strict=True):
        if look.reason:
            subject = f"cell {cell}" if pd.isna(owner) else f"patient {owner}, cell {cell}"
            text = f"{path} cannot be read: {look.reason}; get the file anew from its source, or leave the cell out."
            yield Finding("error", subject, text)


def _blank(name: str, cells: pd.DataFrame, looks: list[_Look]) -> Iterator[Finding]:
    blank = cells[[look.blank for look in looks]]
    for owner, group in blank.groupby("patient_id", dropna=False):
        ids = group["cell_id"].tolist()
        text = (
            f"{_count(ids, 'image')} one colour only or no value of {DARK} or above: {first_rows(ids)}; "
            "look at them, and leave out those without a cell."
        )
        yield Finding("warning", _owner(name, owner), text)


def _duplicates(name: str, cells: pd.DataFrame, looks: list[_Look]) -> Iterator[Finding]:
    """Files of the same bytes: within a patient a cell weighs double, across patients it leaks between folds."""
    files = cells.assign(sha256=[look.sha256 for look in looks])[[not look.reason for look in looks]]
    repeated = files[files.duplicated("sha256", keep=False)]
    within: dict[Any, list[str]] = {}
    for _, group in repeated.groupby("sha256", sort=False):
        owners = group["patient_id"].fillna("")
        if owners.nunique() > 1:
            ids = group["cell_id"][~owners.duplicated()].tolist()
            text = (
                f"{first_rows(ids)} are the same file in {len(ids)} patients where each cell should belong to one; "
                "find out whose it is, and remove the others."
            )
            yield Finding("error", name, text)
        for owner, same in group.groupby("patient_id", dropna=False):
            if len(same) > 1:
                within.setdefault("" if pd.isna(owner) else owner, []).append(" = ".join(same["cell_id"]))
    for owner, pairs in within.items():
        text = f"Cells are the same file where each should occur once: {first_rows(pairs)}; remove all but the first."
        yield Finding("warning", _owner(name, owner), text)


def _large(name: str, cells: pd.DataFrame, looks: list[_Look]) -> Iterator[Finding]:
    sides = np.array([max(look.height, look.width) for look in looks])
    if not sides.any():
        return
    median = float(np.median(sides[sides > 0]))
    large = [
        f"{cell} ({look.width}x{look.height})"
        for cell, look, side in zip(cells["cell_id"], looks, sides, strict=True)
        if side > MAX_SIDE_RATIO * median
    ]
    if large:
        text = (
            f"{_count(large, 'image')} a side above {MAX_SIDE_RATIO} times the median of {_short(median)} pixels: "
            f"{first_rows(large)}; see whether they show single cells, and crop or leave out those that do not."
        )
        yield Finding("warning", name, text)


def _owner(name: str, patient: Any) -> str:
    """The patient, or the cohort where cells belong to none."""
    return name if pd.isna(patient) or patient == "" else f"patient {patient}"


def _count(items: list[str], noun: str) -> str:
    """``1 image has``, ``2 images have``."""
    return f"{len(items)} {noun} has" if len(items) == 1 else f"{len(items)} {noun}s have"
