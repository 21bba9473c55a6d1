"""VERB cells -> features -> bags: encode every cell of a cohort once, into a store that can be resumed.

Images are decoded by threads ahead of the network, and a patient's features are written by another thread while the
next patient is encoded. The ranks of a job (``milkit.ranks``) take a run of patients each and write disjoint bytes of
the same store.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import milkit
from milkit.bags import BLOCK, SCALE, BagStore
from milkit.bags.files import write_attributes
from milkit.calibration import CALIBRATION_IMAGES, settle
from milkit.cohort import Cohort, told_notes
from milkit.decode import DecodedCell, decode, decode_one
from milkit.encoder import Encoder
from milkit.errors import RunError, SettingsError, StoreError
from milkit.execution import Execution, running
from milkit.images import Place
from milkit.progress import progress
from milkit.ranks import ALONE, Ranks, speaks
from milkit.runs import Workspace, write_json
from milkit.settings import ExtractSettings
from milkit.tables import places

_SAID = (SCALE, "ids")
"""Attributes that follow the recipe when it changes."""

_BATCHES_AHEAD = 4
"""Decoded batches that wait for the network."""

_GROUPS_BEHIND = 2
"""Encoded patients that wait to be written."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What ``extract`` left behind: the store's path, how it was encoded, and how many cells there are and failed."""

    path: Path
    execution: Execution
    n_cells: int
    n_failures: int


def extract(
    cohort: Cohort,
    encoder: Encoder,
    settings: ExtractSettings,
    workspace: Workspace,
    *,
    note: str = "",
    ranks: Ranks = ALONE,
) -> Extraction:
    """Encode the cells of every patient that the store lacks; killed at any moment, a rerun completes it.

    A cell that cannot be read keeps its row (NaN) and is listed in the store's ``failures.csv``; a rerun tries it
    again. The last batch of a patient is padded to the full size, so that features do not depend on where an
    interruption fell.

    Args:
        cohort: Patients and cells.
        encoder: Network and transform.
        settings: How to run the encoder and to store its features; settled when the store is begun.
        workspace: Where the store is kept; it becomes the current one.
        note: A sentence for the report about the choice of the encoder.
        ranks: The processes that share this work; all of them call this function alike.
    """
    opened = list[BagStore]()
    if settings.device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(ranks.local % torch.cuda.device_count())

    def prepare() -> tuple[Path, Execution, list[str]]:
        path = workspace.store_path(cohort.name, encoder.name, encoder.digest)
        opened.append(store := _open_store(path, cohort, encoder, settings))
        _write_source(store, cohort, note)
        store.retry_failed()
        return path, Execution.recorded(store.attributes), store.pending()

    def finish() -> Extraction:
        (store,) = opened
        if left := store.pending():
            msg = (
                f"The store {path} still lacks {len(left)} patients after all had been written; run the command again."
            )
            raise StoreError(msg)
        store.finish()
        workspace.make_current("store", path)
        return Extraction(path, execution, len(store.cells), len(store.failures))

    def encode() -> None:
        store = opened[0] if opened else BagStore(path, writable=True, rank=ranks.rank)
        opened[:] = [store]
        _require_same(store, {"encoder_digest": encoder.digest, "cohort_digest": cohort.digest})
        sizes = [store.rows_of(name).stop - store.rows_of(name).start for name in pending]
        mine = ranks.share(sizes)
        if pending[mine]:
            _encode(store, dict(zip(pending[mine], sizes[mine], strict=True)), cohort.root, encoder, execution)

    try:
        path, execution, pending = ranks.agreed(prepare)  # the first rank opens the store here, and holds its lock
        try:
            ranks.each(encode)
        except torch.cuda.OutOfMemoryError:
            msg = (
                f"The GPU's memory does not hold batches of {execution.batch_size} images for this encoder; move the "
                f"folder {path} away and give a smaller --batch-size."
            )
            raise SettingsError(msg) from None
        return ranks.agreed(finish)
    finally:
        for store in opened:
            store.close()


def _open_store(path: Path, cohort: Cohort, encoder: Encoder, settings: ExtractSettings) -> BagStore:
    """The cohort's store under this encoder: a new one, or the one that was begun with the same settings."""
    made_of = _made_of(cohort, encoder, settings)
    if not path.exists():
        execution = settle(encoder, settings, _some_squares(cohort, encoder), _group_sizes(cohort))
        with contextlib.suppress(RunError):  # another process made it meanwhile; the lock says whether it still writes
            return BagStore.create(path, cohort.patients, cohort.cells, encoder.dim, made_of | asdict(execution))
    store = BagStore(path, writable=True)
    try:
        _require_same(store, made_of | _insisted(settings, store.attributes))
        if said := {key: made_of[key] for key in _SAID if store.attributes.get(key) != made_of[key]}:
            write_attributes(path, said)
        store.replace_cells(cohort.cells)
        if cohort.has_patients:
            store.replace_patients(cohort.patients, cohort.classes)
    except BaseException:
        store.close()
        raise
    return store


def _made_of(cohort: Cohort, encoder: Encoder, settings: ExtractSettings) -> dict[str, Any]:
    """The store's attributes, without those of the execution."""
    transform = asdict(encoder.transform)
    return {
        "cohort": cohort.name,
        "cohort_factory": settings.cohort.factory,
        "cohort_digest": cohort.digest,
        "classes": list(cohort.classes),
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "encoder_seen": list(encoder.seen),
        "encoder_made_of": dict(encoder.made_of),
        "transform": {key: list(value) if isinstance(value, tuple) else value for key, value in transform.items()},
        "dtype": settings.dtype,
        "milkit": milkit.__version__,
        SCALE: cohort.micrometres_per_pixel,
        "ids": cohort.ids,
    }


