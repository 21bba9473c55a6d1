"""VERB files of other tools -> bags: one HDF5 a patient (GenBloom, CLAM, TRIDENT, milkit's own) becomes a bag store.

The store is like any other, but for its attribute ``backend``, "imported": milkit has seen neither the images nor the
encoder. So ``path`` of a cell is the HDF5 file that it came from, the digests of the images are zeros, and the
encoder's digest is one of the features: SHA-256 over a version and each patient's rows as float32.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

import milkit
from milkit.bags import BagStore
from milkit.bags.files import write_attributes
from milkit.cohort import Cohort, find_recipe, natural_key
from milkit.errors import CohortError, SettingsError, StoreError
from milkit.exchange.labels import imported_labels, read_patients
from milkit.exchange.patient_files import SUFFIXES, PatientFile, finite_rows, read_patient_file
from milkit.progress import Advance, progress
from milkit.runs import Workspace, write_json
from milkit.settings import CohortRecipe, Ids, load, recipe_names

_DIGEST_VERSION = b"milkit-imported-features-1"


class Imported(NamedTuple):
    """What an import left behind, and what a reader should know of it (``notes``, one sentence each)."""

    path: Path
    n_patients: int
    n_cells: int
    n_failures: int
    encoder: str
    notes: tuple[str, ...]


class _Survey(NamedTuple):
    """All files, read once: path and content (without features) by patient, and what they have in common."""

    files: Mapping[str, tuple[Path, PatientFile]]
    dim: int
    digest: str
    dtype: str


def import_hdf5(
    folder: Path,
    cohort: str,
    workspace: Workspace,
    *,
    patients: Path | None = None,
    encoder: str | None = None,
    classes: Sequence[str] = (),
    ids: Ids | None = None,
) -> Imported:
    """Make a bag store of a folder with one HDF5 a patient, whole or not at all; it becomes the current one.

    Rows keep their order, or follow their ``cell_ids`` in natural order, as those of every store do. They are stored
    as float16 where that changes no value, else as float32. A row that is not finite becomes a failed cell. Where the
    same features were imported before, only labels and covariates are taken over.

    Args:
        folder: Files ``*.h5`` or ``*.hdf5``, see ``milkit.exchange.patient_files``; folders below it are not read.
        cohort: Names the cohort, as a recipe would.
        workspace: Where the store is kept.
        patients: A table of patients, see ``milkit.exchange.labels``.
        encoder: What made the features; without it, what the files say, else "imported".
        classes: The names that the integers in ``labels`` stand for, in their order.
        ids: Whether patients' and cells' ids tell who somebody is. Without it, what the files say, or a recipe of the
            cohort's name; else they do.
    """
    name = load(CohortRecipe, None, {"name": cohort, "factory": "imported"}).name
    if "" in classes or len(set(classes)) < len(classes):
        msg = f"The classes {', '.join(classes)} were given; expected a name for each, different ones, with --classes."
        raise SettingsError(msg)
    paths = _files(folder)
    table = None if patients is None else read_patients(patients)
    with progress("import", 2 * len(paths), "files") as advance:
        survey = _survey(paths, advance)
        labelled = imported_labels(survey.files, table, tuple(classes))
        facts = _facts(survey.files, encoder)
        notes = labelled.notes
        if not any("encoder_seen" in patient.made_of for _, patient in survey.files.values()):
            notes += (
                f"The files do not say which images the encoder {facts['encoder']} was trained on; if images of these "
                "patients are among them, the result may be better than on images that are new to it.",
            )
        whole = Cohort(name, folder, labelled.patients, _cells(survey.files), labelled.classes, notes)
        facts |= {"cohort": name, "cohort_digest": whole.digest, "classes": list(whole.classes)}
        facts |= {"encoder_digest": survey.digest, "dtype": survey.dtype, "ids": ids or _ids(survey.files, name)}
        path = workspace.store_path(name, str(facts["encoder"]), survey.digest)
        if path.exists():
            _take_over(path, whole, facts)
        else:
            _write(path, whole, survey, facts, advance)
    workspace.make_current("store", path)
    n_failures = len(BagStore.open(path).failures)
    return Imported(path, len(whole.patients), len(whole.cells), n_failures, str(facts["encoder"]), notes)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        msg = f"{folder} is not a folder, where one with an HDF5 file a patient was expected; give the folder's path."
        raise StoreError(msg)
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = [path for path in found if not path.name.startswith(".")]  # what macOS and partial copies leave
    if not found:
        msg = f"{folder} holds no *.h5 or *.hdf5 file, where one a patient was expected; give the folder they are in."
        raise StoreError(msg)
    return found


def _survey(paths: Sequence[Path], advance: Advance) -> _Survey:
    """Read every file once: nothing is written before all of them are known to be sound."""
    files: dict[str, tuple[Path, PatientFile]] = {}
    digests: dict[str, bytes] = {}
    half = True
    for path in paths:
        patient = _ordered(path)
        if patient.patient_id in files:
            twin = files[patient.patient_id][0].name
            msg = f"{path} is of patient '{patient.patient_id}', as is {twin} beside it; keep one file a patient."
            raise CohortError(msg)
        features = patient.features
        first, other = next(iter(files.values()), (path, patient))
        if features.shape[1] != other.features.shape[1]:
            msg = (
                f"{path} has features of length {features.shape[1]} and {first.name} of length "
                f"{other.features.shape[1]}; import the bags of one encoder at a time."
            )
            raise StoreError(msg)
        finite = features[finite_rows(features)]
        if not len(finite):
            msg = (
                f"None of the {len(features)} rows of `features` in {path} is finite; move the file out of the folder."
            )
            raise StoreError(msg)
        with np.errstate(over="ignore"):
            half = half and bool((finite.astype(np.float16) == finite).all())
        digests[patient.patient_id] = hashlib.sha256(features.astype("<f4").tobytes()).digest()
        files[patient.patient_id] = path, patient._replace(features=features[:0].copy())
        advance()
    sha = hashlib.sha256(b"".join([_DIGEST_VERSION, *(digests[name] for name in sorted(digests))]))
    return _Survey(files, features.shape[1], sha.hexdigest(), "float16" if half else "float32")


def _ordered(path: Path) -> PatientFile:
    """A patient's file with float32 features, in the natural order of the cell ids: the order of every store."""
    patient = read_patient_file(path)
    order = sorted(range(len(patient.cell_ids)), key=lambda row: natural_key(patient.cell_ids[row]))
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and so a failed cell
        features = np.asarray(patient.features, dtype=np.float32)[order]
    return patient._replace(features=features, cell_ids=tuple(patient.cell_ids[row] for row in order))


