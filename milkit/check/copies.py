"""Cells that occur more than once: the same file, or pictures that look the same, here and in other cohorts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.check.findings import Finding, Flag, Level, Verdict, counted, listed
from milkit.check.fingerprint import Fingerprints, near_pairs

Rows = npt.NDArray[np.int64]
Group = list[int]
"""Rows of cells that are the same: two or more, in the table's order."""

EMPTY: tuple[Flag, ...] = ("blank", "flat")
"""Flags of cells that show too little to be compared by their looks."""
LISTED = 3
"""Cells of one group that a sentence names."""


class Known(NamedTuple):
    """The cells of another cohort that can be compared, as an earlier check left them.

    Attributes:
        name: The cohort's, or the file's that they come from.
        cell_ids: One a cell.
        files: Digest and box of each; equal ones are the same cell.
        fingerprints: One a cell.
        distinct: Which of them show enough to be compared by their looks.
    """

    name: str
    cell_ids: list[str]
    files: list[str]
    fingerprints: Fingerprints
    distinct: npt.NDArray[np.bool_]


class Copies(NamedTuple):
    """Verdicts on copies, by row the cell above that a cell is a copy of, and by row ``cohort: cell`` elsewhere."""

    verdicts: list[Verdict]
    copy_of: dict[int, str]
    elsewhere: dict[int, str]


def known_cells(name: str, table: pd.DataFrame) -> Known:
    """What can be compared of a table: ``cell_id``, ``sha256``, ``fingerprint``, ``flags`` and, optional, ``box``."""
    table = table[~table["flags"].str.contains("unreadable")]
    boxes = table["box"].fillna("") if "box" in table else pd.Series("", index=table.index)
    prints = np.frombuffer(bytes.fromhex("".join(table["fingerprint"])), dtype=np.uint64).reshape(-1, 4)
    empty = table["flags"].str.contains(rf"\b(?:{'|'.join(EMPTY)})\b")
    files = (table["sha256"] + " " + boxes).tolist()
    return Known(name, table["cell_id"].tolist(), files, prints, ~empty.to_numpy(dtype=bool))


def find_copies(name: str, cells: pd.DataFrame, here: Known, others: Sequence[Known] = ()) -> Copies:
    """Compare all cells with each other, and with those of other cohorts.

    Args:
        name: The cohort's.
        cells: A row a cell: ``patient_id`` and ``label``, None where there is none. Cells whose file could not be read
            are left out.
        here: The same cells.
        others: The cells of other cohorts.
    """
    same = _same(here.files)
    first = np.setdiff1d(np.flatnonzero(here.distinct), [row for group in same for row in group[1:]])
    pairs = near_pairs(here.fingerprints[first])
    verdicts, alike = [], list[Group]()
    if pairs is None:
        text = (
            "The images are too much alike to tell copies by their looks (is there a mask or a frame on all of them?); "
            "only files that are the same were looked for."
        )
        verdicts.append(Verdict(Finding("note", name, text), np.empty(0, dtype=np.int64)))
    else:
        alike = _groups(first[pairs[:, :2]])
    verdicts += _about(name, cells, here.cell_ids, same, "copy")
    verdicts += _about(name, cells, here.cell_ids, alike, "near_copy")
    copy_of = {row: here.cell_ids[group[0]] for group in (*alike, *same) for row in group[1:]}
    elsewhere = dict[int, str]()
    for other in others:
        exact, near = _elsewhere(here, first, other)
        verdicts += _about_other(name, here.cell_ids, other, exact, "elsewhere")
        verdicts += _about_other(name, here.cell_ids, other, near, "near_elsewhere")
        elsewhere |= {row: f"{other.name}: {other.cell_ids[there]}" for row, there in (near | exact).items()}
    return Copies(verdicts, copy_of, elsewhere)


def _same(files: list[str]) -> list[Group]:
    series = pd.Series(files)
    repeated = series[series.duplicated(keep=False)]
    return [rows.tolist() for rows in repeated.groupby(repeated, sort=False).groups.values()]


