"""VERB bags -> folds -> heads -> predictions, attention and metrics: all folds, repeats and seeds from memory."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from milkit.bags import BagStore
from milkit.encoder import choose_device
from milkit.errors import StoreError
from milkit.explain import ranks
from milkit.folds import Folds, Split
from milkit.mil.batches import Bags
from milkit.mil.heads import build_head
from milkit.mil.train import Examples, TrainedHead, predict, train_head
from milkit.predictions import SHARED, Attention, Predictions
from milkit.progress import progress
from milkit.runs import log_to, provenance, whole_folder, write_json, write_text
from milkit.settings import MilSettings, dump
from milkit.statistics.summary import summarise

log = logging.getLogger(__name__)


def cross_validate(store: BagStore, settings: MilSettings, run: Path, folds: Folds | None = None) -> dict[str, Any]:
    """Train and test a head on every fold, repeat and seed, and write the run folder, whole or not at all.

    Args:
        store: A complete store of a cohort with patients.
        settings: Head, folds, seeds and training.
        run: The new run folder (design: settings.yaml, provenance.json, folds.csv, predictions.csv, attention.parquet,
            metrics.json, heads/, log.txt).
        folds: Splits to use instead of stratified ones.

    Returns:
        The content of ``metrics.json``.
    """
    labels, classes = _labels(store)
    folds = folds or Folds.stratified(labels, settings.folds, seed=settings.seed, repeats=settings.repeats)
    build_head(settings.head, store.dim, len(classes))  # a head that cannot be made is refused before anything is read
    with whole_folder(run) as folder, log_to(folder / "log.txt"):
        write_text(folder / "settings.yaml", dump(settings.model_copy(update={"store": store.path.resolve()})))
        folds.save(folder / "folds.csv")
        bags = Bags.load(store, choose_device(settings.device))
        digest = str(store.attributes["encoder_digest"])
        predictions, attention = _all_folds(bags, labels, classes, folds, settings, folder / "heads", digest)
        predictions.save(folder / "predictions.csv")
        attention.save(folder / "attention.parquet")
        metrics = summarise(predictions, n_bootstrap=settings.bootstrap, level=settings.level, seed=settings.seed)
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "provenance.json", _provenance(store, folds))
    return metrics


def _labels(store: BagStore) -> tuple["pd.Series[str]", tuple[str, ...]]:
    if "label" not in store.patients:
        msg = (
            f"The store {store.path} is of a cohort without patients; multiple-instance learning needs a label "
            "per patient, so extract a cohort whose cells have patient ids."
        )
        raise StoreError(msg)
    labels = store.patients["label"]
    there = set(labels)
    return labels, tuple(name for name in store.attributes["classes"] if name in there)


def _all_folds(
    bags: Bags,
    labels: "pd.Series[str]",
    classes: tuple[str, ...],
    folds: Folds,
    settings: MilSettings,
    heads: Path,
    encoder_digest: str,
) -> tuple[Predictions, Attention]:
    """Held-out predictions, averaged over the seeds, and held-out attention, of every split."""
    heads.mkdir()
    splits = list(folds.splits())
    rows, cells = [], []
    with progress("train-mil", len(splits) * settings.seeds, "models") as advance:
        for split in splits:
            probabilities = []
            for number in range(settings.seeds):
                trained = _train_on(bags, labels, classes, split, settings, number)
                name = f"repeat{split.repeat}-fold{split.fold}-seed{number}"
                _save_head(heads / name, trained, settings, {"classes": classes, "encoder_digest": encoder_digest})
                log.info("%s: best epoch %d, validation loss %.4f", name, trained.best_epoch, trained.validation_loss)
                tested = predict(trained.model, bags, bags.indices(split.test), settings.training.batch_size)
                probabilities.append(torch.stack([p for p, _ in tested]))
                cells.append(_attention_rows(bags, split, number, classes, [a for _, a in tested]))
                advance()
            rows.append(_prediction_rows(split, labels, classes, torch.stack(probabilities).mean(dim=0)))
    return Predictions(pd.concat(rows, ignore_index=True), classes), Attention(pd.concat(cells, ignore_index=True))


def _train_on(
    bags: Bags, labels: "pd.Series[str]", classes: Sequence[str], split: Split, settings: MilSettings, number: int
) -> TrainedHead:
    """Train on one split. Only labels of training and validation patients are looked up."""
    position = {name: c for c, name in enumerate(classes)}

    def examples(patients: list[str]) -> Examples:
        return Examples(bags.indices(patients), [position[labels[name]] for name in patients])

    entropy = [settings.seed, split.repeat, split.fold, number]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    train, validation = examples(split.train), examples(split.validation)
    return train_head(bags, train, validation, len(classes), settings.head, settings.training, seed)


def _prediction_rows(
    split: Split, labels: "pd.Series[str]", classes: Sequence[str], probabilities: Tensor
) -> pd.DataFrame:
    highest = probabilities.argmax(dim=1).tolist()
    table = pd.DataFrame({"patient_id": split.test, "repeat": split.repeat, "fold": split.fold})
    table["label"] = [labels[name] for name in split.test]
    table["predicted"] = [classes[c] for c in highest]
    for c, name in enumerate(classes):
        table[f"p_{name}"] = probabilities[:, c].double().numpy()
    return table


def _attention_rows(
    bags: Bags, split: Split, seed: int, classes: Sequence[str], attention: list[Tensor]
) -> pd.DataFrame:
    parts = []
    for name, index, weights in zip(split.test, bags.indices(split.test), attention, strict=True):
        cells = bags.cells_of(index)
        for branch, weight in enumerate(weights.double().numpy()):
            rank, percentile = ranks(weight)
            part = pd.DataFrame(
                {"cell_id": bags.cell_ids[cells], "weight": weight, "rank": rank, "percentile": percentile}
            )
            part.insert(0, "patient_id", name)
            part.insert(2, "repeat", split.repeat)
            part.insert(3, "seed", seed)
            part.insert(4, "fold", split.fold)
            part.insert(5, "class", SHARED if len(weights) == 1 else classes[branch])
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _save_head(path: Path, trained: TrainedHead, settings: MilSettings, facts: Mapping[str, Any]) -> None:
    """Weights as safetensors, and beside them what is needed to build and to judge the head; no patient ids."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.model.state_dict().items()}
    save_file(state, path.with_suffix(".safetensors"))
    facts = {
        "head": settings.head.model_dump(),
        "in_dim": len(trained.model.mean),
        **facts,
        "best_epoch": trained.best_epoch,
        "history": trained.history,
    }
    write_json(path.with_suffix(".json"), facts)


def _provenance(store: BagStore, folds: Folds) -> Mapping[str, Any]:
    """What made the run. Patients that a step was fitted on appear as a digest, to be compared with the folds."""
    fitted = {
        f"repeat{split.repeat}-fold{split.fold}": {
            role: _digest(getattr(split, role)) for role in ("train", "validation")
        }
        for split in folds.splits()
    }
    keys = (
        "cohort",
        "cohort_digest",
        "patients_digest",
        "encoder",
        "encoder_digest",
        "encoder_seen",
        "transform",
        "precision",
        "backend",
    )
    return {
        **provenance(),
        **{key: store.attributes.get(key) for key in keys},
        "folds_digest": folds.digest,
        "fitted_on": fitted,
    }


def _digest(patients: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(patients)).encode()).hexdigest()
