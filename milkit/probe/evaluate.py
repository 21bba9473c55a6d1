"""VERB stores -> probes: the evaluation of DinoBloom's paper, with intervals, for one encoder or several at once.

k-NN and linear probe on raw features, over stratified folds or a published split (Koch et al. 2024). What differs from
the released code: folds are shuffled with a seed, copies of an image and the cells of a patient stay in one fold, and
a figure pools the tested cells of all folds, with an interval; the folds' own values stand beside it.

Where classes are nodes of the taxonomy, mistakes are also told by how far off they are in the tree: by the height of
the lowest common ancestor, hierarchical precision, recall and F1, and the balanced accuracy at each depth; and features
by whether classes lie in them as in the tree. The intervals are over the same resamples.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit import settings as recipes
from milkit.bags import BagStore, seen_in_pretraining
from milkit.errors import FoldError, first_rows
from milkit.probe.few_shot import classes_with_fewer, few_shot, summarise_draws
from milkit.probe.hierarchy import TreeScores, tree_correlation
from milkit.probe.task import Task, make_task, same_cells
from milkit.probe_figures import few_shot_curves
from milkit.probe_settings import ProbeSettings
from milkit.progress import Advance, progress
from milkit.runs import provenance, whole_folder, write_json, write_text
from milkit.statistics.cell_intervals import METRICS, Outcomes, Scores, score
from milkit.statistics.hierarchy import Tree
from milkit.statistics.linear_probe import linear_probe
from milkit.statistics.neighbours import nearest, vote
from milkit.tables import write_table
from milkit.taxonomy import Taxonomy

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


def probe(stores: Sequence[BagStore], settings: ProbeSettings, folder: Path) -> dict[str, Any]:
    """Probe the features of one cohort's cells under one encoder or several, and write a folder about it.

    The folder is written whole or not at all: ``probe.json`` (what is returned), ``figures.csv`` (one row a figure),
    ``predictions.csv`` (one row a tested cell), ``few_shot.csv`` and ``few-shot.svg``, ``settings.yaml``. With
    ``taxonomy``, each classifier and each difference has the figures of ``milkit.probe.hierarchy.tree_metrics`` beside
    the others, and each encoder its ``feature_correlation``; ``hierarchy`` says what they are over.

    Args:
        stores: Complete stores of the same cells; differences are taken from the first.
        settings: Labels, folds or split, classifiers.
        folder: A new folder.

    Raises:
        StoreError: The stores hold different cells or labels, or none.
        FoldError: The cells cannot be divided as asked.
        RunError: The folder exists.
    """
    names, cells = encoder_names(stores), same_cells(stores, settings)
    features = [store.load() for store in stores]
    readable = np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in features])
    task = make_task(cells, readable, settings)
    _require_neighbours(task, settings)
    tree = Tree.of(Taxonomy.load()) if settings.taxonomy else None
    with whole_folder(folder) as partial:
        steps = len(stores) * (2 * len(task.folds) + settings.draws * len(settings.shots))
        guesses, penalties, draws, orders = [], [], [], []
        with progress("probe", steps, "trainings") as advance:
            while features:  # one after the other, so that only one is there in single precision
                own = features.pop(0)[task.rows].astype(np.float32)
                guessed, made_of = _predict(own, task, settings, advance)
                guesses.append(guessed)
                penalties.append(made_of)
                draws.append(few_shot(own, task, settings, advance) if settings.shots else pd.DataFrame())
                orders.append(_tree_order(tree, own, task) if tree else None)
        result = _result(stores, names, task, settings, guesses, tree)
        for name, made_of, drawn, order in zip(names, penalties, draws, orders, strict=True):
            result["encoders"][name] |= {"linear": made_of, "feature_correlation": order}
            result["encoders"][name]["few_shot"] = summarise_draws(drawn, settings.level) if len(drawn) else []
        _write(partial, result, task, settings, np.concatenate(guesses), draws)
    return result


def encoder_names(stores: Sequence[BagStore]) -> list[str]:
    """The stores' encoders; with the first digits of the digest where two are called alike."""
    names = [str(store.attributes["encoder"]) for store in stores]
    digests = [str(store.attributes["encoder_digest"])[:8] for store in stores]
    return [f"{name}-{own}" if names.count(name) > 1 else name for name, own in zip(names, digests, strict=True)]


