"""What a check leaves in the workspace: the table of cells, the contact sheet, and the measures for the next check."""

from pathlib import Path

import pandas as pd

from milkit import settings
from milkit.check.copies import Known, known_cells
from milkit.check.sheet import contact_sheet
from milkit.check.verb import Check
from milkit.errors import CohortError
from milkit.runs import Workspace, write_text
from milkit.settings import CohortRecipe
from milkit.tables import write_table

CELLS, SHEET, MEASURES = "cells.csv", "sheet.html", "measures.npy"


def check_folder(workspace: Workspace, cohort: str) -> Path:
    """Where the check of a cohort is kept: ``checks/<cohort>`` in the workspace."""
    return workspace.root / "checks" / cohort


def write_check(check: Check, folder: Path) -> None:
    """Write ``cells.csv`` and ``sheet.html`` into a folder; each is whole or as it was."""
    write_table(folder / CELLS, check.cells)
    write_text(folder / SHEET, contact_sheet(check))


def read_known(named: str, workspace: Workspace, cohort: str) -> Known:
    """The cells of another cohort, from its last check in this workspace, or from a ``cells.csv`` of another place.

    Args:
        named: A cohort that was checked here (its name, or the path of its recipe), or the path of such a table, which
            holds no images, but ids, labels and paths of its cells: pass it on as you would the cohort's own table.
        workspace: Where checks are kept.
        cohort: The cohort that is being checked, which cannot be compared with itself.
    """
    if named.endswith(".csv"):
        path = Path(named)
        name = path.resolve().parent.name if path.name == CELLS else path.stem
    else:
        name = settings.load(CohortRecipe, Path(named), {}).name if settings.is_path(named) else named
        path = check_folder(workspace, name) / CELLS
        if name == cohort:
            msg = f"--against names '{name}', which is the cohort itself; its own copies are looked for anyway."
            raise CohortError(msg)
    if not path.is_file():
        msg = (
            f"There is no table of cells at {path} to compare with; make it with `milkit cohort check {named}` first, "
            "or give the path of a cells.csv."
        )
        raise CohortError(msg)
    wanted = ["cell_id", "box", "sha256", "fingerprint", "flags"]
    try:
        table = pd.read_csv(path, usecols=lambda column: column in wanted, dtype=str, keep_default_na=False)
        return known_cells(name, table)
    except (ValueError, KeyError) as error:
        msg = f"{path} is not a table of cells that `milkit cohort check` wrote ({error}); give its cells.csv."
        raise CohortError(msg) from None