def _groups(pairs: Rows) -> list[Group]:
    """Cells that pairs connect, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, numbered = np.unique(pairs, return_inverse=True)
    i, j = numbered.reshape(-1, 2).T
    _, member = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(len(rows), len(rows))), directed=False)
    order = np.argsort(member, kind="stable")
    ends = np.cumsum(np.bincount(member))
    return [part.tolist() for part in np.split(rows[order], ends[:-1]) if len(part)]


def _about(name: str, cells: pd.DataFrame, ids: list[str], groups: list[Group], flag: Flag) -> Iterator[Verdict]:
    """What copies mean: a label is wrong, a cell of one patient lies in the bag of another, or a cell weighs double."""
    labels, owners = cells["label"].to_numpy(object), cells["patient_id"].to_numpy(object)
    labelled = [f"{cell} ({label})" for cell, label in zip(ids, labels, strict=True)]
    level: Level = "error" if flag == "copy" else "warning"
    conflicts = [group for group in groups if _differ(labels[group])]
    yield from _verdict(
        Finding(level, name, "under different labels: {}; find out which is right, or leave them out.", "conflict"),
        conflicts, labelled, flag,
    )  # fmt: skip
    across = [group for group in groups if _differ(owners[group])]
    yield from _verdict(
        Finding(level, name, "in several patients: {}; find out whose the cell is, and remove the others.", flag),
        across, ids, flag,
    )  # fmt: skip
    of = "a patient" if cells["patient_id"].notna().any() else "the cohort"
    within = [group for group in groups if not _differ(owners[group])]
    yield from _verdict(
        Finding("warning", name, f"in several cells of {of}: {{}}; look at them, and keep one of each.", flag),
        within, ids, flag,
    )  # fmt: skip


def _verdict(finding: Finding, groups: list[Group], names: list[str], flag: Flag) -> Iterator[Verdict]:
    """Complete a finding's sentence: how many groups there are, and the first of them."""
    if groups:
        sign = " = " if flag == "copy" else " ~ "
        what = ("file", "occurs", "occur") if flag == "copy" else ("picture", "is found", "are found")
        shown = listed((_joined([names[row] for row in group], sign) for group in groups), len(groups))
        text = f"{counted(len(groups), *what)} {finding.text.replace('{}', shown)}"
        yield Verdict(replace(finding, text=text), np.array([row for group in groups for row in group]))


def _differ(values: npt.NDArray[Any]) -> bool:
    return len({value for value in values if isinstance(value, str)}) > 1


def _joined(names: list[str], sign: str) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return sign.join(names[:LISTED]) + more


def _elsewhere(here: Known, first: Rows, other: Known) -> tuple[dict[int, int], dict[int, int]]:
    """By row the row of the other cohort that is the same file, and of those that have none, that looks the same."""
    places = {file: row for row, file in reversed(list(enumerate(other.files)))}
    exact = {row: places[file] for row, file in enumerate(here.files) if file in places}
    there = np.flatnonzero(other.distinct)
    pairs = near_pairs(here.fingerprints[first], other.fingerprints[there])
    near: dict[int, int] = {}
    for i, j, _ in sorted(pairs.tolist(), key=lambda pair: pair[2]) if pairs is not None else ():
        if int(first[i]) not in exact:
            near.setdefault(int(first[i]), int(there[j]))
    return exact, near


def _about_other(name: str, ids: list[str], other: Known, found: dict[int, int], flag: Flag) -> Iterator[Verdict]:
    level: Level = "error" if flag == "elsewhere" else "warning"
    what = ("is a file", "are files") if flag == "elsewhere" else ("looks like one", "look like some")
    rows = sorted(found)
    if rows:
        sign = "=" if flag == "elsewhere" else "~"
        shown = listed((f"{ids[row]} {sign} {other.cell_ids[found[row]]}" for row in rows), len(rows))
        text = (
            f"{counted(len(rows), 'image', *what)} of '{other.name}' too: {shown}; "
            "do not train on one of the two cohorts and test on the other before these are left out."
        )
        yield Verdict(Finding(level, name, text, flag), np.array(rows))
