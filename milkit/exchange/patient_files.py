"""One HDF5 file a patient: what GenBloom, CLAM and TRIDENT read and write, and what milkit exports.

Every such file has a dataset ``features``, (n_cells, dim) or (1, n_cells, dim). GenBloom's published bags add
``labels``, one integer, and are named by the patient. CLAM's and TRIDENT's add ``coords``, (n_cells, 2): a patch's
place on its slide; CLAM's reader asks for it. milkit writes all three, ``coords`` being zeros since the image of one
cell has no place on a slide. It adds ``cell_ids`` and the attributes ``format`` ("milkit-patient"), ``version`` (1),
``patient_id``, ``label``, ``classes``, ``n_failed``, ``encoder``, ``encoder_digest`` and ``store``, the attributes of
the store as JSON.
"""

import hashlib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.errors import StoreError, first_rows
from milkit.runs import write_bytes

FORMAT = "milkit-patient"
VERSION = 1
SUFFIXES = frozenset({".h5", ".hdf5"})
"""Lower-case suffixes of files that are read as patients."""

_LONGEST = 200
"""Bytes of a file's name; most file systems take 255, and partial copies want room for a suffix."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


class PatientFile(NamedTuple):
    """One patient's readable cells, and what a file says about them.

    Attributes:
        patient_id: The attribute of that name, else the name of the file without its suffix.
        features: (n_cells, dim), as stored.
        cell_ids: One a row; without any, ``<patient_id>/000000`` and so on.
        label: The class's name; empty where milkit did not write the file.
        classes: All classes in order; empty where milkit did not write the file.
        number: ``labels``: position of the class; None where there is none.
        n_failed: Cells that have no row, since they could not be read.
        made_of: Attributes of the store that the file was exported from; empty where milkit did not write the file.
    """

    patient_id: str
    features: npt.NDArray[np.floating[Any]]
    cell_ids: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    number: int | None
    n_failed: int
    made_of: Mapping[str, Any]


def write_patient_file(path: Path, patient: PatientFile) -> None:
    """Write one file, whole or not at all; ``features`` become float32."""
    import h5py

    text = h5py.string_dtype()
    content = io.BytesIO()  # the HDF5 library does not survive a full disk
    with h5py.File(content, "w") as file:
        file["features"] = np.asarray(patient.features, dtype=np.float32)
        file["coords"] = np.zeros((len(patient.features), 2), dtype=np.int32)
        file["coords"].attrs["meaning"] = "zeros: a cell's own image has no place on a slide"
        file["cell_ids"] = np.array(patient.cell_ids, dtype=text)
        file["labels"] = np.int64(patient.classes.index(patient.label))
        file.attrs.update(
            {
                "format": FORMAT,
                "version": VERSION,
                "patient_id": patient.patient_id,
                "label": patient.label,
                "n_failed": patient.n_failed,
                "encoder": patient.made_of["encoder"],
                "encoder_digest": patient.made_of["encoder_digest"],
                "store": json.dumps(dict(patient.made_of), ensure_ascii=False),
            }
        )
        file.attrs.create("classes", np.array(patient.classes, dtype=text))
    write_bytes(path, content.getvalue())


def read_patient_file(path: Path) -> PatientFile:
    """Read one file of any of the writers above; one that is damaged or otherwise laid out is a ``StoreError``."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path} cannot be read as a patient's HDF5 file ({reason}); copy it again, or move it out of the folder."
        raise StoreError(msg) from None


