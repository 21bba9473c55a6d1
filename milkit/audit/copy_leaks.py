"""The same cell in the bags of two patients: a model that learned one of them knows something of the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.audit.findings import AuditFinding, Level, Name
from milkit.audit.subject import Audited
from milkit.audit.twins import Pairs, feature_twins, same_files
from milkit.bags import image_paths
from milkit.check.fingerprint import near_pairs
from milkit.check.images import DARK, FLAT
from milkit.check.reading import read_cells
from milkit.errors import first_rows
from milkit.runs import read_json

Ints = npt.NDArray[np.int64]

_MOST_TWINS = 1
"""Pairs a cell, on average, above which features tell cells apart too badly to say which of them are one."""


def about_copies(audited: Audited, *, images: bool = True, kept: Path | None = None) -> Iterator[AuditFinding]:
    """Cells of two patients that are the same file, look the same, or have nearly the same features.

    Args:
        audited: The run.
        images: Whether images are read to compare their looks.
        kept: Measures of an earlier `milkit cohort check`, which save reading.
    """
    store = audited.store
    position = {name: row for row, name in enumerate(audited.patients)}
    owner: Ints = np.array([position.get(name, -1) for name in store.cells["patient_id"]], dtype=np.int64)
    took_part = owner >= 0
    exact = same_files(np.where(took_part[:, None], store.image_digests(), 0).astype(np.uint8), owner)
    yield from _tell(audited, owner, exact, "image-of-two-patients", "the same file")
    near, reason = _near(audited, owner, kept) if images else (None, "images were not to be read")
    if near is None:
        text = f"Near duplicates were not looked for, since {reason}."
        yield AuditFinding("note", "not-assessed", text)
    else:
        yield from _tell(audited, owner, _without(near, exact), "near-duplicate", "pictures that look the same")
    features = store.load()
    if not took_part.all():
        features = np.where(took_part[:, None], features, np.nan)
    twins = _without(feature_twins(features, owner), exact, *([near] if near else []))
    if len(twins.rows) > _MOST_TWINS * len(owner):
        text = (
            f"{len(twins.rows):,} pairs of cells of two patients have nearly the same features, so that the features "
            "do not say which of them are one cell."
        )
        yield AuditFinding("note", "not-assessed", text)
        return
    yield from _tell(audited, owner, twins, "feature-twins", "nearly the same features")


def _near(audited: Audited, owner: Ints, kept: Path | None) -> tuple[Pairs | None, str]:
    """Pairs of images that look the same; None, and why, where that cannot be seen."""
    source = audited.store.path / "source.json"
    root = read_json(source).get("root") if source.is_file() else None
    if root is None or not Path(root).is_dir():
        return None, "the images are not where the store says, or it was imported"
    chosen = np.flatnonzero(owner >= 0)
    cells = audited.store.cells.assign(path=image_paths(audited.store)).iloc[chosen].reset_index(drop=True)
    reading = read_cells(Path(root), cells, kept)
    records = reading.records
    distinct = ~records["constant"] & (records["brightest"] >= DARK) & (records["contrast"] >= FLAT)
    distinct[list(reading.reasons)] = False
    if not distinct.any():
        return None, "no image could be read"
    shown = np.flatnonzero(distinct)
    prints = np.ascontiguousarray(records["fingerprint"][shown])
    pairs = near_pairs(prints)
    if pairs is None:
        return None, "the images are too much alike (is there a mask or a frame on all of them?)"
    rows = chosen[shown[pairs[:, :2]]]
    return Pairs(rows[owner[rows[:, 0]] != owner[rows[:, 1]]]), ""


def _without(pairs: Pairs, *others: Pairs) -> Pairs:
    known = {tuple(sorted(pair)) for other in others for pair in other.rows.tolist()}
    return Pairs(
        np.array([p for p in pairs.rows.tolist() if tuple(sorted(p)) not in known], dtype=np.int64).reshape(-1, 2)
    )


def _tell(audited: Audited, owner: Ints, pairs: Pairs, name: Name, what: str) -> Iterator[AuditFinding]:
    """One sentence for pairs that a fold parts, and one for those that none does."""
    if not len(pairs.rows):
        return
    apart = audited.parted()[owner[pairs.rows[:, 0]], owner[pairs.rows[:, 1]]]
    severe: Level = "warning" if name == "feature-twins" else "error"
    meanings: tuple[tuple[Any, Level, str], ...] = (
        (apart, severe, "one is tested by models that know the other; find out whose the cell is, and leave it out"),
        (~apart, "warning", "no fold parts the two; find out whose the cell is"),
    )
    for chosen, level, meaning in meanings:
        if chosen.any():
            rows = pairs.rows[chosen]
            cells = audited.store.cells
            named = [f"{_cell(cells, i)} and {_cell(cells, j)}" for i, j in rows[:6].tolist()]
            shown = first_rows(named + [""] * (len(rows) - len(named)))
            count = f"{len(rows):,} pair{'' if len(rows) == 1 else 's'} of cells of two patients"
            yield AuditFinding(level, name, f"{count}: {what}, {shown}; {meaning}.")


def _cell(cells: Any, row: int) -> str:
    return f"{cells['cell_id'].iloc[row]} of patient {cells['patient_id'].iloc[row]}"
