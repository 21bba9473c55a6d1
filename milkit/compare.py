"""VERB runs -> differences between them: the same patients and folds, every pair, intervals and tests.

The statistics, and which question each of them answers, are in ``milkit.statistics.comparison``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from milkit.errors import RunError, SettingsError, first_rows
from milkit.folds import Folds
from milkit.mil.tuning import encoders_of, heads_of
from milkit.predictions import Predictions
from milkit.runs import read_json
from milkit.settings import MilSettings, find_recipe, load, recipe_names
from milkit.statistics.comparison import Plan, compare_all
from milkit.statistics.out_of_fold import OutOfFold

N_PERMUTATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Run:
    """What a comparison needs of a run folder.

    Attributes:
        name: Of the folder.
        settings: Of the run.
        provenance: Cohort and encoder; any key may be missing.
        metrics: The content of ``metrics.json``.
        folds: Who was trained on and tested.
        predictions: Out of fold.
    """

    name: str
    settings: MilSettings
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    folds: Folds
    predictions: Predictions


def compare_runs(paths: Sequence[Path], *, paper: bool = False) -> dict[str, Any]:
    """Compare every pair of the runs.

    Args:
        paths: Run folders, two or more, that tested the same patients in the same folds.
        paper: Add the published table of the cohort, from ``configs/compare/<cohort>.yaml``.

    Returns:
        ``cohort``, ``classes``, ``n_patients``, ``folds``, ``repeats``, ``distinct_folds`` (folds that test different
        patients), ``folds_digest``, ``level``, ``n_bootstrap``, ``n_permutations``, ``n_train``, ``n_test``; ``runs``:
        a list with ``name``, ``encoder``, ``head`` and the five figures of ``metrics.json``; ``pairs``: see
        ``compare_all``; ``published``: the table, or None.

    Raises:
        RunError: Fewer than two runs, one twice, one that is not finished, or runs that cannot be compared.
        SettingsError: There is no published table of this cohort.
    """
    if len(paths) < 2:
        msg = f"{len(paths)} run was given, where a comparison needs two or more; name another one."
        raise RunError(msg)
    resolved = [path.resolve() for path in paths]
    if twice := [path for path in paths if resolved.count(path.resolve()) > 1]:
        msg = f"The run {twice[0]} was given twice, and a run does not differ from itself; name each one once."
        raise RunError(msg)
    runs = [_read(path) for path in paths]
    for first, second in pairwise(runs):
        _require_same(first, second)
    published = _published(str(runs[0].provenance.get("cohort"))) if paper else None
    table, metrics = runs[0].folds.table, runs[0].metrics
    classes = runs[0].predictions.classes
    models = [OutOfFold.of(Predictions(run.predictions.table, classes)) for run in runs]
    sizes = table.groupby(["repeat", "fold", "role"]).size().groupby("role").mean()
    plan = Plan(
        n_test=float(sizes["test"]),
        n_train=float(sizes["train"]),
        n_bootstrap=int(metrics["n_bootstrap"]),
        n_permutations=N_PERMUTATIONS,
        level=float(metrics["level"]),
        seed=int(metrics.get("seed", 0)),
    )
    return {
        "cohort": runs[0].provenance.get("cohort"),
        "classes": list(classes),
        "n_patients": len(models[0].patients),
        "folds": int(table.groupby("repeat")["fold"].nunique().max()),
        "repeats": int(table["repeat"].nunique()),
        "distinct_folds": len(table[["repeat", "fold"]].drop_duplicates() if models[0].redealt else set(table["fold"])),
        "folds_digest": runs[0].folds.digest,
        **{key: getattr(plan, key) for key in ("level", "n_bootstrap", "n_permutations", "n_train", "n_test")},
        "runs": [_described(run) for run in runs],
        "pairs": compare_all(models, plan),
        "published": published,
    }


def _read(path: Path) -> Run:
    if not path.is_dir():
        msg = f"There is no run at {path}; make one with `milkit train-mil`, or name another."
        raise RunError(msg)
    for name in ("settings.yaml", "folds.csv"):
        if not (path / name).is_file():
            msg = (
                f"{path / name} is missing; the folder is not a finished run, so make it again with `milkit train-mil`."
            )
            raise RunError(msg)
    settings = load(MilSettings, path / "settings.yaml", {})
    predictions = Predictions.load(path / "predictions.csv", any_target=True)
    if not predictions.classes:
        msg = f"The run {path} predicts no classes, which a comparison is made of; name runs that do."
        raise RunError(msg)
    provenance, metrics = read_json(path / "provenance.json"), read_json(path / "metrics.json")
    return Run(path.resolve().name, settings, provenance, metrics, Folds.load(path / "folds.csv"), predictions)


def _require_same(first: Run, second: Run) -> None:
    """Refuse runs of other classes, patients, labels or folds: their difference could be that of these."""
    names, (ours, theirs) = f"'{first.name}' and '{second.name}'", (run.predictions for run in (first, second))
    if set(ours.classes) != set(theirs.classes):
        msg = (
            f"The runs {names} have the classes {', '.join(ours.classes)} and {', '.join(theirs.classes)}; compare "
            "runs of the same classes."
        )
        raise RunError(msg)
    labels = [run.table.groupby("patient_id")["label"].first() for run in (ours, theirs)]
    if others := sorted(set(labels[0].index) ^ set(labels[1].index)):
        msg = (
            f"The runs {names} tested different patients: {len(others)} are in one of them only "
            f"({first_rows(others)}); compare runs of the same patients."
        )
        raise RunError(msg)
    if changed := sorted(labels[0].index[labels[0] != labels[1].reindex(labels[0].index)]):
        msg = (
            f"The runs {names} have different labels of {len(changed)} patients ({first_rows(changed)}); make the "
            "older run again with `milkit train-mil`."
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
    figures = ("balanced_accuracy", "weighted_f1", "accuracy", "auroc_macro", "auprc_macro")
    return {
        "name": run.name,
        "encoder": " or ".join(encoders_of(run.metrics, str(run.provenance.get("encoder") or ""))) or None,
        "head": " or ".join(heads_of(run.settings, run.metrics)),
        **{name: run.metrics.get(name) for name in figures},
    }


def _published(cohort: str) -> dict[str, Any]:
    known = recipe_names("compare")
    if cohort not in known:
        msg = (
            f"--paper was given, and there is no published table of the cohort '{cohort}', only of "
            f"{', '.join(known)}; leave it out."
        )
        raise SettingsError(msg)
    values: dict[str, Any] = yaml.safe_load(find_recipe("compare", cohort).read_text(encoding="utf-8"))
    return values