def _ids(files: Mapping[str, tuple[Path, PatientFile]], cohort: str) -> Ids:
    """What is known of the ids. What milkit exported has study ids, or was pseudonymous before."""
    if next(iter(files.values()))[1].made_of:
        return "pseudonymous"
    known = find_recipe(cohort).ids if cohort in recipe_names("cohorts") else None
    return known or "identifying"


def _cells(files: Mapping[str, tuple[Path, PatientFile]]) -> pd.DataFrame:
    rows = [(cell, name, path.name) for name, (path, patient) in files.items() for cell in patient.cell_ids]
    return pd.DataFrame(rows, columns=["cell_id", "patient_id", "path"])


def _facts(files: Mapping[str, tuple[Path, PatientFile]], wanted: str | None) -> dict[str, Any]:
    """The encoder's attributes of the store: what all files say alike, and what is not known."""
    first, patient = next(iter(files.values()))
    made = patient.made_of
    for path, other in files.values():
        digests = [of.get("encoder_digest") or "not said" for of in (other.made_of, made)]
        if digests[0] != digests[1]:
            msg = (
                f"{path} and {first.name} beside it were made by different encoders (digests {digests[0]} and "
                f"{digests[1]}); import the bags of one encoder at a time."
            )
            raise StoreError(msg)
    said = made.get("encoder")
    if wanted and said and wanted != said:
        msg = f"{first} says that the encoder '{said}' made it, and --encoder {wanted} was given; leave --encoder out."
        raise StoreError(msg)
    name = str(wanted or said or "imported")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        msg = (
            f"The encoder is called '{name}', which cannot name a store; give a name of letters, digits, '.', '_' and "
            "'-' with --encoder."
        )
        raise SettingsError(msg)
    origin = {"digest": str(made["encoder_digest"])} if made.get("encoder_digest") else {}
    return {
        "cohort_factory": made.get("cohort_factory", "imported"),
        "encoder": name,
        "encoder_seen": list(made.get("encoder_seen", ())),
        "encoder_made_of": {**made.get("encoder_made_of", {}), **origin},
        "transform": made.get("transform", {}),
        "batch_size": made.get("batch_size", 0),
        "backend": "imported",
        "precision": made.get("precision", "unknown"),
        "milkit": milkit.__version__,
    }


def _write(path: Path, whole: Cohort, survey: _Survey, facts: Mapping[str, Any], advance: Advance) -> None:
    """Fill a hidden store, which gets its name when it is complete."""
    partial = path.with_name(f".{path.name}.import-{os.getpid()}")
    try:
        store = BagStore.create(partial, whole.patients, whole.cells, survey.dim, facts)
        try:
            for name in whole.patients.index:
                source = survey.files[name][0]
                patient = _ordered(source)
                store.write(name, *_accepted(patient, source))
                advance()
            store.finish()
        finally:
            store.close()
        _write_source(partial, whole)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _accepted(
    patient: PatientFile, source: Path
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.uint8], dict[str, str]]:
    """What the store is given: features, NaN where a row is not finite; no digests of images; the reasons."""
    fine = finite_rows(patient.features)
    reason = f"its features are not finite in {source.name}"
    reasons = {cell: reason for cell, finite in zip(patient.cell_ids, fine, strict=True) if not finite}
    features = np.where(fine[:, None], patient.features, np.float32("nan"))
    return features, np.zeros((len(fine), 32), dtype=np.uint8), reasons


def _take_over(path: Path, whole: Cohort, facts: Mapping[str, Any]) -> None:
    """Give the labels to a store that holds these features already."""
    store = BagStore(path, writable=True)
    try:
        other = [name for name in ("encoder_digest", "cohort_digest", "dtype") if store.attributes[name] != facts[name]]
        if other or store.pending():
            msg = (
                f"The store {path} holds these features under other ids or file names ({', '.join(other)}); give "
                "another --cohort, or move that folder away."
            )
            raise StoreError(msg)
        store.replace_patients(whole.patients, whole.classes)
        if store.attributes.get("ids") != facts["ids"]:
            write_attributes(path, {"ids": facts["ids"]})
    finally:
        store.close()
    _write_source(path, whole)


def _write_source(store: Path, whole: Cohort) -> None:
    """No root: the report must not look for images."""
    write_json(
        store / "source.json",
        {"created": datetime.now(UTC).isoformat(timespec="seconds"), "notes": list(whole.notes)},
    )
