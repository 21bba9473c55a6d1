"""The tables of a bag store: ``patients.csv``, ``cells.csv``, and ``failures.csv`` with its journals.

While a store is being written, each writer appends the cells that could not be read to a journal of its own,
``failures-<rank>.jsonl``: one line of JSON a group, on the disk before the group is committed. The last line of a group
holds; a line that a kill or a full disk has torn is of a group that is not committed, and is passed over. When all
writers are done, the journals are merged into ``failures.csv``.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags.files import sync
from milkit.errors import StoreError
from milkit.tables import CELL_COLUMNS, digest, read_table, write_table


class Failure(NamedTuple):
    """A cell that could not be read, as ``failures.csv`` lists it."""

    patient_id: str
    cell_id: str
    path: str
    reason: str


def read_store_table(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """A table that has these columns; a missing or damaged one is a ``StoreError``."""
    check_there(path)
    try:
        table = read_table(path)
    except ValueError:  # no CSV, or no UTF-8
        raise _damaged(path) from None
    if not set(columns) <= set(table.columns):
        raise _damaged(path)
    return table


def read_patients(store: Path) -> pd.DataFrame:
    """The table of the groups, by ``patient_id``."""
    patients = read_store_table(store / "patients.csv", ["patient_id"]).set_index("patient_id")
    if not patients.index.is_unique:
        raise _damaged(store / "patients.csv")
    return patients


def read_cells(store: Path, n_cells: int) -> pd.DataFrame:
    """The table of the cells; one of another length than the store's arrays is a ``StoreError``."""
    cells = read_store_table(store / "cells.csv", CELL_COLUMNS)
    if len(cells) != n_cells:
        msg = (
            f"The table {store / 'cells.csv'} does not have the {n_cells} cells of the store; the store is damaged, so "
            "move its folder away and extract again."
        )
        raise StoreError(msg)
    return cells


def check_there(path: Path) -> None:
    """A table that is missing or empty is a ``StoreError``."""
    if not path.is_file() or not path.stat().st_size:
        raise _damaged(path)


def divide(patients: pd.DataFrame, cells: pd.DataFrame, block: int) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Patients, or blocks of cells where there are none, and the rows (n_groups, 2) of each; see ``milkit.bags``."""
    if len(patients):
        counts = cells["patient_id"].value_counts().reindex(patients.index).to_numpy()
        if not np.array_equal(np.repeat(patients.index.to_numpy(), counts), cells["patient_id"].to_numpy()):
            msg = "The cells are not sorted like the patients; give both tables of a Cohort, which sorts them."
            raise StoreError(msg)
        ends = np.cumsum(counts)
        return patients, np.stack([ends - counts, ends], axis=1).astype(np.int64)
    starts = np.arange(0, len(cells), block, dtype=np.int64)
    index = pd.Index([f"block-{number:05d}" for number in range(len(starts))], name="patient_id")
    return pd.DataFrame(index=index), np.stack([starts, np.minimum(starts + block, len(cells))], axis=1)


def plain(reason: str) -> str:
    """A reason as one line that can be written and read back: what is not printable becomes a blank."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split()) or "no reason given"


def failure_table(rows: Sequence[Failure]) -> pd.DataFrame:
    """Cells that could not be read: patient_id, cell_id, path, reason."""
    return pd.DataFrame(list(rows), columns=list(Failure._fields), dtype=object)


def failure_bytes(rows: Sequence[Failure]) -> bytes:
    """The lines of ``failures.csv`` that hold these cells; a group's checksum is over them, too."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue().encode()


def journal(store: Path, rank: int, group: str, failures: Sequence[Failure]) -> None:
    """Note the failed cells of a group, and wait until they have reached the disk."""
    path = store / f"failures-{rank}.jsonl"
    is_new = not path.exists()
    with path.open("ab") as file:
        # The newline goes first, too, so that a line that a full disk has torn does not take this one with it.
        file.write(b"\n" + json.dumps({"patient_id": group, "failures": failures}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync(store)


def read_failures(store: Path, groups: Collection[str]) -> list[Failure]:
    """The failed cells of these groups, in the groups' order; where a journal knows a group, it holds."""
    journals = _journals(store)  # read first: what a merge takes away meanwhile is in the table by then
    path, failures = store / "failures.csv", dict[str, list[Failure]]()
    if path.is_file():
        table = read_store_table(path, Failure._fields)[list(Failure._fields)]
        for failure in map(Failure._make, table.itertuples(index=False)):
            failures.setdefault(failure.patient_id, []).append(failure)
    failures |= journals
    return [row for group in groups for row in failures.get(group, [])]


def merge_failures(store: Path, groups: Collection[str]) -> None:
    """Write ``failures.csv`` anew with the failed cells of these groups alone, and take the journals away."""
    if failures := read_failures(store, groups):
        write_table(store / "failures.csv", failure_table(failures))
    else:
        (store / "failures.csv").unlink(missing_ok=True)
    sync(store)
    for path in store.glob("failures-*.jsonl"):
        path.unlink()


def failures_are_as_written(store: Path, groups: Collection[str]) -> bool:
    """Whether ``failures.csv``, if it is there, is byte for byte what milkit writes for these groups."""
    path = store / "failures.csv"
    if not path.is_file() or _journals(store):
        return True
    return hashlib.sha256(path.read_bytes()).hexdigest() == digest(failure_table(read_failures(store, groups)))


def _journals(store: Path) -> dict[str, list[Failure]]:
    failures = dict[str, list[Failure]]()
    for path in sorted(store.glob("failures-*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                record = json.loads(line)
                failures[str(record["patient_id"])] = [Failure._make(row) for row in record["failures"]]
            except (ValueError, TypeError, KeyError):  # empty or torn
                continue
    return failures


def _damaged(path: Path) -> StoreError:
    return StoreError(f"The table {path} is missing or damaged, where milkit had written one; make its store again.")
