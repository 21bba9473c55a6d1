"""What readers of published data sets share, whatever the layout: the folder that was given, counts, no patients."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from milkit.cohort import Cohort, natural_key
from milkit.errors import CohortError, first_rows
from milkit.tables import CELL_COLUMNS


def given_folder(root: Path | None, name: str, published: str) -> Path:
    """``root``, if it is a folder; ``published`` says what was expected in it, and where to get it."""
    if root is None:
        msg = f"No folder was given for the cohort '{name}', where {published}"
        raise CohortError(msg)
    if not root.expanduser().is_dir():
        msg = f"The folder {root} does not exist, where {published}"
        raise CohortError(msg)
    return root.expanduser()


def without_patients(name: str, root: Path, cells: pd.DataFrame, notes: Sequence[str]) -> Cohort:
    """A cohort of cells that belong to no patient: none is invented, so multiple-instance learning refuses it."""
    patients = pd.DataFrame({"label": []}, index=pd.Index([], name="patient_id"), dtype=object)
    further = [column for column in cells if column not in CELL_COLUMNS]
    ownerless = cells.assign(patient_id=None)[[*CELL_COLUMNS, *further]]
    return Cohort(name, root, patients, ownerless, (), tuple(notes), ids="pseudonymous")


def count_note(found: Mapping[str, int], published: Mapping[str, int]) -> list[str]:
    """One sentence where counts differ from the published ones; nothing where they agree."""
    differ = [f"{found[what]:,} {what} ({number:,})" for what, number in published.items() if found[what] != number]
    return [f"Counts differ from the published ones, which stand in brackets: {first_rows(differ)}."] if differ else []


def missing_note(what: str, names: Collection[str]) -> list[str]:
    """One sentence on the files or rows of which something holds, and their number; nothing where there are none."""
    return [f"{what} ({len(names):,}): {first_rows(sorted(names, key=natural_key))}."] if names else []
