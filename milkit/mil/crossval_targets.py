"""Cross-validation on targets other than the cohort's classes: the same folder of a run, with their predictions."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from milkit.bags import BagStore
from milkit.covariates import check_columns
from milkit.encoder import choose_device
from milkit.folds import Folds, Split, refuse_unequal_repeats
from milkit.mil.batches import Bags
from milkit.mil.fusion import Fusion
from milkit.mil.run_files import attention_rows, dump_of, provenance_of, save_head
from milkit.mil.target_training import build_target_head, train_on_targets
from milkit.mil.train import Examples, TrainedHead, predict
from milkit.mil.tuning import Tuning
from milkit.predictions import Attention, Predictions, prediction_files
from milkit.progress import progress
from milkit.runs import log_to, whole_folder, write_json, write_text
from milkit.settings import MilSettings
from milkit.splitting import make_folds
from milkit.statistics.summary import summarise
from milkit.statistics.target_figures import regression_figures, survival_figures
from milkit.tables import write_table
from milkit.target_choice import check_splits, stratify
from milkit.targets import Classes, Fitted, Floats, Survival, Target, is_known

log = logging.getLogger(__name__)


class HeldOutTargets(NamedTuple):
    """What models say, averaged over the seeds.

    Attributes:
        tables: Of tested patients, for each target.
        training: Of the training patients of each fold, patient_id, repeat, fold and risk; None unless just one of the
            targets is survival.
        attention: To the cells of tested patients.
    """

    tables: list[pd.DataFrame]
    training: pd.DataFrame | None
    attention: Attention


def cross_validate_targets(
    store: BagStore, targets: Sequence[Target], settings: MilSettings, run: Path, folds: Folds | None
) -> dict[str, Any]:
    """Train and test a head on every fold, repeat and seed, and write the run folder, whole or not at all.

    Folds are balanced by the first target; patients of whom no target's outcome is known have none. There is a row of
    predictions where the outcome is known, and no control.

    Args:
        store: A complete store of a cohort with patients.
        targets: What is predicted.
        settings: Head, folds, seeds and training.
        run: The new run folder.
        folds: Splits to use instead of those that the settings ask for.

    Returns:
        The content of ``metrics.json``: of one target its figures with its name and kind in ``target``, of several
        those of each by name in ``targets``.
    """
    patients = store.patients
    if folds is None:
        known = stratify(targets, patients)
        folds = make_folds(known if settings.folds_file is None else patients.loc[known.index], settings)
    check_columns(patients, settings.covariates)
    refuse_unequal_repeats(folds.tested)
    check_splits(targets, patients, folds)
    build_target_head(settings.head, store.dim, sum(len(t.outputs) for t in targets), len(settings.covariates))
    with whole_folder(run) as folder, log_to(folder / "log.txt"):
        write_text(folder / "settings.yaml", dump_of(store, settings))
        folds.save(folder / "folds.csv")
        for target in targets:
            n = int(is_known(target.outcomes(patients)).sum())
            log.info("target %s (%s): known of %d of %d patients", target.name, target.kind, n, len(patients))
        bags = Bags.load(store, choose_device(settings.device))
        held_out = _all_folds(bags, store, targets, folds, settings, folder / "heads")
        files = prediction_files([target.name for target in targets])
        for name, table in zip(files, held_out.tables, strict=True):
            write_table(folder / name, table)
        if held_out.training is not None:
            # `milkit survival` measures the risks of tested patients against these.
            write_table(folder / "training_risks.csv", held_out.training)
        held_out.attention.save(folder / "attention.parquet")
        figures = {
            target.name: {"target": {"name": target.name, "kind": target.kind}, **_figures(target, table, settings)}
            for target, table in zip(targets, held_out.tables, strict=True)
        }
        metrics = figures[targets[0].name] if len(targets) == 1 else {"targets": figures}
        metrics = {**metrics, "folds_digest": folds.digest}
        write_json(folder / "metrics.json", metrics)
        write_json(
            folder / "provenance.json", provenance_of(store, folds, Tuning(settings, [settings], patients["label"], {}))
        )
    return metrics


def _figures(target: Target, table: pd.DataFrame, settings: MilSettings) -> dict[str, Any]:
    chosen: dict[str, Any] = {"n_bootstrap": settings.bootstrap, "level": settings.level, "seed": settings.seed}
    if isinstance(target, Classes):
        return summarise(Predictions(table, target.classes), **chosen)
    if isinstance(target, Survival):
        return survival_figures(table, **chosen)
    return regression_figures(table, **chosen)


def _all_folds(
    bags: Bags, store: BagStore, targets: Sequence[Target], folds: Folds, settings: MilSettings, heads: Path
) -> HeldOutTargets:
    """Train and test every split with every seed."""
    heads.mkdir()
    patients, splits = store.patients, list(folds.splits())
    tables, known_risks, cells = list[list[pd.DataFrame]]([] for _ in targets), [], []
    names = [f"{t.name}: {output}" if len(targets) > 1 else output for t in targets for output in t.outputs]
    risky = [position for position, target in enumerate(targets) if isinstance(target, Survival)]
    with progress("train-mil", len(splits) * settings.seeds, "models") as advance:
        for split in splits:
            fusion = Fusion.of(patients, split, settings.covariates)
            train, validation = (
                _examples(bags, patients, targets, own, fusion) for own in (split.train, split.validation)
            )
            fitted = Fitted(targets, [values.numpy() for values in train.outcomes])
            scores, of_training = [], []
            for number in range(settings.seeds):
                seed = split.seed(settings.seed, number)
                trained = train_on_targets(bags, train, validation, fitted, settings.head, settings.training, seed)
                name = f"{split.name}-seed{number}"
                facts = {
                    **_facts(targets, fitted),
                    "encoder_digest": str(store.attributes["encoder_digest"]),
                    **fusion.facts(),
                }
                save_head(heads / name, trained, settings, facts, fusion.statistics())
                log.info("%s: best epoch %d, validation loss %.4f", name, trained.best_epoch, trained.validation_loss)
                tested, weights = _said(trained, fitted, bags, bags.indices(split.test), fusion.values(split.test))
                scores.append(tested)
                if len(risky) == 1:
                    said, _ = _said(trained, fitted, bags, train.indices, train.covariates)
                    of_training.append(said[risky[0]][:, 0])
                cells.append(attention_rows(bags, split, number, names, weights))
                advance()
            for position, target in enumerate(targets):
                mean = np.mean([own[position] for own in scores], axis=0)
                tables[position].append(_rows(target, patients, split, mean))
            if len(risky) == 1:
                own = [bags.patients[index] for index in train.indices]
                part = pd.DataFrame({"patient_id": own, "repeat": split.repeat, "fold": split.fold})
                known_risks.append(part.assign(risk=np.mean(of_training, axis=0)))
    return HeldOutTargets(
        [pd.concat(own, ignore_index=True) for own in tables],
        pd.concat(known_risks, ignore_index=True) if known_risks else None,
        Attention(pd.concat(cells, ignore_index=True)),
    )


def _said(
    trained: TrainedHead, fitted: Fitted, bags: Bags, indices: list[int], covariates: Tensor | None
) -> tuple[list[Floats], list[Tensor]]:
    """Scores of some patients, (n, S) for each target, and their attention, (k, n_cells) of each patient."""
    told = predict(trained.model, bags, indices, covariates, softmax=False)
    return fitted.scores(torch.stack([outputs for outputs, _ in told])), [weights for _, weights in told]


def _examples(
    bags: Bags, patients: pd.DataFrame, targets: Sequence[Target], names: list[str], fusion: Fusion
) -> Examples:
    """Only outcomes of these patients are looked up; who has none is left out."""
    outcomes = [target.outcomes(patients.loc[names]) for target in targets]
    known = np.any([is_known(values) for values in outcomes], axis=0)
    left = [name for name, there in zip(names, known, strict=True) if there]
    happened = tuple(torch.from_numpy(values[known]) for values in outcomes)
    return Examples(bags.indices(left), [], fusion.values(left), happened)


def _rows(target: Target, patients: pd.DataFrame, split: Split, scores: Floats) -> pd.DataFrame:
    outcomes = target.outcomes(patients.loc[split.test])
    known = is_known(outcomes)
    tested = [name for name, there in zip(split.test, known, strict=True) if there]
    table = pd.DataFrame({"patient_id": tested, "repeat": split.repeat, "fold": split.fold})
    return table.join(target.rows(outcomes[known], scores[known]))


def _facts(targets: Sequence[Target], fitted: Fitted) -> dict[str, Any]:
    """What the outputs of a saved head are: their targets in order, and what is needed to decode them."""
    found = [
        {
            "name": target.name,
            "kind": target.kind,
            "columns": list(target.columns),
            "outputs": list(target.outputs),
            "fitted": numbers.tolist(),
        }
        for target, numbers in zip(targets, fitted.numbers, strict=True)
    ]
    alone = {"classes": targets[0].outputs} if len(targets) == 1 and isinstance(targets[0], Classes) else {}
    return {"targets": found, **alone}
