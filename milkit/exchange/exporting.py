"""VERB bags -> files of other tools: one HDF5 a patient, or AnnData of the whole cohort."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from milkit.bags import BagStore, source_texts
from milkit.errors import RunError, StoreError
from milkit.exchange.patient_files import PatientFile, file_names, finite_rows, write_patient_file
from milkit.privacy.gate import keep_allowed, release
from milkit.progress import progress
from milkit.runs import whole_folder
from milkit.tables import write_table


class Exported(NamedTuple):
    """What an export left behind.

    Attributes:
        path: The folder or file.
        n_cells: Cells with features.
        n_failed: Cells that could not be read, left out (hdf5) or marked (h5ad).
        n_renamed: Patients whose file could not be called by their id.
    """

    path: Path
    n_cells: int
    n_failed: int
    n_renamed: int = 0


def export_hdf5(store: BagStore, folder: Path, *, allow_identifiers: str = "") -> Exported:
    """Write a folder with one HDF5 a patient and ``patients.csv``, whole or not at all.

    ``milkit.exchange.patient_files`` says what a file holds; cells that could not be read have no row in it.
    ``patients.csv`` has a row a patient, with patient_id, hdf5_file, label and covariates; an import takes it as its
    table. A cohort without patients, and a patient without a readable cell, is a ``StoreError``; a folder that exists
    is a ``RunError``; what may tell who somebody is, a ``PrivacyError``, unless ``allow_identifiers`` gives a reason.
    """
    if "label" not in store.patients:
        msg = (
            f"The store {store.path} is of a cohort without patients, and hdf5 is one file a patient; export it with "
            "--format h5ad."
        )
        raise StoreError(msg)
    names = file_names([str(name) for name in store.patients.index])
    labels = dict(zip(names, store.patients["label"], strict=True))
    n_failed = 0
    with whole_folder(folder) as partial, progress("export", len(store), "patients") as advance:
        for name, file in names.items():
            patient = _readable(store, name, str(labels[name]))
            write_patient_file(partial / file, patient)
            n_failed += patient.n_failed
            advance()
        table = store.patients.rename_axis("patient_id").reset_index()
        table.insert(1, "hdf5_file", list(names.values()))
        write_table(partial / "patients.csv", table)
        _release(partial, store, allow_identifiers)
    n_renamed = sum(file != f"{name}.h5" for name, file in names.items())
    return Exported(folder, len(store.cells) - n_failed, n_failed, n_renamed)


def export_h5ad(store: BagStore, path: Path, *, allow_identifiers: str = "") -> Exported:
    """Write a cohort as AnnData that ``anndata.read_h5ad`` reads, whole or not at all; features pass one bag at a time.

    ``X`` (n_cells, dim) float32, NaN for cells that could not be read; ``obs``, indexed by cell_id: patient_id, label
    and covariates of the patient, further columns of the cells, and ``failed``; ``var``: f0000, f0001, …; ``uns``:
    cohort, encoder, encoder_digest, transform, classes and, as JSON, ``store``, all attributes of the store. A cohort
    without patients has no patient_id and no label. A path that exists, or has another suffix, is a ``RunError``; for
    ``allow_identifiers`` see ``export_hdf5``.
    """
    if path.suffix != ".h5ad" or path.exists():
        fault = "exists already and is not overwritten" if path.exists() else "was given for an AnnData file"
        msg = f"{path} {fault}; give a new name that ends in .h5ad with --out."
        raise RunError(msg)
    obs, made = _observations(store), store.attributes
    facts = {name: made[name] for name in ("cohort", "encoder", "encoder_digest", "transform", "classes")}
    facts["store"] = json.dumps(made, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        offset = _without_features(partial, obs, store.dim, facts)
        with partial.open("r+b") as file, progress("export", len(store), "groups") as advance:
            file.seek(offset)
            for bag in store:
                file.write(bag.features.astype("<f4").tobytes())
                advance()
            file.flush()
            os.fsync(file.fileno())
        _release(partial, store, allow_identifiers)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    n_failed = int(obs["failed"].sum())
    return Exported(path, len(obs) - n_failed, n_failed)


def _release(partial: Path, store: BagStore, reason: str) -> None:
    """A ``PrivacyError`` where the export may tell who somebody is, and no reason allows that."""
    allowed = release(partial, "export", reason=reason, known=source_texts(store))
    keep_allowed(store.path / "source.json", allowed)


def _without_features(path: Path, obs: pd.DataFrame, dim: int, uns: Mapping[str, Any]) -> int:
    """Write an AnnData file whose matrix is there but for its values, and say at which byte these begin.

    Both large parts, tables and values, go to the disk without the HDF5 library, which crashes where that is full.
    """
    import h5py
    from anndata import AnnData
    from anndata.io import write_elem

    tables = io.BytesIO()
    var = pd.DataFrame(index=[f"f{number:04d}" for number in range(dim)])
    with h5py.File(tables, "w") as file:
        write_elem(file, "/", AnnData(obs=obs, var=var, uns=dict(uns)))
    path.write_bytes(tables.getvalue())
    place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    place.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "r+") as file:
        matrix = file.create_dataset("X", (len(obs), dim), "<f4", dcpl=place)
        matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})  # AnnData's own, for a matrix
        return int(matrix.id.get_offset())


def _readable(store: BagStore, name: str, label: str) -> PatientFile:
    """A patient without the cells that could not be read."""
    bag = store[name]
    fine = finite_rows(bag.features)
    if not fine.any():
        msg = (
            f"None of the {len(fine)} cells of patient '{name}' could be read, so that there is nothing to export; "
            "mend the images and extract again, or export with --format h5ad."
        )
        raise StoreError(msg)
    ids = tuple(cell for cell, readable in zip(bag.cell_ids, fine, strict=True) if readable)
    classes = tuple(map(str, store.attributes["classes"]))
    return PatientFile(
        patient_id=name,
        features=bag.features[fine],
        cell_ids=ids,
        label=label,
        classes=classes,
        number=classes.index(label),
        n_failed=int((~fine).sum()),
        made_of=store.attributes,
    )


def _observations(store: BagStore) -> pd.DataFrame:
    """One row a cell: what is known of its patient and of itself, under names and in types that AnnData writes."""
    of_cells = store.cells.drop(columns=["cell_id", "path"]).set_axis(store.cells["cell_id"].astype(str), axis=0)
    if "label" in store.patients:
        of_patients = store.patients.reindex(of_cells["patient_id"]).set_axis(of_cells.index, axis=0)
        columns = {"patient_id": of_cells.pop("patient_id"), **of_patients, **of_cells}
    else:
        columns = dict(of_cells.drop(columns="patient_id"))
    failed = [~finite_rows(store[str(group)].features) for group in store.patients.index]
    table = pd.DataFrame({"failed": np.concatenate(failed)}, index=of_cells.index)
    for name, values in columns.items():
        title = str(name).replace("/", "_")  # AnnData's keys are HDF5 paths
        while title in {*table.columns, "_index", "cell_id"}:
            title += "_"
        kept = values if values.dtype.kind in "biuf" else values.where(values.isna(), values.astype(str))
        table[title] = kept if kept is values else pd.Categorical(kept)
    if "label" in table:
        table["label"] = table["label"].cat.set_categories(list(store.attributes["classes"]))
    return table
