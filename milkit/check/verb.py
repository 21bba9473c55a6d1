"""VERB cohort -> check: read every image once, and say what is wrong or worth knowing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from milkit.check.copies import Known, find_copies, known_cells
from milkit.check.findings import Finding, Verdict, by_level
from milkit.check.images import about_images
from milkit.check.people import about_people
from milkit.check.reading import Reading, read_cells
from milkit.cohort import Cohort
from milkit.errors import SettingsError

COLUMNS = (
    "width",
    "height",
    "constant",
    "brightest",
    "brightness",
    "contrast",
    "white",
    "black",
    "sharpness",
    "tear",
    "tear_row",
)
"""Measures that are columns of the table of cells, see ``milkit.check.measures.MEASURES``."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found.

    Attributes:
        cohort: What was checked.
        findings: Notes first, errors last.
        cells: A row a cell: cell_id, patient_id, path, box, cell_type (where the cohort has them), the measures,
            sha256 of the file and fingerprint of the cell in hexadecimal, ``reason`` (why it cannot be read),
            ``flags``, with blanks between them, ``copy_of`` (a cell above it, or the whole field that it is a part of)
            and ``elsewhere`` (``cohort: cell``).
        n_files_read: Files that were read; the others had not changed since an earlier check.
    """

    cohort: Cohort
    findings: list[Finding]
    cells: pd.DataFrame
    n_files_read: int


def check_cohort(
    cohort: Cohort,
    *,
    sample: int | None = None,
    against: Sequence[Known] = (),
    kept: Path | None = None,
    fresh: bool = False,
) -> Check:
    """Read every image once, and judge what was measured of it.

    Args:
        cohort: Its tables are valid already; a broken rule does not get past ``Cohort``.
        sample: Look only at this many cells, evenly spread; damage and copies among the others stay unseen.
        against: Cells of other cohorts, to find those that are in this one too.
        kept: A file that keeps the measures for the next check of the same files; see ``milkit.check.reading``.
        fresh: Read files, too, that have not changed since.
    """
    if sample is not None and sample < 1:
        msg = f"The sample has {sample} images, expected at least 1; leave --sample out to read all."
        raise SettingsError(msg)
    findings = list(about_people(cohort))
    cells = cohort.cells
    if sample is not None and sample < len(cells):
        cells = cells.iloc[np.linspace(0, len(cells) - 1, sample).round().astype(int)].reset_index(drop=True)
        text = f"Only {sample:,} of {len(cohort.cells):,} images were read, so damage and copies may go unseen."
        findings.append(Finding("note", cohort.name, text))
    reading = read_cells(cohort.root, cells, kept, fresh=fresh)
    table = _table(cells, reading)
    verdicts = list(about_images(cohort.name, table, reading.reasons))
    table["flags"] = _flags(verdicts, len(table))
    there = np.setdiff1d(np.arange(len(table)), list(reading.reasons))
    readable = table.iloc[there].reset_index(drop=True)
    copies = find_copies(cohort.name, _labelled(cohort, readable), known_cells(cohort.name, readable), against)
    verdicts += [Verdict(finding, there[rows]) for finding, rows in copies.verdicts]
    table["flags"] = _flags(verdicts, len(table))
    for column, named in (("copy_of", copies.copy_of), ("elsewhere", copies.elsewhere)):
        table[column] = pd.Series({int(there[row]): cell for row, cell in named.items()}, dtype=object)
    findings += [finding for finding, _ in verdicts]
    return Check(cohort, by_level(findings), table, reading.n_files_read)


def _table(cells: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    table = cells[[name for name in ("cell_id", "patient_id", "path", "box", "cell_type") if name in cells]].copy()
    records = reading.records
    for name in COLUMNS:
        table[name] = records[name]
    for name, width in (("sha256", 32), ("fingerprint", 32)):
        text = np.ascontiguousarray(records[name]).tobytes().hex()
        table[name] = [text[start : start + 2 * width] for start in range(0, len(text), 2 * width)]
    table["reason"] = pd.Series(reading.reasons, dtype=object)
    return table


def _flags(verdicts: Sequence[Verdict], n_cells: int) -> list[str]:
    flags: dict[int, list[str]] = {}
    for finding, rows in verdicts:
        for row in rows.tolist():
            if finding.flag and finding.flag not in flags.setdefault(row, []):
                flags[row].append(finding.flag)
    return [" ".join(flags.get(row, ())) for row in range(n_cells)]


def _labelled(cohort: Cohort, table: pd.DataFrame) -> pd.DataFrame:
    """Whose each cell is, and what it is called: its own type where the cohort has types, else its patient's label."""
    owners = table["patient_id"].astype(object).where(table["patient_id"].notna(), None)
    if "cell_type" in table:
        labels = table["cell_type"].astype(object).where(table["cell_type"].notna(), None)
    else:
        labels = owners.map(cohort.patients["label"]) if cohort.has_patients else owners
    return pd.DataFrame({"patient_id": owners, "label": labels})
