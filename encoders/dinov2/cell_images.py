"""Where the cells of cohorts lie and which labels they have, in little memory."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from encoders.dinov2.label_chains import UNLABELLED
from milkit.cohort import Cohort
from milkit.errors import CohortError
from milkit.images import RgbImage, read_bytes, read_cell


class CellImages:
    """Where the cells of one cohort lie, and their labels, in about as many bytes as their paths have.

    Workers get a copy each: a list of texts would be twice as large, and tensors, which they could share, need an open
    file for every table.
    """

    def __init__(self, root: Path, paths: Sequence[str], boxes: Sequence[str], labels: Sequence[int]) -> None:
        """A row a cell: path relative to ``root``, box in the file (or empty), index of the label or ``UNLABELLED``."""
        self.root = root
        self.labels: npt.NDArray[np.int32] = np.asarray(labels, dtype=np.int32)
        places = [f"{path}\n{box}".encode(errors="surrogateescape") for path, box in zip(paths, boxes, strict=True)]
        self._text = b"".join(places)
        self._ends = np.cumsum([len(place) for place in places], dtype=np.int64)
        if len(self.labels) != len(places):
            msg = f"{len(self.labels)} labels for {len(places)} cells"
            raise ValueError(msg)

    @classmethod
    def of(cls, cohort: Cohort, labels: Sequence[int] | None = None) -> "CellImages":
        """All cells of a cohort in its order; ``labels`` are indices, without them no cell has one."""
        cells = cohort.cells
        boxes = cells["box"].fillna("").tolist() if "box" in cells else [""] * len(cells)
        known = [UNLABELLED] * len(cells) if labels is None else labels
        return cls(cohort.root, cells["path"].tolist(), boxes, known)

    def __len__(self) -> int:
        """Cells."""
        return len(self.labels)

    def keep(self, rows: Iterable[int]) -> "CellImages":
        """Some of the cells, in the order given."""
        chosen = list(rows)
        paths, boxes = zip(*map(self._place, chosen), strict=True) if chosen else ((), ())
        return CellImages(self.root, paths, boxes, self.labels[chosen].tolist())

    def path(self, row: int) -> str:
        """A cell's file, relative to the root."""
        return self._place(row)[0]

    def read(self, row: int) -> RgbImage:
        """A cell's pixels (height, width, 3); else an ``ImageError``."""
        path, box = self._place(row)
        return read_cell(read_bytes(self.root, path), box)

    def _place(self, row: int) -> tuple[str, str]:
        begin = int(self._ends[row - 1]) if row else 0
        path, _, box = self._text[begin : int(self._ends[row])].decode(errors="surrogateescape").rpartition("\n")
        return path, box


def by_label(images: Sequence[CellImages], balance: float) -> tuple[tuple[CellImages, ...], tuple[float, ...]]:
    """A source for every label of every cohort, and their weights for ``Draws``; cells without a label are left out.

    A label that n cells have is drawn with weight n ** balance: 1 draws every cell, 0 every label as often as any
    other. Within a label every cell weighs the same, whichever cohort it is of.
    """
    counts: dict[int, int] = {}
    for cells in images:
        for label, n in zip(*np.unique(cells.labels, return_counts=True), strict=True):
            counts[int(label)] = counts.get(int(label), 0) + int(n)
    counts.pop(UNLABELLED, None)
    if not counts:
        msg = "None of the cells has a label, expected labelled ones to learn from; add a cohort with labels."
        raise CohortError(msg)
    sources, weights = [], []
    for cells in images:
        for label, n in counts.items():
            rows = np.flatnonzero(cells.labels == label)
            if len(rows):
                sources.append(cells.keep(rows.tolist()))
                weights.append(n**balance * len(rows) / n)
    return tuple(sources), tuple(weights)
