"""VERB run or store -> a map of its cells: one offline page with gates, and the tables behind it."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import escape

from milkit import settings as recipes
from milkit.atlas.cells import Chosen, choose_cells
from milkit.atlas.embedding import Embed, embed_umap, place, standardise, trust
from milkit.atlas.map_sentences import describe, picture_note
from milkit.atlas.page import map_page, page_data
from milkit.atlas.settings import MapSettings
from milkit.atlas.sources import Source, refuse_both, source_of_run, source_of_store
from milkit.atlas.thumbnails import Thumbnails, thumbnails
from milkit.bags import BagStore, source_texts
from milkit.errors import SettingsError
from milkit.folds import ROLES, patients_digest
from milkit.privacy.gate import keep_allowed, release
from milkit.progress import progress
from milkit.report.folder import without_formulas
from milkit.runs import provenance, whole_folder, write_json, write_text
from milkit.tables import write_table

FORMAT, VERSION = "milkit-atlas", 1
"""Of ``atlas.json``."""
LIMIT = 25_000_000
"""Bytes of the page."""
_ROOM = 200_000
"""Bytes of the page without cells and pictures, generously."""


def write_map(settings: MapSettings, folder: Path, *, embed: Embed = embed_umap) -> dict[str, Any]:
    """Place a sample of all cells on a map that is fitted on training patients alone, and write a folder about it.

    The folder is written whole or not at all: ``atlas.html`` (the page), ``atlas.parquet`` and ``atlas.csv`` (cell_id,
    patient_id, x, y, role), ``atlas.json`` (what is returned) and ``settings.yaml``.

    Args:
        settings: The run or the store, and what is drawn; without a run, ``store`` must be named.
        folder: A new folder.
        embed: What makes two dimensions of features.

    Raises:
        RunError: The folder exists, or the run is not finished or has no such split.
        StoreError: The store cannot be used.
        SettingsError: Too few training cells; or neither a run nor a store is named, or both.
        UnknownName: A column that is not there.
    """
    source = _source(settings)
    chosen = choose_cells(source, settings)
    with whole_folder(folder) as partial:
        table, roles = chosen.table, chosen.table["role"].to_numpy()
        with progress("atlas", len(table), "cells") as advance:
            features, patients = standardise(chosen.features, chosen.fitted), table["patient_id"].tolist()
            points = place(features, chosen.fitted, patients, settings, embed=embed, advance=advance)
        placed = table[["cell_id", "patient_id"]].assign(x=points[:, 0], y=points[:, 1], role=roles)
        measured = trust(features, points, roles.tolist(), settings)
        facts = _facts(source, chosen, settings, placed, measured)
        data = page_data(chosen, points)
        pictures = _pictures(chosen, source.root, LIMIT - _ROOM - len(escape(data).encode()))
        facts["pictures"] = {
            "shown": sum(map(bool, pictures.encoded)),
            "side": pictures.side,
            "reduced": pictures.n_reduced,
            "unreadable": pictures.n_unreadable,
            "left_out": pictures.n_left_out,
        }
        facts["sentences"] = describe(facts)
        write_text(partial / "atlas.html", map_page(facts, data, pictures.encoded, picture_note(facts)))
        placed.to_parquet(partial / "atlas.parquet", index=False)
        write_table(partial / "atlas.csv", without_formulas(placed))
        write_text(partial / "settings.yaml", recipes.dump(settings))
        write_json(partial / "atlas.json", facts)
        known = source_texts(source.store)
        keep_allowed(partial / "atlas.json", release(partial, "atlas", reason=settings.allow_identifiers, known=known))
    return facts


def _source(settings: MapSettings) -> Source:
    refuse_both(settings.run, settings.store)
    if settings.run:
        return source_of_run(settings.run, settings.repeat, settings.fold)
    if settings.store is None:
        msg = "Neither a run nor a store was named, where a map needs one of them; give --run or a store's path."
        raise SettingsError(msg)
    return source_of_store(BagStore.open(settings.store), settings.share, settings.seed)


def _facts(
    source: Source,
    chosen: Chosen,
    settings: MapSettings,
    placed: pd.DataFrame,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """``atlas.json`` without pictures and sentences. It holds no path, and no id of a patient."""
    attributes, made = source.store.attributes, provenance()
    packages = {name: version(name) for name in ("umap-learn", "pynndescent", "numba", "pyarrow")}
    training = sorted(placed.loc[placed["role"] == "train", "patient_id"].unique())
    by_role = {str(role): own["patient_id"] for role, own in placed.groupby("role")}
    return {
        "format": FORMAT,
        "version": VERSION,
        "cohort": str(attributes["cohort"]),
        "encoder": str(attributes["encoder"]),
        "cohort_digest": attributes.get("cohort_digest"),
        "encoder_digest": attributes.get("encoder_digest"),
        **source.made_of,
        "divided": source.divided,
        "fitted_on": patients_digest(training),
        "fitted_cells": int(chosen.fitted.sum()),
        "points_digest": hashlib.sha256(placed.to_csv(index=False).encode()).hexdigest(),
        "roles": {
            role: {"patients": by_role[role].nunique(), "cells": len(by_role[role])}
            for role in ROLES
            if role in by_role
        },
        "cells_each": chosen.each,
        "n_patients": int(placed["patient_id"].nunique()),
        "n_cells": len(placed),
        "n_cells_of_store": source.store.n_cells,
        "patients_not_shown": chosen.n_patients - int(placed["patient_id"].nunique()),
        "unreadable_when_extracted": chosen.n_unreadable,
        "attention": "percentile" in chosen.table,
        "colours": list(chosen.colours.values()),
        "trustworthiness": dict(measured),
        "seed": settings.seed,
        "settings": json.loads(settings.model_dump_json(exclude={"run", "store"})),
        **made,
        "packages": made["packages"] | packages,
    }


def _pictures(chosen: Chosen, root: Path | None, limit: int) -> Thumbnails:
    table = chosen.table
    turns = np.asarray(table.groupby("patient_id", sort=False).cumcount())
    places = list(zip(table["path"].astype(str), table["box"].astype(str), strict=True))
    return thumbnails(places, turns.tolist(), root, limit=limit)
