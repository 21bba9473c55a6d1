"""VERB bags -> folds -> heads -> predictions, attention and metrics: all folds, repeats and seeds from memory."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from milkit.audit.controls import controls_or_failure
from milkit.bags import BagStore, study_patients
from milkit.covariates import check_columns
from milkit.encoder import choose_device
from milkit.errors import StoreError
from milkit.folds import Folds, Split, refuse_unequal_repeats
from milkit.mil.batches import Bags
from milkit.mil.candidate_stores import CandidateStores, Loaded
from milkit.mil.crossval_targets import cross_validate_targets
from milkit.mil.fusion import Fusion
from milkit.mil.heads import build_head
from milkit.mil.run_files import (
    attention_rows,
    controls_note,
    controls_store,
    declared_by,
    dump_of,
    figures_or_failure,
    provenance_of,
    save_head,
)
from milkit.mil.train import Examples, TrainedHead, predict, train_head
from milkit.mil.tuning import Choice, Floats, Tuning
from milkit.predictions import Attention, Predictions
from milkit.progress import progress
from milkit.runs import log_to, whole_folder, write_json, write_text
from milkit.settings import MilSettings
from milkit.splitting import make_folds
from milkit.statistics.summary import summarise
from milkit.target_choice import choose_targets

log = logging.getLogger(__name__)


class HeldOut(NamedTuple):
    """What models say of patients that they were not fitted on.

    Attributes:
        predictions: Of tested patients, averaged over the seeds.
        validated: Of validation patients, who only stopped the training, averaged over the seeds.
        by_seed: Of tested patients, each seed alone.
        attention: To the cells of tested patients.
        choices: What each split was trained with.
    """

    predictions: Predictions
    validated: Predictions
    by_seed: list[Predictions]
    attention: Attention
    choices: list[Choice]


def cross_validate(store: BagStore, settings: MilSettings, run: Path, folds: Folds | None = None) -> dict[str, Any]:
    """Train and test a head on every fold, repeat and seed, and write the run folder, whole or not at all.

    Args:
        store: A complete store of a cohort with patients.
        settings: Head, folds, seeds and training.
        run: The new run folder (design: settings.yaml, provenance.json, folds.csv, predictions.csv, attention.parquet,
            metrics.json, controls.json, heads/, log.txt, and tuning.json where something is to be chosen).
        folds: Splits to use instead of those that the settings ask for.

    Returns:
        The content of ``metrics.json``.
    """
    classes = _classes(store)
    if targets := choose_targets(settings, store.patients, classes):
        return cross_validate_targets(store, targets, settings, run, folds)
    folds = folds or make_folds(store.patients, settings, partial(study_patients, store))
    refuse_unequal_repeats(folds.tested)
    declared = declared_by(settings)
    declared.check(classes)
    check_columns(store.patients, settings.covariates)
    # A head that cannot be made is refused before anything is read.
    stores = CandidateStores.of(store, settings)
    tuning = Tuning.of(store.patients, classes, folds, settings, stores.names)
    for candidate in tuning.candidates:
        build_head(candidate.head, stores.dim(candidate), len(classes), len(candidate.covariates))
    with whole_folder(run) as folder, log_to(folder / "log.txt"):
        write_text(folder / "settings.yaml", dump_of(store, settings))
        folds.save(folder / "folds.csv")
        loaded = stores.load(choose_device(settings.device))
        held_out = _all_folds(loaded, store.patients, classes, folds, tuning, folder / "heads")
        predictions = held_out.predictions
        predictions.save(folder / "predictions.csv")
        held_out.attention.save(folder / "attention.parquet")
        figures = partial(
            summarise,
            predictions,
            n_bootstrap=settings.bootstrap,
            level=settings.level,
            seed=settings.seed,
            declared=declared,
            by_seed=held_out.by_seed,
            validated=held_out.validated,
        )
        metrics = figures_or_failure(figures, predictions.table, store.patients.index) | {"folds_digest": folds.digest}
        if settings.tune:
            metrics |= {"tuning": tuning.summary(held_out.choices)}
            write_json(folder / "tuning.json", tuning.record(held_out.choices))
        write_json(folder / "metrics.json", metrics)
        if settings.controls:
            pooled = controls_store(stores, held_out.choices)
            with threadpool_limits(1, user_api="blas"):  # matrices of patients: more threads would wait for each other
                found = controls_or_failure(pooled, folds, predictions, settings, held_out.validated, metrics)
            absent = [*found["absent"], *controls_note(stores, pooled)]
            write_json(folder / "controls.json", found | {"absent": absent})
        write_json(folder / "provenance.json", provenance_of(list(stores.stores.values()), folds, tuning))
    return metrics


def _classes(store: BagStore) -> tuple[str, ...]:
    """Those that some patient has, in the cohort's order."""
    if "label" not in store.patients:
        msg = (
            f"The store {store.path} is of a cohort without patients; multiple-instance learning needs a label "
            "per patient, so extract a cohort whose cells have patient ids."
        )
        raise StoreError(msg)
    there = set(store.patients["label"])
    return tuple(name for name in store.attributes["classes"] if name in there)


