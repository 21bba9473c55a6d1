"""VERB runs -> differences between them: the same patients and folds, every pair, intervals and tests.

The statistics, and which question each of them answers, are in ``milkit.statistics.comparison``, and for targets other
than classes in ``milkit.statistics.target_comparison``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from milkit.errors import RunError, SettingsError, first_rows
from milkit.folds import Folds
from milkit.mil.tuning import encoders_of, heads_of
from milkit.predictions import Predictions, choose_target
from milkit.runs import read_json
from milkit.settings import MilSettings, find_recipe, load, recipe_names
from milkit.statistics.comparison import Plan, compare_all
from milkit.statistics.out_of_fold import OutOfFold
from milkit.statistics.target_comparison import compare_targets, is_redealt

N_PERMUTATIONS = 10_000

FIGURES: Mapping[str, tuple[str, ...]] = {
    "classes": ("balanced_accuracy", "weighted_f1", "accuracy", "auroc_macro", "auprc_macro"),
    "risks": ("c_index",),
    "numbers": ("mae", "r2", "spearman"),
}
"""What ``metrics.json`` says of a run, by what the run predicts."""

_OUTCOMES: Mapping[str, list[str]] = {"classes": ["label"], "risks": ["time", "event"], "numbers": ["label"]}


@dataclass(frozen=True, slots=True)
class Run:
    """What a comparison needs of a run folder.

    Attributes:
        name: Of the folder.
        settings: Of the run.
        provenance: Cohort and encoder; any key may be missing.
        metrics: The content of ``metrics.json``; of several targets that of the chosen one.
        folds: Who was trained on and tested.
        predictions: Out of fold.
        predicts: A key of ``FIGURES``. Risks of Cox's model and of discrete time can be compared.
    """

    name: str
    settings: MilSettings
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    folds: Folds
    predictions: Predictions
    predicts: str


def compare_runs(paths: Sequence[Path], *, target: str | None = None, paper: bool = False) -> dict[str, Any]:
    """Compare every pair of the runs.

    Args:
        paths: Run folders, two or more, that tested the same patients in the same folds.
        target: Which one of runs on several targets; a run on one needs no name.
        paper: Add the published table of the cohort, from ``configs/compare/<cohort>.yaml``.

    Returns:
        ``cohort``, ``predicts`` (a key of ``FIGURES``), ``target`` (its name, None of the cohort's classes),
        ``classes``, ``n_patients``, ``folds``, ``repeats``, ``distinct_folds`` (folds that test different patients),
        ``folds_digest``, ``level``, ``n_bootstrap``, ``n_permutations``, ``n_train``, ``n_test``; ``runs``: a list with
        ``name``, ``encoder``, ``head`` and the ``FIGURES`` of ``metrics.json``; ``pairs``: see ``compare_all``, or
        ``compare_targets``; ``published``: the table, or None.

    Raises:
        RunError: Fewer than two runs, one twice, one that is not finished, or runs that cannot be compared.
        SettingsError: There is no published table of this cohort, or the runs predict no classes.
    """
    if len(paths) < 2:
        msg = f"{len(paths)} run was given, where a comparison needs two or more; name another one."
        raise RunError(msg)
    resolved = [path.resolve() for path in paths]
    if twice := [path for path in paths if resolved.count(path.resolve()) > 1]:
        msg = f"The run {twice[0]} was given twice, and a run does not differ from itself; name each one once."
        raise RunError(msg)
    runs = [_read(path, target) for path in paths]
    for first, second in pairwise(runs):
        _require_same(first, second)
    published = _published(runs[0]) if paper else None
    table, metrics = runs[0].folds.table, runs[0].metrics
    classes, tested = runs[0].predictions.classes, runs[0].predictions.table
    plan = _plan(table, metrics)
    if classes:
        pairs = compare_all([OutOfFold.of(Predictions(run.predictions.table, classes)) for run in runs], plan)
    else:
        pairs = compare_targets([run.predictions.table for run in runs], plan)
    return {
        "cohort": runs[0].provenance.get("cohort"),
        "predicts": runs[0].predicts,
        "target": metrics.get("target", {}).get("name"),
        "classes": list(classes),
        "n_patients": tested["patient_id"].nunique(),
        "folds": int(table.groupby("repeat")["fold"].nunique().max()),
        "repeats": int(table["repeat"].nunique()),
        "distinct_folds": len(
            table[["repeat", "fold"]].drop_duplicates() if is_redealt(tested) else set(table["fold"])
        ),
        "folds_digest": runs[0].folds.digest,
        **{key: getattr(plan, key) for key in ("level", "n_bootstrap", "n_permutations", "n_train", "n_test")},
        "runs": [_described(run) for run in runs],
        "pairs": pairs,
        "published": published,
    }


def _plan(folds: pd.DataFrame, metrics: Mapping[str, Any]) -> Plan:
    """Resamples as the first run made them, and how large its tested and training parts are on average."""
    sizes = folds.groupby(["repeat", "fold", "role"]).size().groupby("role").mean()
    return Plan(
        n_test=float(sizes["test"]),
        n_train=float(sizes["train"]),
        n_bootstrap=int(metrics["n_bootstrap"]),
        n_permutations=N_PERMUTATIONS,
        level=float(metrics["level"]),
        seed=int(metrics.get("seed", 0)),
    )


def _read(path: Path, target: str | None) -> Run:
    if not path.is_dir():
        msg = f"There is no run at {path}; make one with `milkit train-mil`, or name another."
        raise RunError(msg)
    for name in ("settings.yaml", "folds.csv", "metrics.json"):
        if not (path / name).is_file():
            msg = (
                f"{path / name} is missing; the folder is not a finished run, so make it again with `milkit train-mil`."
            )
            raise RunError(msg)
    settings, metrics = load(MilSettings, path / "settings.yaml", {}), read_json(path / "metrics.json")
    several: dict[str, Any] = metrics.get("targets", {})
    chosen, file = choose_target(path, metrics, target)
    predictions = Predictions.load(file, any_target=True)
    predicts = "classes" if predictions.classes else "risks" if "risk" in predictions.table else "numbers"
    if predicts == "numbers" and "predicted" not in predictions.table:
        msg = f"{file} holds neither classes nor risks nor numbers; make the run again with `milkit train-mil`."
        raise RunError(msg)
    provenance, folds = read_json(path / "provenance.json"), Folds.load(path / "folds.csv")
    return Run(
        path.resolve().name, settings, provenance, metrics | several.get(chosen, {}), folds, predictions, predicts
    )


def _require_same(first: Run, second: Run) -> None:
    """Refuse runs of other classes, patients, labels or folds: their difference could be that of these."""
    names, (ours, theirs) = f"'{first.name}' and '{second.name}'", (run.predictions for run in (first, second))
    if first.predicts != second.predicts:
        msg = f"The runs {names} predict {first.predicts} and {second.predicts}; compare runs of the same target."
        raise RunError(msg)
    if set(ours.classes) != set(theirs.classes):
        msg = (
            f"The runs {names} have the classes {', '.join(ours.classes)} and {', '.join(theirs.classes)}; compare "
            "runs of the same classes."
        )
        raise RunError(msg)
    outcomes = _OUTCOMES[first.predicts]
    labels = [run.table.groupby("patient_id")[outcomes].first() for run in (ours, theirs)]
    if others := sorted(set(labels[0].index) ^ set(labels[1].index)):
        msg = (
            f"The runs {names} tested different patients: {len(others)} are in one of them only "
            f"({first_rows(others)}); compare runs of the same patients."
        )
        raise RunError(msg)
    if changed := sorted(labels[0].index[(labels[0] != labels[1].reindex(labels[0].index)).any(axis=1)]):
        what = "labels" if first.predicts == "classes" else "outcomes"
        msg = (
            f"The runs {names} have different {what} of {len(changed)} patients ({first_rows(changed)}); compare runs "
            "of one target, or make the older run again with `milkit train-mil`."
        )
        raise RunError(msg)
    if not _same_folds(first.folds.table, second.folds.table):
        msg = (
            f"The runs {names} split the patients differently, so that a difference could be that of their folds; make "
            "one of them again with the other's --seed, --folds and --repeats."
        )
        raise RunError(msg)


def _same_folds(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    columns = ["patient_id", "repeat", "fold", "role"]
    return (
        first[columns]
        .sort_values(columns, ignore_index=True)
        .equals(second[columns].sort_values(columns, ignore_index=True))
    )


def _described(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "encoder": " or ".join(encoders_of(run.metrics, str(run.provenance.get("encoder") or ""))) or None,
        "head": " or ".join(heads_of(run.settings, run.metrics)),
        **{name: run.metrics.get(name) for name in FIGURES[run.predicts]},
    }


def _published(run: Run) -> dict[str, Any]:
    cohort, known = str(run.provenance.get("cohort")), recipe_names("compare")
    if run.predicts != "classes":
        msg = f"--paper was given, whose tables are of classes, and the runs predict {run.predicts}; leave it out."
        raise SettingsError(msg)
    if cohort not in known:
        msg = (
            f"--paper was given, and there is no published table of the cohort '{cohort}', only of "
            f"{', '.join(known)}; leave it out."
        )
        raise SettingsError(msg)
    values: dict[str, Any] = yaml.safe_load(find_recipe("compare", cohort).read_text(encoding="utf-8"))
    return values
