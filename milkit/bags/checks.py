"""The checks of a bag store's content: of what is about to be written, and of every byte that was."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags.arrays import BagArrays
from milkit.bags.tables import Failure, failure_bytes, failures_are_as_written, plain, read_failures
from milkit.errors import StoreError


def accepted(
    group: str,
    cells: pd.DataFrame,
    features: npt.NDArray[np.floating[Any]],
    dtype: np.dtype[Any],
    failures: Mapping[str, str],
) -> tuple[npt.NDArray[Any], list[Failure]]:
    """A group's features as they are stored, NaN where a cell failed, and the group's failures.

    A failure of a cell that the group does not have, and a row that is not finite without being listed, are each a
    ``StoreError``: no cell is lost silently.
    """
    ids = cells["cell_id"].to_numpy()
    if strangers := sorted(set(failures) - set(ids)):
        msg = (
            f"Cell '{strangers[0]}' was listed among the failures of patient '{group}', which has no such cell; list "
            "the patient's own cells."
        )
        raise StoreError(msg)
    failed = np.array([cell in failures for cell in ids])
    with np.errstate(over="ignore"):
        stored = np.array(features, dtype=dtype, order="C")
    stored[failed] = np.nan
    wrong = ids[~np.isfinite(stored).all(axis=1) & ~failed]
    if len(wrong):
        msg = (
            f"Cell '{wrong[0]}' was given features that are not finite as {dtype}, without a reason; list it among "
            "the failures, or store the features as float32."
        )
        raise StoreError(msg)
    lost = zip(ids[failed], cells["path"].to_numpy()[failed], strict=True)
    return stored, [Failure(group, cell, path, plain(failures[cell])) for cell, path in lost]


def checksum(
    features: npt.NDArray[Any], image_sha256: npt.NDArray[np.uint8], failures: Sequence[Failure]
) -> npt.NDArray[np.uint8]:
    """SHA-256 over a group's features, its image digests and, where it has some, its lines in ``failures.csv``."""
    content = features.tobytes() + image_sha256.tobytes() + failure_bytes(failures)
    return np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)


def content_faults(path: Path, arrays: BagArrays, groups: Sequence[str], cells: pd.DataFrame) -> list[str]:
    """What is wrong with the groups, one sentence each; a damaged ``failures.csv`` is a ``StoreError``."""
    failures = read_failures(path, groups)
    faults = [] if failures_are_as_written(path, groups) else ["failures.csv is not the table that was written"]
    failed = {group: list(rows) for group, rows in groupby(failures, lambda failure: failure.patient_id)}
    for position, (group, mark) in enumerate(zip(groups, arrays.marks(), strict=True)):
        if mark == 1:
            faults += _group_faults(arrays, position, group, cells, failed.get(group, []))
        else:
            state = "not committed" if mark == 0 else f"marked with {mark}, neither committed (1) nor pending (0)"
            faults.append(f"patient '{group}' is {state}")
    return faults


def _group_faults(
    arrays: BagArrays, position: int, group: str, cells: pd.DataFrame, failures: Sequence[Failure]
) -> list[str]:
    first, last = arrays.rows[position]
    features, digests = arrays.read("features", first, last), arrays.read("image_sha256", first, last)
    cells, faults = cells.iloc[first:last], list[str]()
    if not (cells["patient_id"].isna() | (cells["patient_id"] == group)).all():
        faults.append(f"the rows of patient '{group}' are not those of its cells in cells.csv")
    if not np.array_equal(checksum(features, digests, failures), arrays.read("checksums", position, position + 1)[0]):
        faults.append(f"the bytes of patient '{group}' are not those that were written")
    lost = set(cells["cell_id"][~np.isfinite(features).all(axis=1)])
    for cell in sorted(lost ^ {failure.cell_id for failure in failures}):
        known = (
            "no features, and no reason in failures.csv" if cell in lost else "a reason in failures.csv, and features"
        )
        faults.append(f"cell '{cell}' of patient '{group}' has {known}")
    return faults
