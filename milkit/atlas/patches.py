"""VERB cells and an encoder -> pictures of what the encoder's patches have in common, on one offline page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image

from milkit import settings as recipes
from milkit.atlas.components import Components, principal_components
from milkit.atlas.page import patches_page
from milkit.atlas.settings import PatchSettings
from milkit.atlas.sources import images_of, refuse_both, run_weights
from milkit.bags import BagStore, image_paths, source_texts, store_of_run, study_cells
from milkit.encoder import Encoder, choose_device, load_encoder
from milkit.errors import ImageError, RunError, SettingsError, StoreError, first_rows
from milkit.images import RgbImage, data_uri, read_bytes, read_cell
from milkit.privacy.gate import keep_allowed, release
from milkit.progress import progress
from milkit.report.folder import without_formulas
from milkit.runs import provenance, whole_folder, write_bytes, write_json, write_text
from milkit.settings import Component
from milkit.tables import places, write_table

FORMAT, VERSION = "milkit-patches", 1
"""Of ``patches.json``."""
TOP = "top"
"""In place of a cell's id: the cells that the run weighs most."""
MOST = 200
"""Cells on a page."""


def write_patches(settings: PatchSettings, folder: Path, *, encoder: Encoder | None = None) -> dict[str, Any]:
    """Write pictures of the first three principal components of chosen cells' patch tokens.

    The folder is written whole or not at all: ``patches.html``, ``patches.csv`` (picture, cell_id, patient_id),
    ``patches.json`` (what is returned), ``settings.yaml``, and in ``pictures/`` a cell as the network sees it
    (``001-cell.png``) beside its components (``001-components.png``).

    Args:
        settings: Which cells, of which run or store.
        folder: A new folder.
        encoder: The encoder; the one that the store was made with by default.

    Raises:
        RunError: The folder exists, or the run is not finished.
        StoreError: A cell is not there, or no image could be read.
        SettingsError: The encoder has no patch tokens, or is not the store's.
    """
    refuse_both(settings.run, settings.store)
    store = _store(settings)
    encoder = encoder or _encoder(settings, store)
    if encoder.patch_tokens is None:
        msg = (
            f"The encoder {encoder.name} gives no tokens of patches, which --patches needs; give a store of a vision "
            "transformer, such as dinobloom-s or milkit-mini."
        )
        raise SettingsError(msg)
    if encoder.digest != store.attributes.get("encoder_digest"):
        msg = (
            f"The encoder {encoder.name} has other weights than the store {store.path} was made with; give the file "
            "that it was made with as --weights FILE, and its name as --encoder NAME."
        )
        raise SettingsError(msg)
    rows = _rows(settings, store)
    squares, read = _squares(store, rows, encoder)
    cells = store.cells.iloc[read][["cell_id", "patient_id"]].reset_index(drop=True)
    with whole_folder(folder) as partial:
        found = principal_components(
            _tokens(squares, encoder, settings.device), without_background=settings.background == "first-component"
        )
        facts = _facts(settings, store, encoder, found) | {"n_cells": len(read), "n_unreadable": len(rows) - len(read)}
        _write(partial, cells, squares, found.colours, facts)
        told = settings.model_copy(update={"patches": tuple(cells["cell_id"])})  # as runs know them
        write_text(partial / "settings.yaml", recipes.dump(told))
        reason, known = settings.allow_identifiers, source_texts(store)
        keep_allowed(partial / "patches.json", release(partial, "atlas", reason=reason, known=known))
    return facts


def _facts(settings: PatchSettings, store: BagStore, encoder: Encoder, found: Components) -> dict[str, Any]:
    """``patches.json`` but for the numbers of cells. It holds no path, and no id of a patient."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "cohort": str(store.attributes["cohort"]),
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        **({"run": settings.run.resolve().name} if settings.run else {}),
        "grid": list(found.scores.shape[1:3]),
        "explained": [float(share) for share in found.explained],
        "background": settings.background,
        "foreground": float(found.foreground.mean()),
        "n_blank": int((~found.foreground).all(axis=(1, 2)).sum()),
        "seed": settings.seed,
        **provenance(),
    }


def _store(settings: PatchSettings) -> BagStore:
    if settings.run:
        return store_of_run(settings.run)
    if settings.store is None:
        msg = "Neither a run nor a store was named, where the cells are in one of them; give --run or a store's path."
        raise SettingsError(msg)
    return BagStore.open(settings.store)


def _encoder(settings: PatchSettings, store: BagStore) -> Encoder:
    """The encoder that is named, or the one that the store is called after."""
    named = Component.model_validate(settings.encoder or str(store.attributes["encoder"]))
    weights = {"weights": settings.weights} if settings.weights else {}
    return load_encoder(Component(name=named.name, **{**named.arguments, **weights}))


def _rows(settings: PatchSettings, store: BagStore) -> list[int]:
    """Rows of the chosen cells in the store, in the order in which they were asked for, none twice."""
    position, ids = {str(name): row for row, name in enumerate(store.cells["cell_id"])}, list[str]()
    for text in settings.patches:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        for name in [text] if _study(store, [text])[0] in position else parts:  # an id may hold commas
            ids += _top(settings) if name == TOP else _study(store, [name])
    if unknown := [name for name in ids if name not in position]:
        lacking = first_rows(unknown)
        msg = f"The store {store.path} has no cells called {lacking}; its cells.csv lists those that it holds."
        raise StoreError(msg)
    rows = list(dict.fromkeys(position[name] for name in ids))
    if len(rows) > MOST:
        msg = f"{len(rows)} cells were chosen, where one page shows {MOST} at most; choose fewer."
        raise SettingsError(msg)
    return rows


def _study(store: BagStore, ids: list[str]) -> list[str]:
    """Ids of cells as runs know them, from these or those of the cohort's table."""
    return [str(name) for name in study_cells(store, pd.Series(ids, dtype=object))]


