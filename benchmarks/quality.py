"""The encoder that ships against others, on images it has not seen: ``python benchmarks/quality.py --acevedo FOLDER``.

    python benchmarks/quality.py --acevedo FOLDER --lymphocytosis FOLDER --encoders milkit-mini classical untrained

An encoder is a registered name; ``NAME=FILE``, a vision transformer in a weights file, under a name of one's own; or
``untrained``, ``untrained=SEED``: the network of the first of these as a training from scratch begins with it. The
first encoder is compared with each of the others. Names with a slash, as ``ssl/0=A ssl/1=B tree/0=C tree/1=D``, are
trainings of one kind, which only the seed tells apart: kinds are compared by their means.

Acevedo. The cells of the part ``train`` are the neighbours of those of the part ``test``, in the 11 classes of the
DinoBloom paper: balanced accuracy, and the height of the lowest common ancestor of label and prediction in the
taxonomy, over the mistakes and over all cells (lower is better). 20 neighbours by Euclidean distance of the features as
they are is the figure that counts. Beside it stand 1 neighbour, and, with each feature centred and scaled by the cells
of ``train``, so that measurements in different units can show what they know, 20 neighbours and a logistic regression.
Intervals are of the bootstrap over the tested cells within classes, copies of an image drawn together. No patients
were published: cells of one patient are on both sides, and intervals over new patients would be wider.

Lymphocytosis. ``milkit train-mil`` on the same splits for all: balanced accuracy and AUROC of the pooled patients of a
repeat, averaged over the repeats. Intervals of both, and of their differences, are of the bootstrap over patients, all
repeats of a patient together; models are not trained again. The corrected interval of a difference is over the splits
(Nadeau and Bengio 2003, for repeated folds: Bouckaert and Frank 2004): its variance is (1/J + tested/trained) s² for
the differences of J splits, since trainings that share patients are not independent. Over seeds, the intervals are
Student's of the differences of the trainings with the same number.

Features are computed and kept in float32: those of a network that has learned nothing differ little between images.
"""

import argparse
import functools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paired import (
    LEVEL,
    SEED,
    Figure,
    Floats,
    Ints,
    Scores,
    kind_of,
    pairs,
    report,
    resamples,
    students_interval,
    table,
    with_kinds,
)

METRICS = ("balanced accuracy", "AUROC")
HEADS = ("dino_head.", "ibot_head.", "type_head.")


def main() -> None:
    """Evaluate, print the tables, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--acevedo", type=Path, help="PBC_dataset_normal_DIB, or a folder above it.")
    parser.add_argument("--lymphocytosis", type=Path, help="The folder that holds trainset/.")
    parser.add_argument(
        "--encoders", nargs="+", default=["milkit-mini", "classical", "untrained"], metavar="NAME[=FILE]"
    )
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--work", type=Path, help="Keep the features here, for a run that goes on with them.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--bootstrap", type=int, default=2000)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    given = parser.parse_args()
    if not (given.acevedo or given.lymphocytosis):
        parser.error("give the folder of --acevedo, of --lymphocytosis, or both")
    encoders = load_encoders(given.encoders)
    results: dict[str, Any] = {
        "encoders": {name: {"digest": encoder.digest, "dim": encoder.dim} for name, encoder in encoders.items()},
        "level": LEVEL,
        "bootstrap": given.bootstrap,
    }
    with tempfile.TemporaryDirectory(prefix="milkit-benchmark-") as folder:
        given.work = given.work or Path(folder)
        if given.acevedo:
            results["acevedo"] = on_acevedo(encoders, given)
        if given.lymphocytosis:
            results["lymphocytosis"] = on_lymphocytosis(encoders, given, Path(folder))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


# --- encoders ---------------------------------------------------------------------------------------------------------


def load_encoders(asked: Sequence[str]) -> dict[str, Any]:
    """The encoders by name, in the order given."""
    from encoders.vit import VisionTransformer
    from milkit.encoder import load_encoder
    from milkit.settings import Component

    given = {name: value for name, _, value in (text.partition("=") for text in asked)}
    if len(given) < len(asked):
        msg = f"Of {', '.join(asked)} two have one name; give NAME=FILE, or untrained/1=1, with others."
        raise SystemExit(msg)
    loaded: dict[str, Any] = {}
    for name, file in given.items():
        if kind_of(name) != "untrained":
            registered = Component.model_validate(name)
            loaded[name] = encoder_of_file(name, Path(file)) if file else load_encoder(registered)
    shapes = [encoder.model.shape for encoder in loaded.values() if isinstance(encoder.model, VisionTransformer)]
    for name, seed in given.items():
        if kind_of(name) == "untrained":
            if not shapes:
                msg = "An untrained network has the shape of another one; give a vision transformer, too."
                raise SystemExit(msg)
            loaded[name] = untrained(name, shapes[0], int(seed or SEED))
    return {name: loaded[name] for name in given}


def encoder_of_file(name: str, file: Path) -> Any:
    """A backbone as ``milkit pretrain`` leaves it; 64 features a head of the attention, as all published ones have."""
    import torch

    from encoders.vit import VisionTransformer, VitShape
    from encoders.weights import read_weights

    weights = read_weights(file).without(*HEADS)
    dim, positions = weights.tensors["cls_token"].shape[-1], weights.tensors["pos_embed"].shape[1]
    depth = 1 + max(int(key.split(".")[1]) for key in weights.tensors if key.startswith("blocks."))
    ffn = "swiglu" if any(".mlp.w12." in key for key in weights.tensors) else "mlp"
    weights.tensors.setdefault("mask_token", torch.zeros(1, dim))
    model = VisionTransformer(VitShape(dim, depth, dim // 64, ffn, positions))
    weights.load_into(model)
    return encoder_of_model(name, model)


def untrained(name: str, shape: Any, seed: int) -> Any:
    """The same network with the weights that a training from scratch begins with, LayerScale at 1."""
    import torch

    from encoders.dinov2.networks import new_backbone
    from encoders.dinov2.pretrain_settings import Network
    from encoders.vit import PATCH

    size = {"dim": shape.dim, "depth": shape.depth, "heads": shape.heads, "ffn": shape.ffn}
    network = Network.model_validate({**size, "image_size": PATCH * shape.grid, "layer_scale": 1.0})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return encoder_of_model(name, new_backbone(network))


def encoder_of_model(name: str, model: Any) -> Any:
    """With the transform of its training: squashed to its square, bilinear, ImageNet's mean and spread."""
    from encoders.vit import PATCH
    from encoders.vit_features import FeatureVit
    from milkit.encoder import Encoder, Transform, encoder_digest

    transform = Transform(size=PATCH * model.shape.grid, interpolation="bilinear")
    made = functools.partial(FeatureVit, model, transform.size)
    digest = encoder_digest(model, transform)
    return Encoder(name.replace("/", "-"), model, transform, model.shape.dim, digest, for_features=made)


