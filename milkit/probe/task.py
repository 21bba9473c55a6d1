"""What is asked of the features of a cohort's cells: which cells, which classes, and in which fold each is tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore
from milkit.errors import FoldError, StoreError, first_rows
from milkit.labelled_cells import Groups, cell_table, labels_of, nodes_of, without_overlap
from milkit.probe.split_file import NEITHER, split_of
from milkit.probe_settings import ProbeSettings

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Task:
    """Labelled cells and their folds; the same for every encoder.

    Attributes:
        rows: (n,) rows of the cells in each store.
        cell_ids: (n,).
        labels: (n,) position of each cell's class in ``classes``.
        classes: In alphabetical order.
        groups: Which cells belong together.
        fold: (n,) the fold in which a cell is tested; negative where it is only trained on.
        split: How the folds came about, for the result.
        left_out: How many cells were left out, by reason.
        notes: What a reader should know, one sentence each.
    """

    rows: Ints
    cell_ids: tuple[str, ...]
    labels: Ints
    classes: tuple[str, ...]
    groups: Groups
    fold: Ints
    split: dict[str, Any]
    left_out: dict[str, int]
    notes: tuple[str, ...]

    @property
    def tested(self) -> npt.NDArray[np.bool_]:
        """(n,) the cells that are tested in some fold."""
        return self.fold >= 0

    @property
    def folds(self) -> tuple[int, ...]:
        """The numbers of the folds."""
        return tuple(int(number) for number in np.unique(self.fold[self.tested]))


def make_task(cells: pd.DataFrame, readable: npt.NDArray[np.bool_], settings: ProbeSettings) -> Task:
    """Choose the cells and divide them.

    Left out are cells that could not be read for one of the stores, cells without a label, those of labels that the
    settings leave out and, with folds, of classes in fewer groups than there are folds: some training would lack them.

    Args:
        cells: All cells of the stores (``same_cells``), with the taxonomy's ``node`` where that is asked for.
        readable: (n_cells,) whether a cell has features in every store.
        settings: The label's column, what is left out, folds or split.
    """
    published = labels_of(cells, settings.label)
    labels = cells["node"] if settings.taxonomy else published
    listed = np.zeros(len(cells), dtype=np.int64)
    notes: list[str] = []
    split: dict[str, Any] = {"kind": "folds", "folds": settings.folds, "seed": settings.seed}
    if settings.split:
        listed, split, notes = split_of(settings.split, cells)
    keep = np.ones(len(cells), dtype=bool)
    left_out = dict[str, int]()
    for reason, out in (
        ("unreadable", ~readable),
        ("unlabelled", published.isna().to_numpy()),
        ("of labels left out", published.isin(settings.leave_out).to_numpy()),
        ("of labels that mean no single node", labels.isna().to_numpy()),
        ("not in the split", listed == NEITHER),
    ):
        left_out[reason] = int((out & keep).sum())
        keep &= ~out
    groups = Groups.of(cells)
    if settings.taxonomy:
        labels = without_overlap(labels.where(keep))
    if not settings.split:
        few = _in_few_groups(labels[keep], groups.keep(keep), settings.folds)
        notes += [f"Left out, being in fewer {groups.unit} than there are folds: {first_rows(few, 20)}."] if few else []
        out = labels.isin(few).to_numpy() & keep
        left_out["of rare classes"] = int(out.sum())
        keep &= ~out
    classes = tuple(sorted(set(labels[keep])))
    if len(classes) < 2:
        msg = (
            f"The column '{settings.label}' has {len(classes)} classes that can be probed; expected two or more, with "
            f"folds each in as many {groups.unit} as there are folds, so give another label, or fewer --folds."
        )
        raise FoldError(msg)
    numbers = np.asarray(labels[keep].map({name: c for c, name in enumerate(classes)}), dtype=np.int64)
    groups = groups.keep(keep)
    if settings.split:
        fold = listed[keep]
        notes += _divided(groups, fold, numbers, classes)
    else:
        fold = groups.folds(numbers, settings.folds, settings.seed)
    ids = tuple(cells["cell_id"][keep])
    rows = np.flatnonzero(keep)
    return Task(rows, ids, numbers, classes, groups, fold, split, left_out, tuple(notes))


def same_cells(stores: Sequence[BagStore], settings: ProbeSettings) -> pd.DataFrame:
    """The cells of the stores, if they are the same and have the same labels; else a ``StoreError``."""
    first, label = stores[0], settings.label
    for store in stores:
        if label not in store.cells:
            msg = (
                f"The cells of {store.path} have no column '{label}', only {', '.join(store.cells.columns)}; probe a "
                "cohort whose cells are labelled, or give another --label."
            )
            raise StoreError(msg)
        if store.attributes.get("cohort_digest") != first.attributes.get("cohort_digest"):
            msg = (
                f"{store.path} and {first.path} hold different cells; encoders are compared on the cells of one "
                "cohort, so probe these stores one by one."
            )
            raise StoreError(msg)
        if not labels_of(store.cells, label).equals(labels_of(first.cells, label)):
            msg = (
                f"{store.path} and {first.path} hold different labels of the same cells; move the older store away and "
                "extract it again."
            )
            raise StoreError(msg)
    cells = cell_table(first)
    return cells.assign(node=nodes_of(labels_of(cells, label), first)) if settings.taxonomy else cells


def _in_few_groups(labels: "pd.Series[Any]", groups: Groups, least: int) -> list[str]:
    if labels.empty:
        return []
    numbers, names = pd.factorize(labels, sort=True)
    counts = groups.count(np.asarray(numbers, dtype=np.int64))
    return [f"{name}" for name, count in zip(names, counts, strict=True) if count < least]


def _divided(groups: Groups, fold: Ints, labels: Ints, classes: Sequence[str]) -> list[str]:
    """What a published split does that folds would not."""
    if not (fold >= 0).any():
        msg = "No cell that the split tests has a label and features; give another split."
        raise FoldError(msg)
    also, unseen = 0, set[str]()
    for number in np.unique(fold[fold >= 0]):
        tested = fold == number
        if len(np.unique(labels[~tested])) < 2:
            msg = "The split trains on fewer than two classes; give the split of this cohort."
            raise FoldError(msg)
        also += int(np.isin(groups.of_cell[tested], groups.of_cell[~tested]).sum())
        unseen |= {classes[c] for c in np.setdiff1d(labels[tested], labels[~tested])}
    what = {"patients": "the same patients", "fields": "the same fields", "cells": "copies of the same images"}
    same = " or ".join(what[unit] for unit in groups.units)
    notes = [f"The split trains on {same} as {also} of its tested cells."] if also else []
    return notes + ([f"Tested without being trained on: {', '.join(sorted(unseen))}."] if unseen else [])
