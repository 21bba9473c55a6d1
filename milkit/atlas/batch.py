"""VERB stores of one encoder -> how much of its features is the site, scanner, stain or data set of a cell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit import settings as recipes
from milkit.atlas.measures import measure, source_probe
from milkit.atlas.sample import Sampled, sample
from milkit.atlas.sentences import describe
from milkit.bags import BagStore
from milkit.probe_figures import Bars, batch_bars, source_scatter
from milkit.probe_settings import AtlasSettings
from milkit.progress import progress
from milkit.runs import provenance, whole_folder, write_json, write_text
from milkit.statistics.batch_effects import standardise

Floats = npt.NDArray[np.floating[Any]]

_DRAWN = 500
"""Cells of a source in the picture, at most."""


def batch_report(stores: Sequence[BagStore], settings: AtlasSettings, folder: Path) -> dict[str, Any]:
    """Measure how far sources can be told apart, before and after each is standardised, and write a folder about it.

    The folder is written whole or not at all: ``batch.json`` (what is returned), ``sentences.txt``, the pictures
    ``sources.svg`` and ``batch-effects.svg``, ``settings.yaml``. ``milkit.statistics.batch_effects`` defines the
    measures. Standardisation takes mean and spread from all sampled cells of a source, whatever their class; for the
    classifiers, from its training cells alone (``milkit.atlas.measures``).

    Args:
        stores: Complete stores of one encoder.
        settings: What a source is, and how many cells of each are looked at.
        folder: A new folder.

    Raises:
        StoreError: The stores are of different encoders, or a column is missing.
        SettingsError: The source is the cohort, and two stores are of the same.
        FoldError: There are fewer than two sources with enough cells.
        RunError: The folder exists.
    """
    sampled = sample(stores, settings)
    with whole_folder(folder) as partial:
        states = {"before": sampled.features, "after": standardise(sampled.features, sampled.sources)}
        result = _facts(stores, sampled, settings)
        with progress("atlas", 2 * (settings.folds + 1), "measurements") as advance:
            for state, features in states.items():
                result[state] = measure(sampled, features, settings)
                advance()
                probe = source_probe(sampled, settings, advance, standardised=state == "after")
                result[state]["probe"] = probe
        result["sentences"] = describe(result)
        write_json(partial / "batch.json", result)
        write_text(partial / "sentences.txt", "\n".join(result["sentences"]) + "\n")
        write_text(partial / "settings.yaml", recipes.dump(settings))
        write_text(partial / "batch-effects.svg", batch_bars(_bars(result)))
        write_text(partial / "sources.svg", _scatter(sampled, states, settings.seed))
    return result


def _facts(stores: Sequence[BagStore], sampled: Sampled, settings: AtlasSettings) -> dict[str, Any]:
    counts = np.bincount(sampled.sources)
    return {
        "encoder": stores[0].attributes["encoder"],
        "encoder_digest": stores[0].attributes["encoder_digest"],
        "cohorts": {str(store.attributes["cohort"]): store.attributes.get("cohort_digest") for store in stores},
        "source": settings.source,
        "sources": {name: int(n) for name, n in zip(sampled.source_names, counts, strict=True)},
        "label": sampled.label,
        "taxonomy": settings.taxonomy,
        "n_classes": len(sampled.class_names),
        "shared_classes": list(sampled.shared_classes),
        "unit": sampled.groups.unit,
        "assumption": sampled.groups.assumption,
        "n_units": len(np.unique(sampled.groups.of_cell)),
        "left_out": sampled.left_out,
        "neighbours": settings.neighbours,
        "chance_balanced_accuracy": 1 / len(sampled.source_names),
        "level": settings.level,
        "n_bootstrap": settings.bootstrap,
        "seed": settings.seed,
        **provenance(),
    }


def _bars(result: Mapping[str, Any]) -> dict[str, Bars]:
    """The rows of the picture of bars."""
    before, after, chance = result["before"], result["after"], result["chance_balanced_accuracy"]
    rows = {
        f"Source, {title}\n(balanced accuracy)": Bars(before["probe"][name], after["probe"][name], chance)
        for name, title in (("linear", "linear probe"), ("neighbours", f"{result['neighbours']} neighbours"))
    }
    for key, title, level in (
        ("same_source_share", "Neighbours of\nthe same source", before["same_source_chance"]),
        ("silhouette_source", "Silhouette of sources", 0.0),
        ("silhouette_class", "Silhouette of classes", None),
        ("variance_source", "Variance by source", None),
        ("variance_source_beyond_class", "Variance by source\nbeyond class", None),
        ("variance_class", "Variance by class", None),
    ):
        if key in before:
            rows[title] = Bars({"estimate": before[key]}, {"estimate": after[key]}, level)
    return rows


def _scatter(sampled: Sampled, states: Mapping[str, Floats], seed: int) -> str:
    generator = np.random.default_rng(seed)
    drawn = np.concatenate(
        [generator.permutation(np.flatnonzero(sampled.sources == s))[:_DRAWN] for s in range(len(sampled.source_names))]
    )
    shown = generator.permutation(drawn)  # so that the last source does not cover the others
    titles = {"before": "As extracted", "after": "Each source standardised"}
    panels = {}
    for state, features in states.items():
        points, shares = two_components(features)
        panels[titles[state]] = (points[shown], shares)
    return source_scatter(panels, sampled.source_names, [sampled.source_names[s] for s in sampled.sources[shown]])


def two_components(features: Floats) -> tuple[Floats, Floats]:
    """The first two principal components, (n, 2), and the share of the variance that each explains, (2,).

    The largest weight of each is positive, so that equal features give equal pictures.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, [-1, -2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return centred @ axes, values[[-1, -2]] / max(values.sum(), np.finfo(np.float64).tiny)