def classifier_names(settings: ProbeSettings) -> list[str]:
    """The classifiers in the order of tables: ``1-NN``, ``20-NN``, ``linear``."""
    return [*(f"{k}-NN" for k in settings.neighbours), "linear"]


def _require_neighbours(task: Task, settings: ProbeSettings) -> None:
    smallest = min(int((task.fold != fold).sum()) for fold in task.folds)
    if max(settings.neighbours) > smallest:
        msg = (
            f"{max(settings.neighbours)} neighbours were asked for, and {smallest} cells are trained on; give fewer, "
            "such as --set neighbours=[1,5]."
        )
        raise FoldError(msg)


def _predict(features: Floats, task: Task, settings: ProbeSettings, advance: Advance) -> tuple[Ints, dict[str, Any]]:
    """What each classifier says of the tested cells, (classifiers, tested), and how the linear ones were fitted."""
    guesses = np.full((len(settings.neighbours) + 1, len(task.labels)), -1, dtype=np.int64)
    penalties, stopped = set(), 0
    for fold in task.folds:
        tested = task.fold == fold
        train, labels = features[~tested], task.labels[~tested]
        near = labels[nearest(train, features[tested], max(settings.neighbours))]
        for row, k in enumerate(settings.neighbours):
            guesses[row, tested] = vote(near[:, :k], len(task.classes))
        advance()
        linear = linear_probe(train, labels, features[tested], settings.iterations)
        guesses[-1, tested] = linear.predicted
        penalties.add(linear.inverse_penalty)
        stopped += not linear.converged
        advance()
    made_of = {"inverse_penalty": sorted(penalties), "trainings": len(task.folds), "not_converged": stopped}
    return guesses[:, task.tested], made_of


def _tree_order(tree: Tree, features: Floats, task: Task) -> dict[str, Any]:
    """Whether the tested cells' classes lie in the features as in the tree."""
    return tree_correlation(tree, features[task.tested], task.labels[task.tested], task.classes)


def _result(
    stores: Sequence[BagStore],
    names: Sequence[str],
    task: Task,
    settings: ProbeSettings,
    guesses: Sequence[Ints],
    tree: Tree | None,
) -> dict[str, Any]:
    """Everything that ``probe.json`` says, but for the few-shot curves."""
    classifiers = classifier_names(settings)
    labels, fold = task.labels[task.tested], task.fold[task.tested]
    drawn = None if task.groups.to_draw is None else task.groups.to_draw[task.tested]
    outcomes = Outcomes.of(labels, np.concatenate(guesses), len(task.classes), drawn)
    drawing: dict[str, Any] = {"n_bootstrap": settings.bootstrap, "level": settings.level, "seed": settings.seed}
    scores = Scores(outcomes, **drawing)
    in_tree = TreeScores(tree, task.classes, outcomes, **drawing) if tree else None
    in_fold = (fold == np.array(task.folds)[:, None]).astype(np.float64)
    encoders, differences = dict[str, Any](), dict[str, Any]()
    for position, (name, store) in enumerate(zip(names, stores, strict=True)):
        first = position * len(classifiers)
        encoders[name] = _encoder_facts(store) | {"classifiers": {}}
        differences[name] = {}
        for row, classifier in enumerate(classifiers):
            by_fold = score(labels, guesses[position][row], in_fold, len(task.classes)).T
            encoders[name]["classifiers"][classifier] = {
                metric: scores.figure(first + row, metric) | {"folds": values.tolist()}
                for metric, values in zip(METRICS, by_fold, strict=True)
            }
            differences[name][classifier] = {
                metric: scores.difference(first + row, row, metric) for metric in METRICS if position
            }
            if in_tree is None:
                continue
            own_folds = in_tree.folds(labels, guesses[position][row], in_fold)
            encoders[name]["classifiers"][classifier] |= {
                metric: in_tree.figure(first + row, metric) | {"folds": own_folds[metric]} for metric in in_tree.metrics
            }
            differences[name][classifier] |= {
                metric: in_tree.difference(first + row, row, metric) for metric in in_tree.metrics if position
            }
    return {
        "cohort": stores[0].attributes["cohort"],
        "label": settings.label,
        "taxonomy": settings.taxonomy,
        "hierarchy": in_tree.facts() if in_tree else None,
        "classes": {c: int(n) for c, n in zip(task.classes, np.bincount(task.labels), strict=True)},
        "n_cells": len(task.labels),
        "n_tested": len(labels),
        "unit": task.groups.unit,
        "assumption": task.groups.assumption,
        "n_units": len(np.unique(task.groups.of_cell[task.tested])),
        "left_out": task.left_out,
        "split": task.split,
        "notes": [*task.notes, *_notes(stores, names, task, settings)],
        "chance_balanced_accuracy": 1 / len(task.classes),
        "encoders": encoders,
        "reference": names[0],
        "differences": {name: differences[name] for name in names[1:]},
        "published": settings.published.model_dump(mode="json") if settings.published else None,
        "level": settings.level,
        "n_bootstrap": settings.bootstrap,
        "seed": settings.seed,
        **provenance(),
    }


