"""Controls of a run: what is reached without the model, on the same folds, with the same intervals.

``controls.json`` holds

* ``format`` ("milkit-controls"), ``version`` (1), ``folds_digest``, ``level``, ``n_bootstrap``, ``seed``,
  ``n_patients`` (tested) and ``chance`` (``balanced_accuracy``, ``auroc_macro``);
* ``model``: the run's own ``balanced_accuracy`` and ``auroc_macro``, each ``{estimate, ci_low, ci_high}``, and
  ``per_class`` with ``n``, ``recall`` and ``auroc``; null where undefined;
* ``controls``: a list, each the same three keys and

  * ``name`` (unique: ``mean_pool``, ``bag_size``, ``covariates``, ``differential``, ``permuted_labels``, or
    ``covariate <column>``), ``kind`` (the same without the column) and ``title`` (for a table or an axis),
  * ``columns`` of the table of patients that it uses, empty where none,
  * ``difference``: the model less the control, paired, in ``balanced_accuracy`` and ``auroc_macro``;

* ``increment`` (see ``milkit.audit.increment``), null where there is nothing to add to: ``columns``, the figures of
  covariates and model ``together``, ``difference`` (these less those of the covariates alone) and ``weight``, the
  model's mean share of the two weights, null where the head was given the covariates;
* ``absent``: sentences on controls that could not be made;
* ``warnings``: sentences that a report must show first; ``sentences``: all of them, these first;
* ``failed``: only where the controls could not be made, the kind of error; ``controls`` is then empty.

Intervals resample tested patients and take the fitted models as they are; those of ``permuted_labels`` are over the
shuffles of the labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from milkit.audit.columns import covariate_columns, differential_columns
from milkit.audit.control_sentences import column_names, describe
from milkit.audit.increment import increment
from milkit.audit.pooled import Pooled, pool
from milkit.audit.scores import HEADLINES, Scores
from milkit.audit.simple_models import PENALTIES, Inputs, of_covariates, of_sizes, permuted, standardised, tested
from milkit.audit.study import Study, make_study
from milkit.bags import BagStore
from milkit.errors import MilkitError
from milkit.figure_text import capital
from milkit.folds import Folds
from milkit.predictions import Predictions
from milkit.runs import log_failure
from milkit.settings import MilSettings

FORMAT, VERSION = "milkit-controls", 1
PERMUTATIONS = 10
"""Shuffles of the labels over all repeats together, at least: a single one may be far from chance by luck."""
MOST_COLUMNS = 10
"""Covariates that have a control of their own, at most."""
NAMES = {"covariates": "covariates, such as age or sex", "differential": "differential count (pb_… or bm_…)"}
"""Of controls that a table of patients may not have."""

NO_INCREMENT = "The run has no predictions of validation patients, so there is no increment of the model."


class Control(NamedTuple):
    """A control that was made."""

    kind: str
    title: str
    columns: tuple[str, ...]
    scores: Scores
    headlines: Mapping[str, Any] = {}
    """Both headline figures, where their intervals are not over patients."""

    @property
    def name(self) -> str:
        """Unique among the controls of a run."""
        return f"{self.kind} {self.columns[0]}" if self.kind == "covariate" else self.kind


def run_controls(
    store: BagStore,
    folds: Folds,
    predictions: Predictions,
    settings: MilSettings,
    validated: Predictions | None = None,
) -> dict[str, Any]:
    """Make all controls of a run.

    Args:
        store: Of the run.
        folds: Of the run.
        predictions: Of its tested patients.
        settings: Of the run.
        validated: Its predictions of validation patients, without which there is no increment.

    Returns:
        The content of ``controls.json``, see above.
    """
    return controls_of(pool(store), folds, predictions, settings, validated)


def controls_of(
    bags: Pooled, folds: Folds, predictions: Predictions, settings: MilSettings, validated: Predictions | None = None
) -> dict[str, Any]:
    """Like ``run_controls``, of the bags of patients who all have a label."""
    study = make_study(bags, folds, predictions, settings)
    model = study.of_run([predictions, *([validated] if validated else [])])
    scores, absent = study.score(model), list[str]()
    declared = tuple(settings.covariates)
    there = covariate_columns(bags.patients)
    columns = declared or _known_in_all(study, there)
    if lost := [name for name in there if name not in columns and not declared]:
        absent.append(f"No control uses {column_names(lost)}: some split has no training patient whose value is known.")
    controls = _controls(study, columns, absent)
    alone = next((control.scores for control in controls if control.kind == "covariates"), None)
    added = increment(study, columns, None if declared else model, scores, alone) if alone else None
    if alone and added is None:
        absent.append(NO_INCREMENT)
    n_classes = len(np.unique(study.labels[study.rows]))
    result = control_facts(FORMAT, VERSION, folds, settings) | {
        "n_patients": len(study.rows),
        "chance": {"balanced_accuracy": 1 / n_classes, "auroc_macro": 0.5},
        "model": study.scorer.summary(scores),
        "controls": [_entry(study, scores, control) for control in controls],
        "increment": added,
        "absent": absent,
    }
    warnings, notes = describe(result, study.bags.patients)
    return {**result, "warnings": warnings, "sentences": [*warnings, *notes]}


def controls_or_failure(
    store: BagStore,
    folds: Folds,
    predictions: Predictions,
    settings: MilSettings,
    validated: Predictions,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Like ``run_controls``; where that fails, what says so, since a fault in a control must not cost the trained run.

    The log gets the traceback, without the error's message where a patient's id is in it.
    """
    try:
        return run_controls(store, folds, predictions, settings, validated)
    except Exception as error:
        kind = type(error).__name__
        log_failure("The controls failed", error, store.patients.index)
        sentence = (
            f"The controls beside this run failed ({kind}; the traceback is in log.txt), so that it cannot be told "
            "whether age, sex or the number of cells alone would do as well."
        )
        model = {name: _bare(metrics[name]) for name in HEADLINES if name in metrics}
        study = {"n_patients": metrics["n_patients"], "model": model}
        nothing: dict[str, Any] = {"controls": [], "increment": None, "absent": []}
        said = {"warnings": [sentence], "sentences": [sentence], "failed": kind}
        return control_facts(FORMAT, VERSION, folds, settings) | study | nothing | said


