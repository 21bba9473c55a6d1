"""CSV tables of stores and runs: ids stay text, only empty fields are missing, and a table is whole or not there."""

from pathlib import Path

import pandas as pd

from milkit.runs import write_text

_TEXT_COLUMNS = {"patient_id", "cell_id", "path", "label", "predicted", "reason", "cell_type"}


def read_table(path: Path) -> pd.DataFrame:
    """Read a table in which ids such as ``NA`` are text, and only empty fields are missing."""
    header = pd.read_csv(path, nrows=0).columns
    text = {name: str for name in header if name in _TEXT_COLUMNS}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values={name: [""] for name in header})


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    write_text(path, table.to_csv(index=False))
