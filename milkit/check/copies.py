"""Cells that occur more than once: the same file, or pictures that look the same, here and in other cohorts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.check.findings import Finding, Flag, Level, Verdict, counted, listed
from milkit.check.fingerprint import Fingerprints, near_pairs
from milkit.images import parse_box

Rows = npt.NDArray[np.int64]
Group = list[int]
"""Rows of cells that are the same: two or more, in the table's order."""

EMPTY: tuple[Flag, ...] = ("blank", "flat")
"""Flags of cells that show too little to be compared by their looks."""
LISTED = 3
"""Cells of one group that a sentence names."""
SHARED = 0.5
"""Of the smaller one of two boxes in a file, from which on they show the same cell: others drew its box anew."""


class Known(NamedTuple):
    """The cells of another cohort that can be compared, as an earlier check left them.

    Attributes:
        name: The cohort's, or the file's that they come from.
        cell_ids: One a cell.
        files: Digest of each one's file.
        boxes: Its part of the file, empty for the whole; the same part of the same file is the same cell.
        fingerprints: One a cell.
        distinct: Which of them show enough to be compared by their looks.
    """

    name: str
    cell_ids: list[str]
    files: list[str]
    boxes: list[str]
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
    cell_ids, files = table["cell_id"].tolist(), table["sha256"].tolist()
    return Known(name, cell_ids, files, boxes.tolist(), prints, ~empty.to_numpy(dtype=bool))


def find_copies(name: str, cells: pd.DataFrame, here: Known, others: Sequence[Known] = ()) -> Copies:
    """Compare all cells with each other, and with those of other cohorts.

    Args:
        name: The cohort's.
        cells: A row a cell: ``patient_id`` and ``label``, None where there is none. Cells whose file could not be read
            are left out.
        here: The same cells.
        others: The cells of other cohorts.
    """
    same, whole = _same(here), _whole(here)
    first = np.setdiff1d(np.flatnonzero(here.distinct), [row for group in same for row in group[1:]])
    pairs = near_pairs(here.fingerprints[first])
    verdicts, alike = [], list[Group]()
    if pairs is None:
        verdicts.append(_alike(name, "copies by their looks"))
    else:
        alike = _groups(first[pairs[:, :2]])
    verdicts += _about(name, cells, here.cell_ids, same, "copy")
    verdicts += _about_whole(name, cells, here.cell_ids, whole)
    verdicts += _about(name, cells, here.cell_ids, alike, "near_copy")
    copy_of = {row: here.cell_ids[group[0]] for group in (*alike, *whole, *same) for row in group[1:]}
    elsewhere = dict[int, str]()
    for other in others:
        exact, near = _same_elsewhere(here, other), _near_elsewhere(here, first, other)
        if near is None:
            verdicts.append(_alike(name, f"by their looks which of them '{other.name}' has too"))
            near = {}
        near |= {row: near[group[0]] for group in same if group[0] in near for row in group}
        near = {row: place for row, place in near.items() if row not in exact}
        verdicts += _about_other(name, here, other, exact, "elsewhere")
        verdicts += _about_other(name, here, other, near, "near_elsewhere")
        elsewhere |= {row: f"{other.name}: {other.cell_ids[there]}" for row, there in (near | exact).items()}
    return Copies(verdicts, copy_of, elsewhere)


def _alike(name: str, what: str) -> Verdict:
    text = (
        f"The images are too much alike to tell {what} (is there a mask or a frame on all of them?); only files that "
        "are the same were looked for."
    )
    return Verdict(Finding("note", name, text), np.empty(0, dtype=np.int64))


def _same(here: Known) -> list[Group]:
    """Cells that are the same part of the same file."""
    cells = pd.DataFrame({"file": here.files, "box": here.boxes})
    repeated = cells[cells.duplicated(keep=False)]
    return [rows.tolist() for rows in repeated.groupby(["file", "box"], sort=False).groups.values()]


def _whole(here: Known) -> list[Group]:
    """Of files that are one cell as a whole and others in parts: the first that is the whole, and the parts.

    The parts are no copies of each other, so that they may well have different labels.
    """
    files, parted = pd.Series(here.files), np.array(here.boxes, dtype=object) != ""
    both = files[files.isin(files[parted]) & files.isin(files[~parted])]
    groups = [rows.to_numpy() for rows in both.groupby(both, sort=False).groups.values()]
    return [[int(rows[~parted[rows]][0]), *rows[parted[rows]].tolist()] for rows in groups]


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