def store_of(encoder: Any, recipe: Any, given: argparse.Namespace) -> Any:
    """The features of a cohort's cells."""
    from milkit.bags import BagStore
    from milkit.cohort import load_cohort
    from milkit.extract import extract
    from milkit.runs import Workspace
    from milkit.settings import ExtractSettings

    settings = ExtractSettings(cohort=recipe, dtype="float32", precision="fp32", device=given.device)
    return BagStore.open(extract(load_cohort(recipe), encoder, settings, Workspace(given.work)).path)


# --- Acevedo ----------------------------------------------------------------------------------------------------------


def on_acevedo(encoders: Mapping[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Classify the hold-out by its neighbours among the training images."""
    from cohorts.acevedo import part_of
    from milkit.cohort import find_recipe
    from milkit.labelled_cells import Groups, cell_table
    from milkit.statistics.discrimination import balanced_accuracy
    from milkit.statistics.hierarchy import Tree, mistake_heights
    from milkit.taxonomy import LabelMap, Taxonomy

    recipe = find_recipe("acevedo", given.acevedo)
    recipe = recipe.model_copy(update={"arguments": {**recipe.arguments, "classes": "paper"}})
    stores = {name: store_of(encoder, recipe, given) for name, encoder in encoders.items()}
    features = {name: store.load() for name, store in stores.items()}
    cells = cell_table(next(iter(stores.values())))
    readable = np.all([np.isfinite(own).all(axis=1) for own in features.values()], axis=0)
    part = np.where(readable, cells["cell_id"].map(part_of), "unreadable")
    classes, labels = np.unique(cells["cell_type"].to_numpy(dtype=str), return_inverse=True)
    train, test = part == "train", part == "test"
    truth = labels[test]
    predicted = {name: by_way(own[train], labels[train], own[test], len(classes)) for name, own in features.items()}
    weights = resamples(truth, Groups.of(cells).of_cell[test], given.bootstrap)
    tree = Tree.of(Taxonomy.load())
    meaning = LabelMap.load("acevedo", tree.taxonomy)
    nodes = tree.positions([meaning.node(name) for name in classes.tolist()])
    metrics: dict[str, dict[str, dict[str, Scores]]] = {}
    for name, ways in predicted.items():
        for way, guess in ways.items():
            heights = mistake_heights(tree, nodes[truth], nodes[guess], weights)
            for metric, values in {
                "balanced accuracy": balanced_accuracy(truth, guess, weights, len(classes)),
                "mean height over all cells": heights.of_all,
                "mean height of mistakes": heights.of_mistakes,
            }.items():
                metrics.setdefault(metric, {}).setdefault(way, {})[name] = Scores(values)
    counts = {"neighbours": int(train.sum()), "tested": int(test.sum()), "unreadable": int((~readable).sum())}
    print(f"\nAcevedo: {counts['tested']} held-out cells of {len(classes)} classes, {counts['neighbours']} neighbours")
    return {**counts, "classes": classes.tolist(), "metrics": report("Acevedo", metrics)}


def by_way(train: Floats, labels: Ints, tested: Floats, n_classes: int) -> dict[str, Ints]:
    """What each classifier says of the tested cells: (n, d), (n,), (Q, d) -> (Q,) each."""
    from milkit.statistics.linear_probe import linear_probe
    from milkit.statistics.neighbours import nearest, vote

    mean, spread = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 0, spread, 1.0)
    like_scale = [((own - mean) / scale).astype(np.float32) for own in (train, tested)]
    as_they_are = labels[nearest(train, tested, 20)]
    return {
        "20-NN": vote(as_they_are, n_classes),
        "20-NN, standardised": vote(labels[nearest(*like_scale, 20)], n_classes),
        "1-NN": vote(as_they_are[:, :1], n_classes),
        "linear, standardised": linear_probe(like_scale[0], labels, like_scale[1]).predicted,
    }


# --- lymphocytosis ----------------------------------------------------------------------------------------------------


def on_lymphocytosis(encoders: Mapping[str, Any], given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train and test heads on the same splits for every encoder."""
    from milkit.cohort import find_recipe
    from milkit.folds import Folds
    from milkit.mil.crossval import cross_validate
    from milkit.predictions import Predictions
    from milkit.settings import MilSettings
    from milkit.statistics.intervals import bootstrap_weights

    recipe = find_recipe("lymphocytosis", given.lymphocytosis)
    settings = MilSettings(folds=given.folds, repeats=given.repeats, seed=SEED, device=given.device)
    settings = settings.model_copy(update={"bootstrap": 100, "controls": False})  # the figures are computed here
    found: dict[str, Predictions] = {}
    folds, labels = None, pd.Series(dtype=object)
    for number, (name, encoder) in enumerate(encoders.items()):
        store = store_of(encoder, recipe, given)
        labels = store.patients["label"]
        folds = folds or Folds.stratified(labels, given.folds, seed=SEED, repeats=given.repeats)
        run = folder / "runs" / str(number)
        cross_validate(store, settings.model_copy(update={"store": store.path}), run, folds)
        found[name] = Predictions.load(run / "predictions.csv")
    assert folds is not None
    positions = pd.factorize(labels.sort_index())[0].astype(np.int64)
    weights = np.concatenate([np.ones((1, len(labels))), bootstrap_weights(positions, given.bootstrap, SEED)])
    n_splits, sizes = given.folds * given.repeats, folds.table["role"].value_counts()
    print(f"\nlymphocytosis: {len(labels)} patients, {given.repeats} repeats of {given.folds} folds")
    every = {metric: {name: of_repeats(own, metric, weights) for name, own in found.items()} for metric in METRICS}
    pooled = {
        metric: {"of all patients": {name: Scores(np.mean(own, axis=0)) for name, own in scores.items()}}
        for metric, scores in every.items()
    }
    return {
        "patients": len(labels),
        "splits": folds.digest,
        "metrics": report("lymphocytosis", pooled),
        "repeats": {
            metric: {name: own[:, 0].tolist() for name, own in scores.items()} for metric, scores in every.items()
        },
        "corrected": over_splits(found, 1 / n_splits + sizes["test"] / sizes["train"]),
    }


def of_repeats(predictions: Any, metric: str, weights: Floats) -> Floats:
    """The metric of every repeat's patients under each weighting of them, (repeats, 1 + bootstrap)."""
    return np.stack([scored(part, predictions.classes, metric, weights) for part in parts(predictions, ["repeat"])])


def over_splits(found: Mapping[str, Any], factor: float) -> dict[str, dict[str, Figure]]:
    """The corrected intervals of the differences over the splits, printed, too."""
    gaps: dict[str, dict[str, Figure]] = {}
    for metric in METRICS:
        of_split = {
            name: [
                scored(part, own.classes, metric, np.ones((1, len(part))))[0] for part in parts(own, ["repeat", "fold"])
            ]
            for name, own in found.items()
        }
        scores = with_kinds({name: Scores(np.array(own)) for name, own in of_split.items()})
        gaps[metric] = {
            f"{first} - {other}": students_interval(scores[first].values - scores[other].values, factor)
            for first, other in pairs(list(found))
        }
    table("difference, mean over the splits with the corrected interval", gaps, "+")
    return gaps


def parts(predictions: Any, by: Sequence[str]) -> list[pd.DataFrame]:
    """The predictions of each repeat, or split, patients in the order of their ids."""
    return [part for _, part in predictions.table.sort_values("patient_id", kind="stable").groupby(by)]


def scored(part: pd.DataFrame, classes: Sequence[str], metric: str, weights: Floats) -> Floats:
    """A metric of some patients under each weighting of them, (B,)."""
    from milkit.predictions import Predictions
    from milkit.statistics import discrimination

    truth, guess = (np.array([classes.index(name) for name in part[column]]) for column in ("label", "predicted"))
    if metric == "AUROC":
        return discrimination.macro("auroc", truth, Predictions(part, tuple(classes)).probabilities, weights)
    return discrimination.balanced_accuracy(truth, guess, weights, len(classes))


if __name__ == "__main__":
    main()
