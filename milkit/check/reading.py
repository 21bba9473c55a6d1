"""Every image of a cohort, measured once; what was measured before and has not changed since is not read again."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.check.measures import MEASURED, MEASURES, UNSEEN, VERSION, CellFile, Records
from milkit.check.workers import AT_ONCE, Measured, measure_by_processes, measure_files
from milkit.progress import progress
from milkit.runs import available_cores, write_bytes

MOST_PROCESSES = 32
"""On large machines; each has 42 MB, and so many measure 50,000 images a second, more than a disk gives."""
ALONE = 512
"""Up to this many files this process measures them itself: that takes no longer than starting others."""

_KEPT = np.dtype([("key", "u8"), ("measures", MEASURES)])


class Reading(NamedTuple):
    """What was measured of some cells: a row a cell, and by row why a cell could not be read."""

    records: Records
    reasons: dict[int, str]
    n_files_read: int


def read_cells(root: Path, cells: pd.DataFrame, kept: Path | None = None, *, fresh: bool = False) -> Reading:
    """Measure the cells of a table (columns ``path`` and, where it has one, ``box``).

    Args:
        root: What the paths are relative to.
        cells: A row a cell.
        kept: A file of measures. What it has of files that still have the same path, size and times (of the content,
            and of any change) is taken over, and it is brought up to date, also when the reading is interrupted. These
            are compared, and not a digest, because for a digest every byte would have to be read: 4 GB for 100,000
            cells. A byte that fails on the disk, which changes no time, stays unseen for that reason.
        fresh: Take nothing over, and read everything.
    """
    boxes = cells["box"].fillna("").tolist() if "box" in cells else [""] * len(cells)
    paths = cells["path"].tolist()
    keys = _keys(root, paths, boxes)
    before = _load(kept)
    records = np.zeros(len(keys), dtype=MEASURES) if fresh else _taken_over(before, keys)
    reasons: dict[int, str] = {}
    n_files_read = 0
    try:
        for rows, sizes, measured in _measure(root, paths, boxes, records):
            seen = measured.records["state"] != UNSEEN
            records[rows[seen]] = measured.records[seen]
            reasons |= {int(rows[number]): reason for number, reason in measured.reasons.items()}
            n_files_read += int(np.logical_or.reduceat(seen, np.cumsum(sizes) - sizes).sum())
    finally:
        if kept is not None:
            _save(kept, before, keys, records)
    return Reading(records, reasons, n_files_read)


def _measure(
    root: Path, paths: list[str], boxes: list[str], records: Records
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Measured]]:
    """Rows of the table, cells a file, and what was measured, some files at a time; cells of a file stay together."""
    files, _ = pd.factorize(np.array(paths, dtype=object))
    order = np.argsort(files, kind="stable")
    sizes = np.bincount(files)
    ends = np.cumsum(sizes)

    def parts() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        for first in range(0, len(sizes), AT_ONCE):
            part = sizes[first : first + AT_ONCE]
            yield order[ends[first] - sizes[first] : ends[first + len(part) - 1]], part

    def batch(rows: npt.NDArray[np.int64], part: npt.NDArray[np.int64]) -> list[CellFile]:
        return [
            CellFile(paths[group[0]], [boxes[row] for row in group], *_stamp(records[group]))
            for group in np.split(rows, np.cumsum(part)[:-1])
        ]

    batches = (batch(rows, part) for rows, part in parts())
    alone = len(sizes) <= ALONE
    done = (
        (measure_files(root, files) for files in batches)
        if alone
        else measure_by_processes(root, batches, min(_cores(), len(sizes) // ALONE + 1))
    )
    with progress("check", len(paths), "images") as advance, contextlib.ExitStack() as stack:
        stack.callback(done.close)
        for (rows, part), measured in zip(parts(), done, strict=True):
            yield rows, part, measured
            advance(len(rows))


def _cores() -> int:
    """How many processes read."""
    return min(available_cores(), MOST_PROCESSES)


def _stamp(records: Records) -> tuple[int, int, int]:
    """Size and times under which all cells of a file were measured; zeros where one of them was not."""
    columns = (records[name].tolist() for name in ("file_size", "file_time", "file_change"))
    stamps = set(zip(*columns, strict=True))
    return stamps.pop() if len(stamps) == 1 else (0, 0, 0)


def _keys(root: Path, paths: list[str], boxes: list[str]) -> npt.NDArray[np.uint64]:
    """64 bits of a digest a cell; among 100,000 cells two are equal with a chance of 3 in 10 thousand million."""
    place = f"{VERSION}\n{root.resolve()}"
    digests = (
        hashlib.blake2b(f"{place}\n{path}\n{box}".encode(errors="surrogateescape"), digest_size=8).digest()
        for path, box in zip(paths, boxes, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def _load(kept: Path | None) -> npt.NDArray[Any]:
    """What was kept, sorted by key; nothing where there is none, or the file is damaged or of another version."""
    if kept is not None and kept.is_file():
        with contextlib.suppress(ValueError, EOFError):  # only a convenience: without it, all is read again
            table: npt.NDArray[Any] = np.load(kept, allow_pickle=False)
            if table.dtype == _KEPT:
                return table
    return np.empty(0, dtype=_KEPT)


def _taken_over(before: npt.NDArray[Any], keys: npt.NDArray[np.uint64]) -> Records:
    records = np.zeros(len(keys), dtype=MEASURES)
    if len(before):
        place = np.searchsorted(before["key"], keys).clip(0, len(before) - 1)
        same = before["key"][place] == keys
        records[same] = before["measures"][place[same]]
    return records


def _save(kept: Path, before: npt.NDArray[Any], keys: npt.NDArray[np.uint64], records: Records) -> None:
    """Only what was measured: a file that could not be read is tried again."""
    rows = np.flatnonzero(records["state"] == MEASURED)
    table = np.empty(len(rows), dtype=_KEPT)
    table["key"], table["measures"] = keys[rows], records[rows]
    table = np.concatenate([table, before[~np.isin(before["key"], keys)]])
    content = io.BytesIO()
    np.save(content, table[np.argsort(table["key"], kind="stable")], allow_pickle=False)
    write_bytes(kept, content.getvalue())
