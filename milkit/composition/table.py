"""``cell_types.parquet``: the type of every cell of a run's store that could be read. Format 1, as its metadata say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.errors import RunError
from milkit.runs import provenance
from milkit.tables import write_parquet

CELL_TYPES = "cell_types.parquet"
FORMAT, VERSION = "milkit-cell-types", 1


@dataclass(frozen=True, slots=True)
class CellTypes:
    """One row a cell, in the order of the store.

    ``table`` has the columns

        patient_id, cell_id
        cell_type      text     the type, or ``unknown``
        probability    float32  of the likeliest type, after temperature scaling
        likeliest      text     the type that the cell would have been given
        because        text     why a cell is unknown: ``unsure``, ``unlike``, or ``unsure, unlike``; else empty
        usual          float32  the share of the labelled cells of the likeliest type that lie as far, or farther, from
                                the others (a conformal p; ``statistics.selective``)
        out_of_fold    bool     whether the cell is a labelled one, typed by cells of other patients alone
    """

    table: pd.DataFrame

    @classmethod
    def load(cls, path: Path) -> "CellTypes":
        """Read ``cell_types.parquet``; a missing file, another file, or a newer format, is a ``RunError``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {}).get(b"milkit", b"{}"))
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            what = "missing" if isinstance(error, FileNotFoundError) else "not a Parquet file"
            msg = f"{path} is {what}; make it with `milkit differential {path.parent}`."
            raise RunError(msg) from None
        if about.get("format") != FORMAT or int(about.get("version", 0)) > VERSION:
            found = f"{about.get('format', 'no format')}, version {about.get('version', 'unknown')}"
            msg = f"{path} holds {found}, expected {FORMAT}, version {VERSION} or lower; read it with a newer milkit."
            raise RunError(msg)
        return cls(table.to_pandas())

    def save(self, path: Path, **about: Any) -> None:
        """Write it, whole or not at all; ``about`` holds what made it."""
        write_parquet(path, self.table, {"format": FORMAT, "version": VERSION, **about, **provenance()})