def _top(settings: PatchSettings) -> list[str]:
    """Of each patient the cell that weighs most; predicted classes take turns, patients of one in seeded order."""
    weights = run_weights(settings.run)[0] if settings.run else None
    if weights is None:
        msg = (
            f"The cells that weigh most ({TOP}) were asked for without a run that has attention; give --run RUN, or "
            "the cells' ids as --patches ID,ID."
        )
        raise RunError(msg)
    first = weights[weights["rank"] == 1].sort_values("patient_id")
    order = np.random.default_rng(settings.seed).permutation(len(first))
    shuffled = first.iloc[order]
    turn = shuffled.groupby("class").cumcount()
    ordered = shuffled.assign(turn=turn).sort_values(["turn", "class"], kind="stable")
    return [str(name) for name in ordered["cell_id"].head(settings.top)]


def _squares(store: BagStore, rows: Sequence[int], encoder: Encoder) -> tuple[list[RgbImage], list[int]]:
    """What the network sees of each cell, and the rows of those that could be read."""
    root, squares, read = images_of(store), list[RgbImage](), list[int]()
    if root is None:
        msg = f"The store {store.path} knows no images to look at; take a store that `extract` made."
        raise StoreError(msg)
    chosen = places(store.cells.assign(path=image_paths(store)).iloc[list(rows)])
    for row, (path, box) in zip(rows, chosen, strict=True):
        try:
            squares.append(encoder.transform.square(read_cell(read_bytes(root, path), box)))
        except ImageError:
            continue
        read.append(row)
    if not read:
        msg = f"None of the {len(rows)} chosen images in {root} could be read; put the images back there."
        raise StoreError(msg)
    return squares, read


def _tokens(squares: Sequence[RgbImage], encoder: Encoder, device: str) -> npt.NDArray[np.float32]:
    """(n, rows, columns, dim), in float32 and one cell at a time: few cells, and the same tokens for each set."""
    assert encoder.patch_tokens is not None
    chosen, found = choose_device(device), []
    encoder.model.to(chosen)
    with torch.inference_mode(), progress("atlas", len(squares), "cells") as advance:
        for square in squares:
            image = encoder.transform.normalise(torch.from_numpy(square)[None].to(chosen))
            found.append(encoder.patch_tokens(image)[0].float().cpu().numpy())
            advance()
    return np.stack(found)


def _write(
    folder: Path,
    cells: pd.DataFrame,
    squares: Sequence[RgbImage],
    colours: npt.NDArray[np.float64],
    facts: dict[str, Any],
) -> None:
    """Pictures, table, facts and page."""
    (folder / "pictures").mkdir()
    shown, names = [], []
    for number, (square, colour) in enumerate(zip(squares, colours, strict=True), start=1):
        name = f"{number:03d}"
        small = Image.fromarray((colour * 255).round().astype(np.uint8))
        large = small.resize((square.shape[1], square.shape[0]), Image.Resampling.NEAREST)
        write_bytes(folder / "pictures" / f"{name}-cell.png", _png(Image.fromarray(square)))
        write_bytes(folder / "pictures" / f"{name}-components.png", _png(large))
        ids = {key: str(cells[key].iloc[number - 1]) for key in ("cell_id", "patient_id")}
        seen = data_uri(square, reduce_to=max(square.shape[:2]))  # compressed; the file beside has the true pixels
        shown.append({**ids, "image": seen, "components": _uri(small)})
        names.append(name)
    write_table(folder / "patches.csv", without_formulas(cells.assign(picture=names)[["picture", *cells.columns]]))
    write_json(folder / "patches.json", facts)
    write_text(folder / "patches.html", patches_page(facts, shown))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _uri(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode("ascii")
