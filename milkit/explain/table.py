"""The table that `milkit explain` leaves in a run folder: every cell's place by every method."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.errors import RunError
from milkit.runs import provenance
from milkit.tables import write_parquet

FORMAT, VERSION = "milkit-explain", 1
EXPLANATIONS = "explain.parquet"


@dataclass(frozen=True, slots=True)
class Explanations:
    """Scores of cells by held-out models. The document of ``explain.parquet``, format 1.

    The file is Parquet. Its schema's metadata MUST hold ``milkit``, a JSON object with ``format`` ("milkit-explain"),
    ``version`` (1), ``top`` (k of ``in_top``), ``methods``, ``heads_sha256`` (of the heads that were asked: a digest
    over the names and bytes of all files in ``heads/``) and what made it (``milkit.runs.provenance``). Readers MUST
    refuse a higher version, and MAY ignore further columns and keys. There is one row per patient, method, class and
    cell, the cells of a patient in the store's order:

        patient_id   text     a tested patient; only models that were not fitted on the patient are asked
        cell_id      text     a cell that could be read
        class        text     the class that the score is for; ``*`` where attention is shared by all classes
        method       text     attention, leave_one_out, integrated_gradients, single_cell (``milkit.explain.attribution``)
        score        float32  mean over the patient's held-out models; comparable within a patient, method and class only
        rank         int32    1 = highest score; ties in the order of the cells
        percentile   float32  100 = highest, 0 = lowest
        in_top       int32    in how many models the cell is among the ``top`` highest ("top 20 in 9 of 10 models")
        n_models     int32    held-out models of the patient: repeats x seeds
    """  # noqa: E501

    table: pd.DataFrame

    @classmethod
    def load(cls, path: Path) -> "Explanations":
        """Read ``explain.parquet``; a missing file, another file, or a newer format, is a ``RunError``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            msg = f"{path} is missing; make it with `milkit explain {path.parent}`."
            raise RunError(msg) from None
        except pa.ArrowInvalid:
            msg = (
                f"{path} is not a Parquet file, where milkit had written one; run `milkit explain {path.parent}` again."
            )
            raise RunError(msg) from None
        about = cls._about(table.schema.metadata or {})
        if about.get("format") != FORMAT or int(about.get("version", 0)) > VERSION:
            what = f"{about.get('format', 'no format')}, version {about.get('version', 'unknown')}"
            msg = f"{path} holds {what}, expected {FORMAT}, version {VERSION} or lower; read it with a newer milkit."
            raise RunError(msg)
        return cls(table.to_pandas())

    def save(self, path: Path, **about: Any) -> None:
        """Write ``explain.parquet``, whole or not at all; ``about`` holds ``top``, ``methods``, ``heads_sha256``."""
        write_parquet(path, self.table, {"format": FORMAT, "version": VERSION, **about, **provenance()})

    @staticmethod
    def _about(metadata: dict[bytes, bytes]) -> dict[str, Any]:
        import json

        values: dict[str, Any] = json.loads(metadata.get(b"milkit", b"{}"))
        return values