def _bare(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figure[name] for name in ("estimate", "ci_low", "ci_high")}


def _known_in_all(study: Study, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that some training patient of every split has a value of."""
    known = {name: study.bags.patients[name].notna().to_numpy() for name in columns}
    return tuple(name for name in columns if all(known[name][split.train].any() for split in study.splits))


def control_facts(kind: str, version: int, folds: Folds, settings: MilSettings) -> dict[str, Any]:
    """What a file of controls says of itself: its format and version, the folds, and how intervals were made."""
    return {
        "format": kind,
        "version": version,
        "folds_digest": folds.digest,
        "level": settings.level,
        "n_bootstrap": settings.bootstrap,
        "seed": settings.seed,
    }


def _controls(study: Study, columns: Sequence[str], absent: list[str]) -> list[Control]:
    """All controls that can be made; why another one cannot is added to ``absent``."""
    means = standardised(study.bags.means)
    pooled, penalties = study.fit(means, PENALTIES)
    controls = [
        Control("mean_pool", "Mean of the cells' features, logistic regression", (), study.score(pooled)),
        Control("bag_size", "Number of cells alone", (), study.score(study.fit(of_sizes(study.bags.sizes))[0])),
    ]
    patients, singles = study.bags.patients, columns[:MOST_COLUMNS] if len(columns) > 1 else ()
    differential = differential_columns(patients)
    wanted = [("covariates", f"{capital(column_names(columns))} alone", tuple(columns))]
    wanted += [("covariate", f"{capital(column_names([name]))} alone", (name,)) for name in singles]
    wanted += [("differential", "Differential count alone", differential)]
    for kind, title, used in wanted:
        if not used:
            if not absent or kind != "covariates":
                absent.append(f"The table of patients has no {NAMES[kind]}, so there is no such control.")
            continue
        try:
            controls.append(Control(kind, title, used, study.score(study.fit(of_covariates(patients, used))[0])))
        except MilkitError as error:
            absent.append(f"There is no control on {column_names(used)}: {error}")
    if len(columns) > MOST_COLUMNS:
        absent.append(f"Only the first {MOST_COLUMNS} of {len(columns)} covariates have a control of their own.")
    return [*controls, _permuted(study, means, penalties)]


def _permuted(study: Study, means: Inputs, penalties: list[float]) -> Control:
    """Every shuffle counts as a repeat, so that the figures are means over the shuffles."""
    repeats = len({split.repeat for split in study.splits})
    times = -(-PERMUTATIONS // repeats)
    held_out = permuted(means, study.labels, study.splits, penalties, times, study.seed, balanced=study.balanced)
    shuffles = np.concatenate([tested(one, study.splits, study.rows) for one in held_out])
    title, headlines = "Labels shuffled in training", study.scorer.over_shuffles(shuffles)
    return Control("permuted_labels", title, (), study.scorer.score(shuffles), headlines)


def _entry(study: Study, model: Scores, control: Control) -> dict[str, Any]:
    return {
        "name": control.name,
        "kind": control.kind,
        "title": control.title,
        "columns": list(control.columns),
        **study.scorer.summary(control.scores),
        **control.headlines,
        "difference": study.scorer.difference(model, control.scores),
    }