def finite_rows(features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Which rows (n_cells,) have features: those of cells that could not be read are NaN."""
    return np.asarray(np.isfinite(features).all(axis=1))


def file_names(patient_ids: Sequence[str]) -> dict[str, str]:
    """A file name for each patient: the id and ``.h5`` where every file system takes that, else made from its digest.

    Names differ for different ids, also where upper and lower case, or composed and decomposed letters, are the same.
    """
    often = Counter(map(_folded, patient_ids))
    plain = {name: name for name in patient_ids if _is_safe(name) and often[_folded(name)] == 1}
    taken = set(map(_folded, plain))
    for patient_id in patient_ids:
        if patient_id not in plain:
            readable = re.sub(r"[^\w.-]+", "-", patient_id).strip("-.")[:40] or "patient"
            digest = hashlib.sha256(patient_id.encode()).hexdigest()
            names = (f"{readable}-{digest[:length]}" for length in range(8, 65))
            plain[patient_id] = next(name for name in names if _folded(name) not in taken)
            taken.add(_folded(plain[patient_id]))
    return {patient_id: f"{plain[patient_id]}.h5" for patient_id in patient_ids}


def _read(path: Path, file: Any) -> PatientFile:
    facts, ours = dict(file.attrs), _text(file.attrs.get("format", "")) == FORMAT
    if ours and int(facts["version"]) > VERSION:
        msg = (
            f"{path} has format version {facts['version']}, this milkit reads up to version {VERSION}; update milkit, "
            "or export the store again with this one."
        )
        raise StoreError(msg)
    features = _features(path, file)
    patient_id = _text(facts["patient_id"]) if ours else path.stem
    ids = tuple(map(_text, file["cell_ids"][()])) if "cell_ids" in file else _numbered(patient_id, len(features))
    if len(ids) != len(features):
        msg = f"{path} has {len(ids)} `cell_ids` for {len(features)} rows of `features`; give one id a row, or none."
        raise StoreError(msg)
    classes = tuple(map(_text, facts["classes"])) if ours else ()
    label, number = _text(facts["label"]) if ours else "", _number(path, file)
    if ours and (number is None or classes[number : number + 1] != (label,)):
        msg = f"{path} has the label '{label}', which is not the class that its `labels` counts to; export it again."
        raise StoreError(msg)
    made_of = dict(json.loads(_text(facts["store"]))) if ours else {}
    return PatientFile(patient_id, features, ids, label, classes, number, int(facts.get("n_failed", 0)), made_of)


def _features(path: Path, file: Any) -> npt.NDArray[np.floating[Any]]:
    if "features" not in file or not hasattr(file["features"], "dtype"):
        msg = (
            f"{path} has no dataset `features` but {first_rows(sorted(file)) or 'nothing'}; expected `features` "
            "(cells, length), so write the bags in that layout."
        )
        raise StoreError(msg)
    dataset = file["features"]
    shape = dataset.shape[1:] if len(dataset.shape) == 3 and dataset.shape[0] == 1 else dataset.shape
    if len(shape) != 2 or 0 in shape or dataset.dtype.kind != "f":
        msg = (
            f"{path} has `features` of shape {dataset.shape} and type {dataset.dtype}, expected floating-point numbers "
            "of shape (cells, length) with at least one cell; mend the file, or move it out of the folder."
        )
        raise StoreError(msg)
    features: npt.NDArray[np.floating[Any]] = dataset[()].reshape(shape)
    return features


def _number(path: Path, file: Any) -> int | None:
    if "labels" not in file:
        return None
    value = np.asarray(file["labels"][()])
    if value.size != 1 or value.dtype.kind not in "iuf" or not float(value.item()).is_integer() or value.item() < 0:
        msg = (
            f"{path} has `labels` {value.tolist()!r} where one integer from 0 on was expected; write the position of "
            "the patient's class, or leave `labels` out and give a table with --patients."
        )
        raise StoreError(msg)
    return int(value.item())


def _numbered(patient_id: str, n_cells: int) -> tuple[str, ...]:
    return tuple(f"{patient_id}/{row:06d}" for row in range(n_cells))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_safe(name: str) -> bool:
    return (
        not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', name)
        and name == name.strip(" ").rstrip(".")
        and not name.startswith(".")
        and not _RESERVED.fullmatch(name)
        and len(name.encode()) <= _LONGEST
    )
