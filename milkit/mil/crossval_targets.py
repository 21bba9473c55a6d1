"""Cross-validation on targets other than the cohort's classes: the same folder of a run, with their predictions."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from milkit.audit.target_controls import Judged, target_controls_or_failure
from milkit.bags import BagStore, study_patients
from milkit.covariates import check_columns
from milkit.encoder import choose_device
from milkit.errors import FoldError
from milkit.folds import Folds, Split, refuse_unequal_repeats
from milkit.mil.candidate_stores import CandidateStores, Loaded
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
from milkit.mil.target_learning import Learned
from milkit.mil.target_training import build_target_head
from milkit.mil.tuning import Choice, Tuning
from milkit.predictions import Attention, Predictions, prediction_files
from milkit.progress import progress
from milkit.runs import log_to, whole_folder, write_json, write_text
from milkit.settings import MilSettings
from milkit.splitting import make_folds
from milkit.statistics.summary import summarise
from milkit.statistics.target_figures import regression_figures, survival_figures
from milkit.tables import write_table
from milkit.target_choice import check_splits, stratify
from milkit.targets import Classes, Floats, Survival, Target, is_known

log = logging.getLogger(__name__)


class Told(NamedTuple):
    """What models say of one target, for patients whose outcome is known.

    Attributes:
        tested: Of tested patients, averaged over the seeds.
        validated: Of validation patients, who only stopped the training, averaged over the seeds.
        by_seed: Of tested patients, each seed alone.
    """

    tested: pd.DataFrame
    validated: pd.DataFrame
    by_seed: list[pd.DataFrame]

    @classmethod
    def joined(cls, splits: Sequence["Told"]) -> "Told":
        """From that of each split."""
        tested, validated, by_seed = zip(*splits, strict=True)
        return cls(_stacked(tested), _stacked(validated), [_stacked(own) for own in zip(*by_seed, strict=True)])


class HeldOutTargets(NamedTuple):
    """What models say.

    Attributes:
        told: For each target.
        training: Of the training patients of each fold, patient_id, repeat, fold and risk; None unless just one of the
            targets is survival.
        attention: To the cells of tested patients.
        choices: What each split was trained with.
    """

    told: list[Told]
    training: pd.DataFrame | None
    attention: Attention
    choices: list[Choice]


def cross_validate_targets(
    store: BagStore, targets: Sequence[Target], settings: MilSettings, run: Path, folds: Folds | None
) -> dict[str, Any]:
    """Train and test a head on every fold, repeat and seed, and write the run folder, whole or not at all.

    Folds are balanced by the first target; patients of whom no target's outcome is known have none. There is a row of
    predictions where the outcome is known.

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
    patients, known = store.patients, stratify(targets, store.patients)
    if folds is None:
        own = known if settings.folds_file is None else patients.loc[known.index]
        folds = make_folds(own, settings, partial(study_patients, store))
    check_columns(patients, settings.covariates)
    refuse_unequal_repeats(folds.tested)
    check_splits(targets, patients, folds)
    declared_by(settings).check([name for t in targets if isinstance(t, Classes) for name in t.classes])
    stores = CandidateStores.of(store, settings)
    tuning = Tuning.of(patients, None, folds, settings, stores.names, partial(stratify, targets))
    for candidate in tuning.candidates:
        n_outputs = sum(len(target.outputs) for target in targets)
        build_target_head(candidate.head, stores.dim(candidate), n_outputs, len(candidate.covariates))
    for inner in tuning.inner.values():
        _check_inner(targets, patients, inner)
    with whole_folder(run) as folder, log_to(folder / "log.txt"):
        write_text(folder / "settings.yaml", dump_of(store, settings))
        folds.save(folder / "folds.csv")
        for target in targets:
            n = int(is_known(target.outcomes(patients)).sum())
            log.info("target %s (%s): known of %d of %d patients", target.name, target.kind, n, len(patients))
        loaded = stores.load(choose_device(settings.device))
        held_out = _all_folds(loaded, patients, targets, folds, tuning, folder / "heads")
        files = prediction_files([target.name for target in targets])
        for name, told in zip(files, held_out.told, strict=True):
            write_table(folder / name, told.tested)
        if held_out.training is not None:
            # `milkit survival` measures the risks of tested patients against these.
            write_table(folder / "training_risks.csv", held_out.training)
        held_out.attention.save(folder / "attention.parquet")
        metrics = _metrics(targets, held_out, settings, patients) | {"folds_digest": folds.digest}
        if settings.tune:
            metrics |= {"tuning": tuning.summary(held_out.choices)}
            write_json(folder / "tuning.json", tuning.record(held_out.choices))
        write_json(folder / "metrics.json", metrics)
        if settings.controls:
            judged = [_judged(target, told, patients) for target, told in zip(targets, held_out.told, strict=True)]
            pooled = controls_store(stores, held_out.choices)
            found = target_controls_or_failure(pooled, folds, judged, settings)
            for own in found["targets"].values():
                own["absent"] += controls_note(stores, pooled)
            write_json(folder / "controls.json", found)
        write_json(folder / "provenance.json", provenance_of(list(stores.stores.values()), folds, tuning))
    return metrics


