"""The cells of one or several stores that a batch report looks at, each with its source and its class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore
from milkit.errors import FoldError, SettingsError, StoreError
from milkit.labelled_cells import Groups, cell_table, labels_of, nodes_of, without_overlap
from milkit.probe_settings import AtlasSettings

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The cells that are looked at.

    Attributes:
        features: (n, dim) float32.
        sources: (n,) position of each cell's source in ``source_names``.
        source_names: In alphabetical order.
        classes: (n,) position of each cell's class in ``class_names``, -1 where it has none.
        class_names: In alphabetical order; empty where no cell has a class.
        label: The column of the classes.
        groups: Which cells belong together.
        fold: (n,) the fold in which the source of each cell is predicted; each training has cells of every source.
        left_out: How many cells were left out, by reason.
    """

    features: npt.NDArray[np.float32]
    sources: Ints
    source_names: tuple[str, ...]
    classes: Ints
    class_names: tuple[str, ...]
    label: str | None
    groups: Groups
    fold: Ints
    left_out: dict[str, int]

    @property
    def shared_classes(self) -> tuple[str, ...]:
        """Classes that at least two sources have."""
        numbered = enumerate(self.class_names)
        return tuple(name for c, name in numbered if len(np.unique(self.sources[self.classes == c])) > 1)


def sample(stores: Sequence[BagStore], settings: AtlasSettings) -> Sampled:
    """Draw cells of every source without replacement, and divide them into folds.

    Left out are cells that could not be read, cells without a source, and sources of fewer patients, fields or cells
    than there are folds. A sample has cells of at least as many of these, however unlike their numbers of cells are.
    """
    _require_one_encoder(stores)
    tables = [_with_source(store, stores, settings) for store in stores]
    columns = list(dict.fromkeys(str(column) for table in tables for column in table))
    label = settings.label or next((name for name in ("cell_type", "label") if name in columns), None)
    if label and label not in columns:
        msg = f"No store has the column '{label}'; give --label one of {', '.join(columns)}."
        raise StoreError(msg)
    if settings.taxonomy and label:
        for store, table in zip(stores, tables, strict=True):
            table["node"] = nodes_of(labels_of(table, label), store) if label in table else None
    cells = pd.concat(tables, ignore_index=True)
    features = np.concatenate([store.load() for store in stores])
    readable, sources, groups = np.isfinite(features).all(axis=1), cells["source"], Groups.of(cells)
    keep = readable & sources.notna().to_numpy()
    per_source = pd.Series(groups.of_cell[keep]).groupby(sources[keep].to_numpy()).nunique()
    names = sorted(per_source.index[per_source >= settings.folds])
    if len(names) < 2:
        msg = (
            f"The source '{settings.source}' has {len(names)} values with {settings.folds} {groups.unit} or more; "
            "expected two, so give more stores, or a column that differs within one."
        )
        raise FoldError(msg)
    generator = np.random.default_rng(settings.seed)
    members = [generator.permutation(np.flatnonzero(keep & (sources == name))) for name in names]
    chosen = np.sort(np.concatenate([_first(rows, groups.of_cell[rows], settings) for rows in members]))
    in_small = int((keep & ~sources.isin(names)).sum())
    if (features[chosen] == features[chosen[0]]).all():
        msg = f"All {len(chosen)} sampled cells have the same features; look at the images and the encoder."
        raise StoreError(msg)
    codes, classes = _numbered(_classes(cells.iloc[chosen], label, settings))
    position = {name: number for number, name in enumerate(names)}
    numbers = np.asarray(sources.iloc[chosen].map(position), dtype=np.int64)
    together = groups.keep(np.isin(np.arange(len(cells)), chosen))
    return Sampled(
        features=features[chosen].astype(np.float32),
        sources=numbers,
        source_names=tuple(names),
        classes=codes,
        class_names=classes,
        label=label,
        groups=together,
        fold=_folds(together, numbers, names, settings),
        left_out={
            "unreadable": int((~readable).sum()),
            "of no source": int((readable & ~keep).sum()),
            "of sources that are too small": in_small,
            "beyond the sample": int(keep.sum()) - in_small - len(chosen),
        },
    )


def _first(rows: Ints, groups: Ints, settings: AtlasSettings) -> Ints:
    """The first of a source's shuffled cells, where these are of too few groups with the first of some others."""
    of_group = np.sort(np.unique(groups, return_index=True)[1])[: settings.folds]
    return np.concatenate([rows[of_group], np.delete(rows, of_group)])[: settings.sample]


def _folds(groups: Groups, sources: Ints, names: Sequence[str], settings: AtlasSettings) -> Ints:
    """The folds, if every training has cells of every source; groups of several sources may prevent it."""
    if settings.sample < settings.folds:
        msg = (
            f"A sample of {settings.sample} cells of a source cannot be divided into {settings.folds} folds; give a "
            "larger sample, or fewer folds."
        )
        raise SettingsError(msg)
    fold = groups.folds(sources, settings.folds, settings.seed)
    for number in np.unique(fold):
        if len(lacking := np.setdiff1d(sources, sources[fold != number])):
            msg = (
                f"All {int((sources == lacking[0]).sum())} sampled cells of the source '{names[lacking[0]]}' fell into "
                f"one of {settings.folds} folds, so that its training would have none; give another --seed, a larger "
                "sample, or fewer folds."
            )
            raise FoldError(msg)
    return fold


def _require_one_encoder(stores: Sequence[BagStore]) -> None:
    first = stores[0]
    for store in stores[1:]:
        if (store.attributes["encoder_digest"], store.dim) != (first.attributes["encoder_digest"], first.dim):
            msg = (
                f"{store.path} is of the encoder {store.attributes['encoder']} ({store.dim} features), {first.path} of "
                f"{first.attributes['encoder']} ({first.dim} features); sources are compared under one encoder, so "
                "extract both cohorts with the same weights."
            )
            raise StoreError(msg)


def _classes(cells: pd.DataFrame, label: str | None, settings: AtlasSettings) -> "pd.Series[Any]":
    if label is None:
        return pd.Series(index=cells.index, dtype=object)
    return without_overlap(cells["node"]) if settings.taxonomy else labels_of(cells, label)


def _numbered(labels: "pd.Series[Any]") -> tuple[Ints, tuple[str, ...]]:
    """Position of each label among the labels, -1 where there is none, and the labels."""
    codes, names = pd.factorize(labels, sort=True)
    return np.asarray(codes, dtype=np.int64), tuple(str(name) for name in names)


def _with_source(store: BagStore, stores: Sequence[BagStore], settings: AtlasSettings) -> pd.DataFrame:
    """The store's cells with a column ``source``, and patients of two cohorts told apart."""
    cells, cohort = cell_table(store), str(store.attributes["cohort"])
    if settings.source == "cohort":
        if [other.attributes["cohort"] for other in stores].count(cohort) > 1:
            msg = f"Two stores are of the cohort '{cohort}'; name the column that tells them apart with --source."
            raise SettingsError(msg)
        source: Any = cohort
    elif settings.source in cells:
        source = labels_of(cells, settings.source)
    else:
        msg = (
            f"Neither the cells nor the patients of {store.path} have a column '{settings.source}'; give --source one "
            f"of {', '.join(cells.columns)}, or cohort."
        )
        raise StoreError(msg)
    if cells["patient_id"].notna().any():
        cells["patient_id"] = cohort + "/" + cells["patient_id"]
    return cells.assign(source=source)