def _encoder_facts(store: BagStore) -> dict[str, Any]:
    keys = ("encoder", "encoder_digest", "encoder_seen", "dim", "dtype", "precision", "cohort_digest")
    return {key: store.attributes.get(key) for key in keys}


def _notes(stores: Sequence[BagStore], names: Sequence[str], task: Task, settings: ProbeSettings) -> list[str]:
    notes = [
        f"The pre-training of {name} has seen this cohort, so its figures are not those of new cells."
        for name, store in zip(names, stores, strict=True)
        if seen_in_pretraining(store.attributes)
    ]
    if settings.shots and (short := classes_with_fewer(task, max(settings.shots))):
        few = f"{len(short)} of {len(task.classes)} classes ({first_rows(short, 3)})"
        notes.append(f"Few-shot: {few} have fewer than {max(settings.shots)} training cells, and give all.")
    return notes


def _write(
    folder: Path,
    result: dict[str, Any],
    task: Task,
    settings: ProbeSettings,
    guesses: Ints,
    draws: Sequence[pd.DataFrame],
) -> None:
    names, classifiers = list(result["encoders"]), classifier_names(settings)
    write_json(folder / "probe.json", result)
    write_text(folder / "settings.yaml", recipes.dump(settings))
    figures = [
        (name, classifier, metric, figure["estimate"], figure["ci_low"], figure["ci_high"])
        for name, encoder in result["encoders"].items()
        for classifier, metrics in encoder["classifiers"].items()
        for metric, figure in metrics.items()
    ]
    columns = ["encoder", "classifier", "metric", "estimate", "ci_low", "ci_high"]
    write_table(folder / "figures.csv", pd.DataFrame(figures, columns=columns))
    ids = [cell for cell, tested in zip(task.cell_ids, task.tested, strict=True) if tested]
    table = pd.DataFrame({"cell_id": ids, "fold": task.fold[task.tested]})
    table["label"] = np.array(task.classes)[task.labels[task.tested]]
    for row, guess in enumerate(guesses):
        name, classifier = names[row // len(classifiers)], classifiers[row % len(classifiers)]
        table[f"{name} {classifier}"] = np.array(task.classes)[guess]
    write_table(folder / "predictions.csv", table)
    if settings.shots:
        parts = [drawn.assign(encoder=name) for name, drawn in zip(names, draws, strict=True)]
        write_table(folder / "few_shot.csv", pd.concat(parts, ignore_index=True))
        curves = {name: result["encoders"][name]["few_shot"] for name in names}
        write_text(folder / "few-shot.svg", few_shot_curves(curves, 1 / len(task.classes)))
