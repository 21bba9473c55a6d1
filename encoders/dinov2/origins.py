"""What a training learns from, by digests: its provenance, and what it must find again when it goes on.

No folder is part of it: images, weights and files of labels may have moved. The same facts say what the encoder has
seen, so that reports can warn of a cohort that was trained on.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.dinobloom import SEEN
from encoders.dinov2.cell_images import CellImages
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.pretrain_settings import PretrainSettings, Source
from encoders.pretrained import read_description
from encoders.weights import Weights
from milkit.cohort import Cohort
from milkit.errors import CohortError, RunError, WeightsError, first_rows

ANY_IMAGES = frozenset({"tabular"})
"""Cohort factories that read whatever they are pointed at: what they read goes by the name of its recipe."""

_SEEN = {257: SEEN, 1370: ("lvd142m",)}
"""What published weights have seen, by the number of their positions: DinoBloom's, and DINOv2's."""


def origins_of(
    settings: PretrainSettings,
    cohorts: Sequence[Cohort],
    validation: Cohort | None,
    images: Sequence[CellImages],
    chains: LabelChains | None,
) -> dict[str, Any]:
    """The facts as plain values: of each cohort its name, its number of cells and digests, and of the taxonomy.

    Args:
        settings: Of the training.
        cohorts: Of the sources, in their order.
        validation: The cohort that validates, if there is one.
        images: Of the sources, with the positions of their cells' labels.
        chains: What these labels mean, where they are learned from.
    """
    supervised = [_sha256(own.labels.tobytes()) if chains else None for own in images]
    judged = None
    if validation is not None:
        types = validation.cells.get("cell_type")
        labels = None if types is None else _sha256(json.dumps(types.fillna("").tolist()).encode())
        judged = {**_facts(validation, labels), "drawn": settings.validation_cells}
    meaning = None
    if chains is not None:
        tree = [list(chains.taxonomy.parents.items()), chains.labels]
        meaning = {"name": chains.taxonomy.name, "sha256": _sha256(json.dumps(tree).encode())}
    return {
        "sources": [_facts(*each) for each in zip(cohorts, supervised, strict=True)],
        "taxonomy": meaning,
        "validation": judged,
    }


def _facts(cohort: Cohort, labels: str | None) -> dict[str, Any]:
    return {"cohort": cohort.name, "cells": len(cohort.cells), "sha256": cohort.digest, "labels_sha256": labels}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refuse_other_origins(folder: Path, begun: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A training goes on with the images, the labels and the taxonomy that it began with.

    Raises:
        RunError: If some of them have changed; it says which.
    """
    if changes := list(_changes(begun, given)):
        msg = (
            f"The training in {folder} was begun with other data ({first_rows(changes)}), and goes on only with its "
            "own; bring those back, or give another --name."
        )
        raise RunError(msg)


def _changes(begun: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    for old, new in zip(begun["sources"], given["sources"], strict=True):  # as many: the settings are the same
        name, before, now = new["cohort"], old["cells"], new["cells"]
        if old["sha256"] != new["sha256"]:
            yield f"{name} had {before} cells and has {now}" if before != now else f"the {now} cells of {name}"
        elif old["labels_sha256"] != new["labels_sha256"]:
            yield f"the labels of {name}"
    if begun["taxonomy"] != given["taxonomy"]:
        yield "the taxonomy or what labels mean in it"


def refuse_shared_images(cohorts: Sequence[Cohort], validation: Cohort) -> None:
    """Cells that validate a training are not among those that it learns from, whatever their cohorts are called.

    Raises:
        CohortError: If a file is in both.
    """
    own = _files(validation)
    for cohort in cohorts:
        shared = sorted(own & _files(cohort))
        if shared:
            first = Path(shared[0]).relative_to(validation.root.resolve())
            msg = (
                f"{len(shared)} files of the validation '{validation.name}' are also among those of '{cohort.name}' to "
                f"learn from ({first} the first), expected other ones; give it such, as another part of the cohort."
            )
            raise CohortError(msg)


def _files(cohort: Cohort) -> set[str]:
    root = cohort.root.resolve()
    return {f"{root}/{path}" for path in cohort.cells["path"]}


def seen_by_weights(path: Path, held: Weights) -> tuple[str, ...]:
    """What the weights that a training starts from have seen: what their file says, or, if published, their authors.

    Of other files nothing is known: their own name stands for what they have seen.
    """
    with contextlib.suppress(WeightsError):
        return tuple(read_description(path)["seen"])
    positions = held.tensors.get("pos_embed")
    n = positions.shape[1] if positions is not None and positions.ndim == 3 else 0
    return _SEEN.get(n, (path.name,))


def seen_by(settings: PretrainSettings, before: Sequence[str]) -> list[str]:
    """Names of all data sets whose cells have a part in the encoder: learned from, before or now, or chosen by.

    Args:
        settings: Of the training.
        before: What the weights that it starts from have seen.
    """
    parts = [*settings.sources, *([settings.validation] if settings.validation else [])]
    return sorted({*before, *map(_data_set, parts)})


def _data_set(source: Source) -> str:
    cohort = source.cohort
    return cohort.name if cohort.factory in ANY_IMAGES else cohort.factory
