"""Do the typed cells agree with what the run's store knows of them? Only of cells that the probe did not learn from."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore
from milkit.composition.reference import UNKNOWN, Reference
from milkit.composition.settings import DifferentialSettings
from milkit.composition.shares import shares_over_groups
from milkit.errors import UnknownName
from milkit.labelled_cells import labels_of, nodes_of
from milkit.taxonomy import Taxonomy

Bools = npt.NDArray[np.bool_]


def agreement(
    store: BagStore, cell_types: pd.DataFrame, reference: Reference, settings: DifferentialSettings
) -> dict[str, Any] | None:
    """How many of the cells with a known type were given it; None where no cell of the store has one.

    With the taxonomy a typed node agrees with a known one above or below it. Left out are cells whose image is one of
    the labelled ones, which the probe learned from. Where the labelled cells are the store's own, that is all: their
    out-of-fold accuracy says it.

    Returns:
        ``n_cells`` and ``n_patients`` with a type that the probe can give, ``n_learned`` (left out), ``agreement`` (of
        the cells that were given a type) and ``typed`` (how many were), with intervals over patients, and ``others``:
        of the cells whose known type the probe cannot give, ``n_cells`` and the share ``unknown``. Where the taxonomy
        does not know the store's labels, ``untranslated`` says which.
    """
    if reference.own or "cell_type" not in store.cells:
        return None
    known = labels_of(store.cells, "cell_type")
    known = known.mask(known.str.lower() == UNKNOWN)
    if settings.taxonomy and known.notna().any():
        try:
            known = nodes_of(known, store)
        except UnknownName as error:  # it only says more: the differential does not rest on it
            return {"n_cells": 0, "untranslated": str(error), "others": {"n_cells": 0, "unknown": None}}
    cells = store.cells[["cell_id", "patient_id"]].assign(known=known, learned=_learned(store, reference))
    cells = cells.merge(cell_types[["cell_id", "cell_type"]], on="cell_id", validate="one_to_one")
    cells = cells[cells["known"].notna()]
    if cells.empty:
        return None
    n_learned, cells = int(cells["learned"].sum()), cells[~cells["learned"]]
    alike = {name: _alike(name, reference.types, taxonomy=settings.taxonomy) for name in cells["known"].unique()}
    possible = cells["known"].map(lambda name: bool(alike[name])).to_numpy(dtype=bool)
    typed = (cells["cell_type"] != UNKNOWN).to_numpy()
    right = np.array([name in alike[true] for name, true in zip(cells["cell_type"], cells["known"], strict=True)], bool)
    patients = np.asarray(pd.factorize(cells["patient_id"])[0], dtype=np.int64)
    own = shares_over_groups({"agreement": (right, typed)}, possible, patients, settings)
    own |= shares_over_groups({"typed": (typed, np.ones(len(typed), bool))}, possible, patients, settings)
    others = cells["cell_type"][~possible]
    return {
        "n_cells": int(possible.sum()),
        "n_patients": int(cells["patient_id"][possible].nunique()),
        "n_learned": n_learned,
        **own,
        "others": {"n_cells": len(others), "unknown": float((others == UNKNOWN).mean()) if len(others) else None},
    }


def _learned(store: BagStore, reference: Reference) -> Bools:
    """Cells whose image is one of the labelled cells'; where both are parts of a field, any of the field."""
    digests = {row.tobytes() for row in reference.store.image_digests()[reference.rows]} - {bytes(32)}
    return np.array([row.tobytes() in digests for row in store.image_digests()], dtype=bool)


def _alike(known: str, types: tuple[str, ...], *, taxonomy: bool) -> set[str]:
    """The types that agree with a known one."""
    if not taxonomy:
        return {known} & set(types)
    tree = Taxonomy.load()
    above = {*tree.ancestors(known), known}
    return {name for name in types if name in above or known in tree.ancestors(name)}