def _insisted(settings: ExtractSettings, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What the user insists on about the execution, as attributes; the rest is taken as the store has it."""
    backend, _, device = str(recorded.get("backend")).partition("-")
    backend = backend if settings.backend == "auto" else settings.backend
    device = device if settings.device == "auto" else settings.device
    insisted: dict[str, Any] = {"backend": f"{backend}-{device}"}
    if settings.precision != "auto":
        insisted["precision"] = settings.precision
    if settings.batch_size:
        insisted["batch_size"] = settings.batch_size
    return insisted


def _require_same(store: BagStore, made_of: Mapping[str, Any]) -> None:
    if unsaid := [field.name for field in fields(Execution) if field.name not in store.attributes]:
        msg = (
            f"The store {store.path} does not say how its features were computed ({', '.join(unsaid)}), as none of an "
            "earlier milkit does; move that folder away and extract again."
        )
        raise StoreError(msg)
    free = {"milkit", "classes", "encoder_seen", "encoder_made_of", *_SAID}  # change without effect on the features
    other = [key for key, value in made_of.items() if key not in free and store.attributes.get(key) != value]
    if other:
        differences = "; ".join(f"{key}: {store.attributes.get(key)} there, {made_of[key]} now" for key in other)
        msg = (
            f"The store {store.path} was made otherwise ({differences}); use the same settings, or move that folder "
            "away."
        )
        raise StoreError(msg)
    unfinished = store.pending() or len(store.failures)
    if unfinished and store.attributes["backend"] == "torch-cuda" and not torch.cuda.is_available():
        msg = (
            f"The store {store.path} was begun on a GPU, and PyTorch finds none here; go on where one is, or move that "
            "folder away."
        )
        raise StoreError(msg)


def _some_squares(cohort: Cohort, encoder: Encoder) -> Tensor:
    """Some of the cohort's images, evenly spread over it: uint8 (n, size, size, 3)."""
    size, last = encoder.transform.size, len(cohort.cells) - 1
    rows = np.unique(np.linspace(0, last, 2 * CALIBRATION_IMAGES).astype(int))  # some may be unreadable
    some = (Place(cohort.root, *place) for place in places(cohort.cells.iloc[rows]))
    cells = (decode_one(place, encoder.transform) for place in some)
    squares = [torch.from_numpy(cell.square) for cell in cells if cell.square is not None][:CALIBRATION_IMAGES]
    return torch.stack(squares) if squares else torch.zeros(0, size, size, 3, dtype=torch.uint8)


def _group_sizes(cohort: Cohort) -> list[int]:
    if cohort.has_patients:
        return [int(n) for n in cohort.cells["patient_id"].value_counts()]
    return [min(BLOCK, len(cohort.cells) - start) for start in range(0, len(cohort.cells), BLOCK)]


def _write_source(store: BagStore, cohort: Cohort, note: str) -> None:
    """Where the images lie: this machine's matter, so it stays out of the attributes."""
    source = {
        "root": str(cohort.root.resolve()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": told_notes(cohort),
        "encoder_note": note,
    }
    write_json(store.path / "source.json", source)


def _encode(store: BagStore, groups: Mapping[str, int], root: Path, encoder: Encoder, execution: Execution) -> None:
    """Encode and write groups (name -> cells), in order."""
    wanted = (Place(root, *place) for name in groups for place in places(store.cells.iloc[store.rows_of(name)]))
    size, total = encoder.transform.size, sum(groups.values())
    shown = progress("extract", total, "cells") if speaks(os.environ) else contextlib.nullcontext(_advance_unseen)
    with (
        shown as advance,
        running(encoder, execution) as run,
        contextlib.closing(decode(wanted, encoder.transform, _BATCHES_AHEAD * execution.batch_size)) as cells,
        ThreadPoolExecutor(max_workers=1) as writer,
    ):
        behind: deque[Future[None]] = deque()
        for name, n_cells in groups.items():
            features, group = [], list[DecodedCell]()
            for part in _batches(cells, n_cells, execution.batch_size):
                features.append(run(_squares(part, execution, size))[: len(part)])
                group += [cell._replace(square=None) for cell in part]
                advance(len(part))
            behind.append(writer.submit(_write, store, name, torch.cat(features), group))
            while behind and (behind[0].done() or len(behind) > _GROUPS_BEHIND):
                behind.popleft().result()  # what could not be written is known before more is encoded
        for written in behind:
            written.result()


def _advance_unseen(n: int = 1) -> None:
    """What the ranks do that do not speak."""


def _batches(cells: Iterator[DecodedCell], n_cells: int, batch_size: int) -> Iterator[list[DecodedCell]]:
    for start in range(0, n_cells, batch_size):
        yield list(islice(cells, min(batch_size, n_cells - start)))


def _squares(part: Sequence[DecodedCell], execution: Execution, size: int) -> Tensor:
    """A full batch, uint8 (batch_size, size, size, 3); black where a cell has no image, and beyond the last."""
    pinned = execution.device.type == "cuda"
    squares = torch.zeros(execution.batch_size, size, size, 3, dtype=torch.uint8, pin_memory=pinned)
    for row, cell in enumerate(part):
        if cell.square is not None:
            squares[row] = torch.from_numpy(cell.square)
    return squares


def _write(store: BagStore, name: str, features: Tensor, group: Sequence[DecodedCell]) -> None:
    """Write one group, on a thread of its own: only this one waits for the GPU and for the disk."""
    ids = store.cells["cell_id"].iloc[store.rows_of(name)]
    store.write(name, *_accepted(features.cpu().numpy(), dict(zip(ids, group, strict=True)), store.dtype))


def _accepted(
    features: npt.NDArray[np.float32], cells: Mapping[str, DecodedCell], dtype: np.dtype[Any]
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