def _all_folds(
    loaded: Mapping[Path | None, Loaded],
    patients: pd.DataFrame,
    classes: tuple[str, ...],
    folds: Folds,
    tuning: Tuning,
    heads: Path,
) -> HeldOut:
    """Train and test every split with every seed, by the settings that are chosen in the split."""
    heads.mkdir()
    labels, splits = patients["label"], list(folds.splits())
    seeds, choices = tuning.settings.seeds, list[Choice]()
    rows, stopped, cells, of_seeds = [], [], [], list[list[pd.DataFrame]]([] for _ in range(seeds))

    def trial(inner: Split, candidate: MilSettings) -> Floats:
        bags, fusion = loaded[candidate.store].bags, Fusion.of(patients, inner, candidate.covariates)
        model = _train_on(bags, labels, classes, inner, candidate, 0, fusion).model
        tested = predict(model, bags, bags.indices(inner.test), fusion.values(inner.test))
        return torch.stack([p for p, _ in tested]).double().numpy()

    with progress("train-mil", tuning.n_models(len(splits) * seeds), "models") as advance:
        for split in splits:
            choices.append(tuning.choose(split, trial, advance))
            settings = choices[-1].settings
            bags, encoder_digest = loaded[settings.store]
            probabilities, validated = [], []
            fusion = Fusion.of(patients, split, settings.covariates)
            for number in range(seeds):
                trained = _train_on(bags, labels, classes, split, settings, number, fusion)
                name = f"{split.name}-seed{number}"
                facts = {"classes": classes, "encoder_digest": encoder_digest, **fusion.facts()}
                save_head(heads / name, trained, settings, facts, fusion.statistics())
                log.info("%s: best epoch %d, validation loss %.4f", name, trained.best_epoch, trained.validation_loss)
                tested = predict(trained.model, bags, bags.indices(split.test), fusion.values(split.test))
                probabilities.append(torch.stack([p for p, _ in tested]))
                seen = predict(trained.model, bags, bags.indices(split.validation), fusion.values(split.validation))
                validated.append(torch.stack([p for p, _ in seen]))
                cells.append(attention_rows(bags, split, number, classes, [a for _, a in tested]))
                advance()
            rows.append(_prediction_rows(split, labels, classes, torch.stack(probabilities).mean(dim=0)))
            inner = split._replace(test=split.validation)
            stopped.append(_prediction_rows(inner, labels, classes, torch.stack(validated).mean(dim=0)))
            for own, shares in zip(of_seeds, probabilities, strict=True):
                own.append(_prediction_rows(split, labels, classes, shares))
    tables = (Predictions(pd.concat(own, ignore_index=True), classes) for own in (rows, stopped, *of_seeds))
    mean, inner_mean, *by_seed = tables
    return HeldOut(mean, inner_mean, by_seed, Attention(pd.concat(cells, ignore_index=True)), choices)


def _train_on(
    bags: Bags,
    labels: "pd.Series[str]",
    classes: Sequence[str],
    split: Split,
    settings: MilSettings,
    number: int,
    fusion: Fusion,
) -> TrainedHead:
    """Train on one split. Only labels of training and validation patients are looked up."""
    position = {name: c for c, name in enumerate(classes)}

    def examples(patients: list[str]) -> Examples:
        classes = [position[labels[name]] for name in patients]
        return Examples(bags.indices(patients), classes, fusion.values(patients))

    seed = split.seed(settings.seed, number)
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
