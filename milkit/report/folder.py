"""The report's folder: files that a reader put there survive a rerun, and text stays text in a spreadsheet."""

import os
import re
import shutil
from pathlib import Path

import pandas as pd

_OWN = re.compile(
    r"report\.html|(top_cells|shown_cells|patients|predictions|cohort|flow|differential|enrichment)\.csv"
    r"|(metrics|controls|faithfulness|composition)\.json"
    r"|guidelines/((tripod_ai|claim|table1|numbers)\.html|model_card\.(html|md)|table1\.csv|flow\.svg)"
    r"|patients/[a-z0-9-]+-[0-9a-f]{8}\.html"
    r"|figures/(target_\d+|(target_\d+_)?(calibration|class_results|confusion_matrix|decision_curves|metric_folds"
    r"|roc_curves))\.(svg|pdf)"
)
"""What ``write_report`` and ``write_guidelines`` write, relative to the folder; all else is the reader's."""


def keep_others(report: Path, fresh: Path) -> None:
    """Copy into the new folder what others put into the old one, which stays as it is."""
    for path in sorted(report.rglob("*")):
        name = path.relative_to(report)
        if (path.is_symlink() or path.is_file()) and not _OWN.fullmatch(name.as_posix()):
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, fresh / name, follow_symlinks=False)


def exchange(report: Path, fresh: Path) -> None:
    """Put the new folder in the place of the old one, which comes back if that fails."""
    old = report.with_name(f".report.old-{os.getpid()}")
    if report.exists():
        report.replace(old)
    try:
        fresh.replace(report)
    except OSError:
        if old.exists():
            old.replace(report)
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each text that a spreadsheet would compute; numbers stay numbers."""
    return table.map(lambda value: f"'{value}" if isinstance(value, str) and re.match(r"[=+\-@\t\r]", value) else value)