def _metrics(
    targets: Sequence[Target], held_out: HeldOutTargets, settings: MilSettings, patients: pd.DataFrame
) -> dict[str, Any]:
    """Of one target its figures, of several those of each."""
    figures = {}
    for target, told in zip(targets, held_out.told, strict=True):
        found = figures_or_failure(partial(_figures, target, told, settings), told.tested, patients.index)
        figures[target.name] = {"target": {"name": target.name, "kind": target.kind}, **found}
    return figures[targets[0].name] if len(targets) == 1 else {"targets": figures}


def _judged(target: Target, told: Told, patients: pd.DataFrame) -> Judged:
    """What the controls need of a target."""
    classes = target.classes if isinstance(target, Classes) else ()
    outcomes = target.outcomes(patients)
    return Judged(target.name, target.kind, told.tested, outcomes, target.columns, classes, told.validated)


def _check_inner(targets: Sequence[Target], patients: pd.DataFrame, inner: Folds) -> None:
    """Refuse inner folds in which a target cannot be learned."""
    try:
        check_splits(targets, patients, inner)
    except FoldError as error:
        msg = (
            f"Candidates cannot be compared by inner folds: {str(error).partition(';')[0]}; set tune_folds lower (3 or "
            "more), or train without tune."
        )
        raise FoldError(msg) from None


def _figures(target: Target, told: Told, settings: MilSettings) -> dict[str, Any]:
    chosen: dict[str, Any] = {"n_bootstrap": settings.bootstrap, "level": settings.level, "seed": settings.seed}
    if isinstance(target, Classes):
        tested, validated, *by_seed = (
            Predictions(own, target.classes) for own in (told.tested, told.validated, *told.by_seed)
        )
        declared = declared_by(settings).of(target.classes)
        return summarise(tested, declared=declared, by_seed=by_seed, validated=validated, **chosen)
    if isinstance(target, Survival):
        return survival_figures(told.tested, **chosen)
    return regression_figures(told.tested, **chosen)


def _all_folds(
    loaded: Mapping[Path | None, Loaded],
    patients: pd.DataFrame,
    targets: Sequence[Target],
    folds: Folds,
    tuning: Tuning,
    heads: Path,
) -> HeldOutTargets:
    """Train and test every split with every seed, by the settings that are chosen in the split."""
    heads.mkdir()
    splits, seeds, choices = list(folds.splits()), tuning.settings.seeds, list[Choice]()
    told, known_risks, cells = list[list[Told]](), [], []
    names = [f"{t.name}: {output}" if len(targets) > 1 else output for t in targets for output in t.outputs]
    risky = [position for position, target in enumerate(targets) if isinstance(target, Survival)]

    def trial(inner: Split, candidate: MilSettings) -> Floats:
        learned = Learned.of(loaded[candidate.store].bags, patients, targets, inner, candidate)
        return learned.losses(learned.trained(0), inner.test)

    with progress("train-mil", tuning.n_models(len(splits) * seeds), "models") as advance:
        for split in splits:
            choices.append(tuning.choose(split, trial, advance))
            settings = choices[-1].settings
            bags, encoder_digest = loaded[settings.store]
            learned = Learned.of(bags, patients, targets, split, settings)
            scores, seen, of_training = [], [], []
            for number in range(seeds):
                trained = learned.trained(number)
                name = f"{split.name}-seed{number}"
                facts = {**learned.facts(), "encoder_digest": encoder_digest, **learned.fusion.facts()}
                save_head(heads / name, trained, settings, facts, learned.fusion.statistics())
                log.info("%s: best epoch %d, validation loss %.4f", name, trained.best_epoch, trained.validation_loss)
                tested, weights = learned.said(trained, split.test)
                scores.append(tested)
                seen.append(learned.said(trained, split.validation)[0])
                if len(risky) == 1:
                    said, _ = learned.said(trained, learned.known(split.train))
                    of_training.append(said[risky[0]][:, 0])
                cells.append(attention_rows(bags, split, number, names, weights))
                advance()
            told.append(_told(targets, patients, split, scores, seen))
            if len(risky) == 1:
                part = pd.DataFrame(
                    {"patient_id": learned.known(split.train), "repeat": split.repeat, "fold": split.fold}
                )
                known_risks.append(part.assign(risk=np.mean(of_training, axis=0)))
    return HeldOutTargets(
        [Told.joined(own) for own in zip(*told, strict=True)],
        _stacked(known_risks) if known_risks else None,
        Attention(_stacked(cells)),
        choices,
    )


def _told(
    targets: Sequence[Target],
    patients: pd.DataFrame,
    split: Split,
    tested: Sequence[Sequence[Floats]],
    validated: Sequence[Sequence[Floats]],
) -> list[Told]:
    """Of each target, from the scores of a split's patients by seed and target."""
    inner, result = split._replace(test=split.validation), []
    for target, own, seen in zip(targets, zip(*tested, strict=True), zip(*validated, strict=True), strict=True):
        of_tested = _rows(target, patients, split, np.mean(own, axis=0))
        of_validated = _rows(target, patients, inner, np.mean(seen, axis=0))
        result.append(Told(of_tested, of_validated, [_rows(target, patients, split, scores) for scores in own]))
    return result


def _rows(target: Target, patients: pd.DataFrame, split: Split, scores: Floats) -> pd.DataFrame:
    outcomes = target.outcomes(patients.loc[split.test])
    known = is_known(outcomes)
    tested = [name for name, there in zip(split.test, known, strict=True) if there]
    table = pd.DataFrame({"patient_id": tested, "repeat": split.repeat, "fold": split.fold})
    return table.join(target.rows(outcomes[known], scores[known]))


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)
