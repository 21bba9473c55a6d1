"""From the sources of a training to its batches: crops of all images, and labelled cells beside them."""

import platform
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from encoders.dinov2.cell_images import CellImages, by_label
from encoders.dinov2.label_chains import UNLABELLED, LabelChains, LabelTable
from encoders.dinov2.pretrain_settings import PretrainSettings, Source
from encoders.dinov2.sampling import Draws
from encoders.dinov2.stream import Batch, ViewStream, batches
from milkit.cohort import Cohort
from milkit.labelled_cells import labels_of
from milkit.ranks import Ranks
from milkit.runs import usable_cores
from milkit.taxonomy import LabelMap, Taxonomy

MOST_WORKERS = 12
"""Processes that read images, at most; a GPU step of a ViT-S takes what these make."""


def labelled_images(
    settings: PretrainSettings, cohorts: Sequence[Cohort]
) -> tuple[list[CellImages], LabelChains | None]:
    """The images of each cohort, with the places of their labels in one list, and that list's chains.

    Raises:
        UnknownName: A cell's label is not in the file of what labels mean, or there is no such file.
    """
    if settings.supervision is None:
        return [CellImages.of(cohort) for cohort in cohorts], None
    taxonomy = Taxonomy.load(settings.supervision.taxonomy)
    files = [
        _meaning(source) if "cell_type" in cohort.cells else None
        for source, cohort in zip(settings.sources, cohorts, strict=True)
    ]
    table = LabelTable.of(taxonomy, {file: LabelMap.load(file, taxonomy) for file in files if file})
    images = []
    for file, cohort in zip(files, cohorts, strict=True):
        indices = _indices(table, file, labels_of(cohort.cells, "cell_type")) if file else None
        images.append(CellImages.of(cohort, indices))
    return images, LabelChains(taxonomy, table.labels, settings.supervision.alpha, settings.supervision.scale)


def meaning_of_validation(settings: PretrainSettings, cohort: Cohort) -> LabelMap | None:
    """What the labels of the cells that validate mean in the taxonomy that is learned; None where none is.

    Raises:
        UnknownName: There is no file of what its labels mean; ``labels: false`` says that it needs none.
    """
    if settings.supervision is None or settings.validation is None or "cell_type" not in cohort.cells:
        return None
    file = _meaning(settings.validation)
    return LabelMap.load(file, Taxonomy.load(settings.supervision.taxonomy)) if file else None


def _meaning(source: Source) -> str | None:
    """The file, or the name of the data set, that says what a source's labels mean; None where they are not used."""
    if isinstance(source.labels, bool):
        return source.cohort.factory if source.labels else None
    return str(source.labels)


def _indices(table: LabelTable, file: str, labels: "pd.Series[Any]") -> list[int]:
    missing = labels.isna()
    return [UNLABELLED if gone else table.index(file, str(label)) for label, gone in zip(labels, missing, strict=True)]


def streams_of(
    settings: PretrainSettings, images: Sequence[CellImages], ranks: Ranks, start: int
) -> tuple[Iterator[Batch], Iterator[Batch] | None]:
    """Batches of crops, and of labelled cells; all processes call this together."""
    workers = max(min(own_cores(ranks) - 1, MOST_WORKERS), 1)
    workers = workers if settings.workers is None else settings.workers
    size, seed = settings.network.image_size, settings.seed
    given = [source.weight for source in settings.sources]
    weights = [len(own) if weight is None else weight for weight, own in zip(given, images, strict=True)]
    crops = ViewStream(
        tuple(images),
        Draws([len(own) for own in images], weights, seed=seed),
        settings.augmentation,
        size,
        interpolation=settings.interpolation,
    )
    place = {"rank": ranks.rank, "world": ranks.size, "start": start, "stop": settings.stop}
    unlabelled = batches(crops, batch_size=settings.batch_size, workers=workers, **place)
    if settings.supervision is None:
        return unlabelled, None
    sources, shares = by_label(images, settings.supervision.balance)
    cells = ViewStream(
        sources,
        Draws([len(own) for own in sources], shares, seed=seed, purpose="labels"),
        settings.supervision.augmentation,
        size,
        n_views=1,
        interpolation=settings.interpolation,
    )
    fewer = min(workers, 1 + workers // 4)  # one view of fewer cells, where the others have two
    return unlabelled, batches(cells, batch_size=settings.supervision.batch_size, workers=fewer, **place)


def own_cores(ranks: Ranks) -> int:
    """Cores for this process: an equal share of those that the job's processes on this machine may use.

    They may all use the same ones, as under torchrun, or each its own, as srun can bind them.
    """
    node = platform.node()
    here = [cores for other, cores in ranks.gathered((node, usable_cores())) if other == node]
    return max(len(set.union(*here)) // len(here), 1)
