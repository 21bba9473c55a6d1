"""Controls of a run on survival, numbers or several targets: what is reached without the model, on the same folds.

``controls.json`` of such a run holds

* ``format`` ("milkit-target-controls"), ``version`` (1), ``folds_digest``, ``level``, ``n_bootstrap`` and ``seed``;
* ``targets``: by name, of classes what ``milkit.audit.controls`` documents, and of others ``kind``, ``column`` (of the
  prediction: ``risk`` or ``predicted``), ``n_patients``, ``chance`` and ``model`` (``c_index`` of a risk, ``r2`` and
  ``spearman`` of a number, each ``{estimate, ci_low, ci_high}``, null where undefined), ``controls`` (a list with
  ``name``, ``kind``, ``title``, ``columns``, the same figures, and ``difference``: the model less the control, paired),
  ``increment`` (as there, in these figures; see ``milkit.audit.target_increment``), and ``absent``: sentences on
  controls that could not be made;
* ``warnings``: sentences that a report must show first; ``sentences``: all of them, these first. Of several targets
  each begins with the target's name;
* ``failed``: only where the controls could not be made, the kind of error; ``targets`` is then empty.

The controls are ridge regressions, Cox's for survival, on the mean of a patient's cells, on the number of cells, on
covariates, on a differential count, and on the mean of the cells with outcomes shuffled in training.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from milkit.audit.columns import covariate_columns, differential_columns
from milkit.audit.control_sentences import column_names
from milkit.audit.controls import MOST_COLUMNS, NAMES, NO_INCREMENT, PERMUTATIONS, control_facts, controls_of
from milkit.audit.outcome_models import COX, RIDGE, Model, held_out, shuffled
from milkit.audit.pooled import Pooled, pool
from milkit.audit.simple_models import (
    LIGHT,
    PENALTIES,
    Floats,
    Inputs,
    Rows,
    of_covariates,
    of_sizes,
    places_of,
    rows_of,
    standardised,
)
from milkit.audit.target_increment import Alone, target_increment
from milkit.audit.target_scores import CHANCE, TargetScorer
from milkit.audit.target_sentences import describe_target
from milkit.bags import BagStore
from milkit.errors import MilkitError
from milkit.figure_text import capital
from milkit.folds import Folds
from milkit.predictions import Predictions
from milkit.runs import log_failure
from milkit.settings import MilSettings
from milkit.statistics.out_of_fold import Resamples

FORMAT, VERSION = "milkit-target-controls", 1


class Judged(NamedTuple):
    """A target and what a run said of it.

    Attributes:
        name: Of the target.
        kind: Such as ``survival``.
        table: Rows of its ``predictions.csv``.
        outcomes: Of all patients of the store, (n, k): time and event, or a number; a row of NaN where unknown. Of
            classes (n, 1): their position in ``classes``.
        columns: Of the table of patients that hold the outcome.
        classes: Of a target of classes.
        validated: Rows like those of ``table`` of the validation patients, without which there is no increment.
    """

    name: str
    kind: str
    table: pd.DataFrame
    outcomes: Floats
    columns: tuple[str, ...]
    classes: tuple[str, ...] = ()
    validated: pd.DataFrame | None = None


def target_controls(store: BagStore, folds: Folds, targets: Sequence[Judged], settings: MilSettings) -> dict[str, Any]:
    """Make all controls of a run.

    Args:
        store: Of the run.
        folds: Of the run.
        targets: Of the run, with its predictions.
        settings: Of the run.

    Returns:
        The content of ``controls.json``, see above.
    """
    bags = pool(store)
    outcomes = {name for target in targets for name in target.columns}
    bags = bags._replace(patients=bags.patients.drop(columns=[name for name in outcomes if name in bags.patients]))
    found = {target.name: _of_target(bags, folds, target, settings) for target in targets}
    warnings, notes = list[str](), list[str]()
    for name, own in found.items():
        first, others = own.pop("warnings"), own.pop("sentences")
        prefix = f"{name}: " if len(found) > 1 else ""
        warnings += [prefix + text for text in first]
        notes += [prefix + text for text in others if text not in first]
    return control_facts(FORMAT, VERSION, folds, settings) | {
        "targets": found,
        "warnings": warnings,
        "sentences": [*warnings, *notes],
    }


def target_controls_or_failure(
    store: BagStore, folds: Folds, targets: Sequence[Judged], settings: MilSettings
) -> dict[str, Any]:
    """Like ``target_controls``; where that fails, what says so, since a fault in a control must not cost the run."""
    try:
        return target_controls(store, folds, targets, settings)
    except Exception as error:
        log_failure("The controls failed", error, store.patients.index)
        kind = type(error).__name__
        sentence = (
            f"The controls beside this run failed ({kind}; the traceback is in log.txt), so that it cannot be told "
            "whether age, sex or the number of cells alone would do as well."
        )
        return control_facts(FORMAT, VERSION, folds, settings) | {
            "targets": {},
            "warnings": [sentence],
            "sentences": [sentence],
            "failed": kind,
        }


def _of_target(bags: Pooled, folds: Folds, target: Judged, settings: MilSettings) -> dict[str, Any]:
    if target.classes:
        return _of_classes(bags, folds, target, settings)
    scorer, splits = _scorer(bags, folds, target, settings)
    model = COX if scorer.column == "risk" else RIDGE
    scores = scorer.score_table(target.table)
    wanted, absent = _wanted(bags.patients, tuple(settings.covariates))
    inputs: list[tuple[str, str, tuple[str, ...], Inputs, tuple[float, ...]]] = [
        ("mean_pool", "Mean of the cells' features, ridge regression", (), standardised(bags.means), PENALTIES),
        ("bag_size", "Number of cells alone", (), of_sizes(bags.sizes), LIGHT),
        *((kind, title, used, of_covariates(bags.patients, used), LIGHT) for kind, title, used in wanted),
    ]
    controls, chosen, alone = [], list[float](), None
    for kind, title, used, own, penalties in inputs:
        try:
            predicted, of_splits = held_out(model, own, target.outcomes, splits, penalties)
        except MilkitError as error:
            absent.append(f"There is no control on {column_names(used)}: {error}")
            continue
        chosen = chosen or of_splits
        beside = scorer.score(predicted)
        name = f"{kind} {used[0]}" if kind == "covariate" else kind
        about = {"name": name, "kind": kind, "title": title, "columns": list(used)}
        controls.append(about | scorer.summary(beside) | {"difference": scorer.summary(scores - beside)})
        if kind == "covariates":
            alone = Alone(used, predicted, beside)
    permuted = _permuted(scorer, (model, inputs[0][3], chosen), target, splits, settings.seed)
    gap = scorer.summary(scores - scorer.score_table(permuted.pop("table")))
    controls.append(permuted | {"difference": gap})
    added = None
    if alone and (settings.covariates or target.validated is not None):
        of_run = None if settings.covariates else _of_run(target, splits, bags.patients.index, scorer.column)
        added = target_increment(scorer, splits, target.outcomes, alone, of_run, scores)
    elif alone:
        absent.append(NO_INCREMENT)
    result = {
        "kind": target.kind,
        "column": scorer.column,
        "n_patients": int(target.table["patient_id"].nunique()),
        "chance": dict(CHANCE[scorer.column]),
        "model": scorer.summary(scores),
        "controls": controls,
        "increment": added,
        "absent": absent,
    }
    warnings, notes = describe_target(result, settings.level)
    return {**result, "warnings": warnings, "sentences": [*warnings, *notes]}


def _of_classes(bags: Pooled, folds: Folds, target: Judged, settings: MilSettings) -> dict[str, Any]:
    """Of the patients whose class is known."""
    known = np.isfinite(target.outcomes[:, 0])
    labels = [target.classes[int(c)] for c in target.outcomes[known, 0]]
    own = Pooled(bags.patients[known].assign(label=labels), bags.means[known], bags.sizes[known])
    there = folds.table["patient_id"].isin(own.patients.index)
    predictions = Predictions(target.table, target.classes)
    validated = None if target.validated is None else Predictions(target.validated, target.classes)
    return {"kind": target.kind} | controls_of(own, Folds(folds.table[there]), predictions, settings, validated)


def _scorer(bags: Pooled, folds: Folds, target: Judged, settings: MilSettings) -> tuple[TargetScorer, list[Rows]]:
    table, splits = target.table, rows_of(folds.splits(), [str(name) for name in bags.patients.index])
    strata = np.zeros(table["patient_id"].nunique(), dtype=np.int64)
    resamples = Resamples.of(strata, settings.bootstrap, settings.level, settings.seed)
    column: Literal["risk", "predicted"] = "risk" if "risk" in table else "predicted"
    return TargetScorer(table, column, places_of(table, splits, bags.patients.index), resamples), splits


def _of_run(target: Judged, splits: Sequence[Rows], patients: "pd.Index[str]", column: str) -> Floats:
    """What the run itself said of validation and tested patients, (S, n); NaN of others."""
    held_out = np.full((len(splits), len(patients)), np.nan)
    for table in (target.table, target.validated):
        if table is not None:
            held_out[places_of(table, splits, patients)] = table[column]
    return held_out


def _wanted(
    patients: pd.DataFrame, declared: tuple[str, ...]
) -> tuple[list[tuple[str, str, tuple[str, ...]]], list[str]]:
    """Kind, title and columns of each control on the table of patients, and why there is no other."""
    columns, differential = declared or covariate_columns(patients), differential_columns(patients)
    wanted = [("covariates", columns), *(("covariate", (name,)) for name in columns[:MOST_COLUMNS] if columns[1:])]
    absent = [
        f"The table of patients has no {what}, so there is no such control."
        for what, there in ((NAMES["covariates"], columns), (NAMES["differential"], differential))
        if not there
    ]
    found = [(kind, f"{capital(column_names(used))} alone", used) for kind, used in wanted if used]
    if differential:
        found.append(("differential", "Differential count alone", differential))
    return found, absent


def _permuted(
    scorer: TargetScorer, fitted: tuple[Model, Inputs, list[float]], target: Judged, splits: list[Rows], seed: int
) -> dict[str, Any]:
    """The mean of the cells after outcomes were shuffled in training; every shuffle counts as a repeat."""
    model, inputs, penalties = fitted
    times = -(-PERMUTATIONS // int(scorer.table["repeat"].nunique()))
    found = shuffled(model, inputs, target.outcomes, splits, penalties, [(seed, k) for k in range(times)])
    table = scorer.table_of(found)
    return {
        "name": "permuted_labels",
        "kind": "permuted_labels",
        "title": "Outcomes shuffled in training",
        "columns": [],
        **scorer.over_repeats(table),
        "table": table,
    }
