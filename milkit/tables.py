"""Tables of stores and runs: ids stay text, only empty fields are missing, and a table is whole or not there."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.errors import StoreError
from milkit.runs import whole_file, write_text

CELL_COLUMNS = ("cell_id", "patient_id", "path")
"""What every cell has; a store's features depend on these, and on ``box`` where there is one."""

_TEXT_COLUMNS = {
    "patient_id",
    "cell_id",
    "path",
    "label",
    "predicted",
    "reason",
    "cell_type",
    "box",
    "sample_id",
    "sex",
    "site",
    "scanner",
}


def read_table(path: Path) -> pd.DataFrame:
    """Read a table in which ids such as ``NA`` are text, and only empty fields are missing."""
    try:
        header = pd.read_csv(path, nrows=0).columns
    except (FileNotFoundError, pd.errors.EmptyDataError, UnicodeDecodeError):
        msg = f"The table {path} is missing or damaged, where milkit had written one; make its store or run again."
        raise StoreError(msg) from None
    text = {name: str for name in header if name in _TEXT_COLUMNS}
    return pd.read_csv(
        path, dtype=text, keep_default_na=False, na_values={name: [""] for name in header}, float_precision="round_trip"
    )


def digest(table: pd.DataFrame) -> str:
    """SHA-256 over the file that ``write_table`` makes of the table."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def cells_digest(cells: pd.DataFrame) -> str:
    """SHA-256 over what the features of cells depend on: ids, paths, and boxes where they are parts of fields."""
    return digest(cells[[*CELL_COLUMNS, *(["box"] if "box" in cells else [])]])


def places(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Path and box of each cell's image; the box is empty where a file shows one cell."""
    boxes = cells["box"].fillna("") if "box" in cells else [""] * len(cells)
    return [(str(path), str(box)) for path, box in zip(cells["path"], boxes, strict=True)]


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    write_text(path, table.to_csv(index=False))


def write_parquet(path: Path, table: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write a table as Parquet, whole or not at all; its schema's metadata hold ``about`` as JSON under ``milkit``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.Table.from_pandas(table, preserve_index=False)
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), b"milkit": json.dumps(dict(about)).encode()})
    with whole_file(path) as partial:
        pq.write_table(rows, partial)
