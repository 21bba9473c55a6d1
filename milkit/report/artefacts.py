"""Which cells are artefacts rather than cells to be judged: unreadable, or flagged when the cohort was checked.

``milkit cohort check`` leaves its table in ``checks/<cohort>/`` of the workspace that also holds the store.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from milkit.bags import BagStore
from milkit.bags.study import study_cells
from milkit.errors import StoreError
from milkit.explain.ranking import TOP
from milkit.tables import read_table

FLAGS = ("unreadable", "damaged", "blank", "flat", "clipped", "blurred", "field")
"""Of a check, those that are about a cell's image; copies and conflicts are about the table."""


class Flags(NamedTuple):
    """What is known of the cells.

    Attributes:
        by_cell: Flags by cell id, such as ``blurred clipped``; cells without any are left out.
        checked: Whether all cells of the store were looked at.
    """

    by_cell: Mapping[str, str]
    checked: bool


class Artefacts(NamedTuple):
    """Of some cells: how many there are, how many could not be read, and how many others were flagged.

    The same for those among them that weigh most (``n_top``, ``n_top_flagged``), all of which could be read. Unless the
    cells were ``checked``, nothing but unreadable ones is known.
    """

    n_cells: int
    n_unreadable: int
    n_flagged: int
    n_top: int
    n_top_flagged: int
    checked: bool

    @property
    def share(self) -> float:
        """Of all the cells."""
        return (self.n_unreadable + self.n_flagged) / self.n_cells if self.n_cells else 0.0

    def __str__(self) -> str:
        """``3 of 97 (3.1 %)``."""
        return f"{self.n_unreadable + self.n_flagged:,} of {self.n_cells:,} ({100 * self.share:.1f}\N{NO-BREAK SPACE}%)"


def read_flags(store: BagStore) -> Flags:
    """Of the cohort's last check in the store's workspace; nothing is known where there was none."""
    path = _table_of_check(store)
    if not path.is_file():
        return Flags({}, checked=False)
    try:
        table = read_table(path)[["cell_id", "flags"]]
    except (StoreError, KeyError, ValueError):  # of another milkit, or damaged: it only says more, and is made anew
        return Flags({}, checked=False)
    table["cell_id"] = study_cells(store, table["cell_id"])
    known = table[table["cell_id"].isin(store.cells["cell_id"])]
    words = known["flags"].fillna("").str.split()
    own = [" ".join(word for word in cell if word in FLAGS) for cell in words]
    by_cell = {cell_id: flags for cell_id, flags in zip(known["cell_id"], own, strict=True) if flags}
    return Flags(by_cell, checked=len(known) == store.n_cells)


def artefacts_of_patients(store: BagStore, cells: pd.DataFrame, flags: Flags) -> dict[str, Artefacts]:
    """By patient id.

    Args:
        store: Its tables and failures.
        cells: The weighed ones: patient_id, cell_id, rank.
        flags: From ``read_flags``.
    """
    failed = set(store.failures["cell_id"])
    table = pd.DataFrame({"patient_id": store.cells["patient_id"], "cell_id": store.cells["cell_id"]})
    table["unreadable"] = table["cell_id"].isin(failed)
    table["flagged"] = table["cell_id"].isin(set(flags.by_cell)) & ~table["unreadable"]
    top = cells.loc[cells["rank"] <= TOP, ["patient_id", "cell_id"]]
    top = top.assign(flagged=top["cell_id"].isin(set(flags.by_cell)))
    whole = table.groupby("patient_id")[["unreadable", "flagged"]].agg(["size", "sum"])
    first = top.groupby("patient_id")["flagged"].agg(["size", "sum"]).reindex(whole.index).fillna(0).astype(int)
    columns = [whole["unreadable", "size"], whole["unreadable", "sum"], whole["flagged", "sum"], *first.to_numpy().T]
    counts = np.column_stack([*columns, np.full(len(whole), flags.checked)]).tolist()
    return {
        str(name): Artefacts._make([*own[:-1], bool(own[-1])]) for name, own in zip(whole.index, counts, strict=True)
    }


def summed(artefacts: Mapping[str, Artefacts]) -> Artefacts:
    """Of all patients together."""
    *counts, checked = zip(*artefacts.values(), strict=True)
    return Artefacts._make([*map(sum, counts), all(checked)])


def artefact_sentence(total: Artefacts) -> str:
    """How many of all cells are artefacts, and how many of those that weigh most."""
    if not total.checked:
        read = f"All {total.n_cells:,} cells could be read"
        if total.n_unreadable:
            read = f"{total.n_unreadable:,} of {total.n_cells:,} cells could not be read"
        return (
            f"{read}. Whether some are blurred, clipped or damaged is not known: `milkit cohort check` was not run for "
            "this cohort."
        )
    flags = ", ".join(FLAGS[1:-1])
    first = f"{total.n_top_flagged:,} of {total.n_top:,}"
    share = 100 * total.n_top_flagged / total.n_top if total.n_top else 0.0
    return (
        f"Of all cells, {total} are artefacts: {total.n_unreadable:,} could not be read, and {total.n_flagged:,} were "
        f"flagged by `milkit cohort check` as {flags} or no single cell. Among the {TOP} cells of each "
        f"patient that weigh most they are {first} ({share:.1f} %)."
    )


def _table_of_check(store: BagStore) -> Path:
    workspace = store.path.resolve().parent.parent.parent  # above stores/<cohort>/<encoder>.zarr
    return workspace / "checks" / str(store.attributes["cohort"]) / "cells.csv"