def _about_whole(name: str, cells: pd.DataFrame, ids: list[str], groups: list[Group]) -> Iterator[Verdict]:
    """What it means that a field is a cell beside its own cells: these weigh double, or are of another patient."""
    owners = cells["patient_id"].to_numpy(object)
    meanings: tuple[tuple[Level, bool, str], ...] = (
        ("error", True, "find out whose the field is, and remove the others"),
        ("warning", False, "leave out the whole or its parts"),
    )
    for level, across, advice in meanings:
        chosen = [group for group in groups if _differ(owners[group]) == across]
        if chosen:
            named = (
                f"{ids[first]} with {_joined([ids[row] for row in parts], ', ')} in it" for first, *parts in chosen
            )
            what = counted(len(chosen), "file", "is one cell as a whole", "are one cell as a whole")
            text = f"{what} and others in parts: {listed(named, len(chosen))}; {advice}."
            yield Verdict(Finding(level, name, text, "copy"), _rows(chosen))


def _verdict(finding: Finding, groups: list[Group], names: list[str], flag: Flag) -> Iterator[Verdict]:
    """Complete a finding's sentence: how many groups there are, and the first of them."""
    if groups:
        sign = " = " if flag == "copy" else " ~ "
        what = ("file", "occurs", "occur") if flag == "copy" else ("picture", "is found", "are found")
        shown = listed((_joined([names[row] for row in group], sign) for group in groups), len(groups))
        text = f"{counted(len(groups), *what)} {finding.text.replace('{}', shown)}"
        yield Verdict(replace(finding, text=text), _rows(groups))


def _rows(groups: list[Group]) -> Rows:
    return np.array([row for group in groups for row in group])


def _differ(values: npt.NDArray[Any]) -> bool:
    return len({value for value in values if isinstance(value, str)}) > 1


def _joined(names: list[str], sign: str) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return sign.join(names[:LISTED]) + more


def _same_elsewhere(here: Known, other: Known) -> dict[int, int]:
    """By row the row of the other cohort that is of the same file and shows the cell.

    The same part comes first, then the whole file or a part of it, then a part that shares most of the smaller one.
    """
    places = dict[str, list[int]]()
    common = set(here.files)
    for row, file in enumerate(other.files):
        if file in common:
            places.setdefault(file, []).append(row)
    found = dict[int, int]()
    for row, (file, box) in enumerate(zip(here.files, here.boxes, strict=True)):
        shares = [(_share(box, other.boxes[place]), -place) for place in places.get(file, ())]
        if shares and (best := max(shares))[0] >= SHARED:
            found[row] = -best[1]
    return found


def _share(box: str, other: str) -> float:
    """How much of the smaller of two boxes both have; 3 where they are equal, 2 where one of them is the whole file."""
    if box == other:
        return 3
    if not (box and other):
        return 2
    one, two = parse_box(box), parse_box(other)
    width = min(one.left + one.width, two.left + two.width) - max(one.left, two.left)
    height = min(one.top + one.height, two.top + two.height) - max(one.top, two.top)
    return max(width, 0) * max(height, 0) / min(one.width * one.height, two.width * two.height)


def _near_elsewhere(here: Known, first: Rows, other: Known) -> dict[int, int] | None:
    """By row, of ``first``, the row of the other cohort that looks most like it; None where all are too much alike."""
    there = np.flatnonzero(other.distinct)
    pairs = near_pairs(here.fingerprints[first], other.fingerprints[there])
    if pairs is None:
        return None
    near = dict[int, int]()
    for i, j, _ in sorted(pairs.tolist(), key=lambda pair: pair[2]):
        near.setdefault(int(first[i]), int(there[j]))
    return near


def _about_other(name: str, here: Known, other: Known, found: dict[int, int], flag: Flag) -> Iterator[Verdict]:
    level: Level = "error" if flag == "elsewhere" else "warning"
    what = ("is a file", "are files") if flag == "elsewhere" else ("looks like one", "look like some")
    rows = sorted(found)
    if rows:
        relation = _relation if flag == "elsewhere" else lambda *_: "{} ~ {}"
        forms = (relation(here.boxes[row], other.boxes[found[row]]) for row in rows)
        pairs = ((here.cell_ids[row], other.cell_ids[found[row]]) for row in rows)
        shown = listed((form.format(*pair) for form, pair in zip(forms, pairs, strict=True)), len(rows))
        text = (
            f"{counted(len(rows), 'image', *what)} of '{other.name}' too: {shown}; "
            "do not train on one of the two cohorts and test on the other before these are left out."
        )
        yield Verdict(Finding(level, name, text, flag), np.array(rows))


def _relation(box: str, other: str) -> str:
    """How two cells of a file are named together."""
    if box == other:
        return "{} = {}"
    return "{} overlaps {}" if box and other else "{} in {}" if box else "{} with {} in it"
