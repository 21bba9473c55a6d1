"""VERB cells -> features -> bags: encode every cell of a cohort once, into a store that can be resumed."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import milkit
from milkit.bags import BagStore
from milkit.cohort import Cohort
from milkit.encoder import Encoder, Transform, choose_device
from milkit.errors import ImageError, StoreError
from milkit.images import read_image
from milkit.progress import progress
from milkit.runs import Workspace, write_json
from milkit.settings import ExtractSettings

_BATCHES_AHEAD = 4
"""Decoded batches that wait for the encoder; bounds the memory, whatever the cohort's size."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What ``extract`` left behind: the store's path, how many cells it holds and how many of them failed."""

    path: Path
    n_cells: int
    n_failures: int


class _Cell(NamedTuple):
    """One decoded cell: the network's input, or (``reason``) why there is none."""

    image: Tensor | None
    sha256: bytes
    reason: str


def extract(
    cohort: Cohort, encoder: Encoder, settings: ExtractSettings, workspace: Workspace, *, note: str = ""
) -> Extraction:
    """Encode the cells of every patient that the store lacks; killed at any moment, a rerun completes it.

    A cell that cannot be read keeps its row (NaN) and is listed in the store's ``failures.csv``; a rerun tries it
    again. The last batch of a patient is padded to the full size, so that features do not depend on where an
    interruption fell.

    Args:
        cohort: Patients and cells.
        encoder: Network and transform.
        settings: Batch size, device and storage type; part of the store's identity.
        workspace: Where the store is kept; it becomes the current one.
        note: A sentence for the report about the choice of the encoder.
    """
    device = choose_device(settings.device)
    store = _open_store(cohort, encoder, settings, workspace, device)
    try:
        _write_source(store, cohort, note)
        store.retry_failed()
        encoder.model.to(device)
        pending = store.pending()
        paths = {
            name: [cohort.root / path for path in store.cells["path"].iloc[store.rows_of(name)]] for name in pending
        }
        cells = _decode([path for name in pending for path in paths[name]], encoder.transform, settings.batch_size)
        with progress("extract", sum(map(len, paths.values())), "cells") as advance, torch.inference_mode():
            for name in pending:
                features, group = _encode_group(encoder, cells, len(paths[name]), settings.batch_size, device)
                ids = store.cells["cell_id"].iloc[store.rows_of(name)]
                store.write(name, *_accepted(features, dict(zip(ids, group, strict=True)), store.dtype))
                advance(len(group))
        workspace.make_current("store", store.path)
        return Extraction(store.path, len(store.cells), len(store.failures))
    finally:
        store.close()


def _open_store(
    cohort: Cohort, encoder: Encoder, settings: ExtractSettings, workspace: Workspace, device: torch.device
) -> BagStore:
    """The cohort's store under this encoder, new or begun earlier with the same settings."""
    path = workspace.store_path(cohort.name, encoder.name, encoder.digest)
    made_of: Mapping[str, Any] = {
        "cohort": cohort.name,
        "cohort_factory": settings.cohort.factory,
        "cohort_digest": cohort.digest,
        "classes": list(cohort.classes),
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "encoder_seen": list(encoder.seen),
        "encoder_made_of": dict(encoder.made_of),
        "transform": {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(encoder.transform).items()
        },
        "dtype": settings.dtype,
        "batch_size": settings.batch_size,
        "backend": f"torch-{device.type}",
        "precision": "fp32",
        "milkit": milkit.__version__,
    }
    if not path.exists():
        return BagStore.create(path, cohort.patients, cohort.cells, encoder.dim, made_of)
    store = BagStore(path, writable=True)
    free = {"milkit", "classes", "encoder_seen", "encoder_made_of"}  # change without any effect on the features
    other = [key for key, value in made_of.items() if key not in free and store.attributes.get(key) != value]
    if other:
        differences = "; ".join(f"{key}: {store.attributes.get(key)} there, {made_of[key]} now" for key in other)
        store.close()
        msg = f"The store {path} was made otherwise ({differences}); use the same settings, or move that folder away."
        raise StoreError(msg)
    if cohort.has_patients:
        store.replace_patients(cohort.patients, cohort.classes)
    return store


def _write_source(store: BagStore, cohort: Cohort, note: str) -> None:
    """Where the images lie: this machine's matter, so it stays out of the attributes."""
    source = {
        "root": str(cohort.root.resolve()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": list(cohort.notes),
        "encoder_note": note,
    }
    write_json(store.path / "source.json", source)


def _decode(paths: list[Path], transform: Transform, batch_size: int) -> Iterator[_Cell]:
    """Decoded cells in order, read by threads some batches ahead of the encoder."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        waiting: deque[Future[_Cell]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(_decode_one, path, transform))
                if len(waiting) > _BATCHES_AHEAD * batch_size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode_one(path: Path, transform: Transform) -> _Cell:
    try:
        content = path.read_bytes()
    except OSError as error:
        return _Cell(None, bytes(32), f"the file cannot be opened ({error.strerror})")
    sha256 = hashlib.sha256(content).digest()
    try:
        return _Cell(transform(read_image(io.BytesIO(content))), sha256, "")
    except ImageError as error:
        return _Cell(None, sha256, str(error))


def _encode_group(
    encoder: Encoder, cells: Iterator[_Cell], n_cells: int, batch_size: int, device: torch.device
) -> tuple[npt.NDArray[np.float32], list[_Cell]]:
    """Features (n_cells, dim) of the next cells, zeros where a cell has no image, and the cells without their pixels.

    Batches are padded to their full size with zeros, so that a cell's features depend on no other cell.
    """
    features, group = np.zeros((n_cells, encoder.dim), dtype=np.float32), list[_Cell]()
    size = encoder.transform.size
    for start in range(0, n_cells, batch_size):
        part = list(islice(cells, min(batch_size, n_cells - start)))
        images = torch.zeros(batch_size, 3, size, size)
        for row, cell in enumerate(part):
            if cell.image is not None:
                images[row] = cell.image
        encoded = encoder.model(images.to(device))[: len(part)].float().cpu().numpy()
        features[start : start + len(part)] = encoded
        group += [cell._replace(image=None) for cell in part]
    return features, group


def _accepted(
    features: npt.NDArray[np.float32], cells: Mapping[str, _Cell], dtype: np.dtype[Any]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], dict[str, str]]:
    """What the store is given: features, NaN where there are none; image digests; the reason of each such row."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(features.astype(dtype)).all(axis=1)
    overflow = f"its features are not finite as {dtype}; extract with --set dtype=float32, or look at the encoder"
    reasons = {
        cell_id: cell.reason or overflow
        for (cell_id, cell), fine in zip(cells.items(), finite, strict=True)
        if cell.reason or not fine
    }
    failed = np.array([cell_id in reasons for cell_id in cells])
    digests = np.frombuffer(b"".join(cell.sha256 for cell in cells.values()), dtype=np.uint8).reshape(-1, 32)
    return np.where(failed[:, None], np.float32("nan"), features), digests, reasons
