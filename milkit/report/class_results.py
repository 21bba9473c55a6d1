"""What the page shows of classes, whether a run's only target or one of several: tables, sentences and figures."""

from dataclasses import replace
from typing import NamedTuple

from milkit import calibration_figures, figures
from milkit.drawing import Drawn
from milkit.predictions import Predictions
from milkit.report.probabilities import (
    calibration_notes,
    calibration_table,
    decision_notes,
    predictive_table,
    temperature_note,
    variance_note,
)
from milkit.report.results import Results
from milkit.report.summary import headline
from milkit.report.tables import METRICS, Table, class_table, metrics_table
from milkit.report.target_results import ShownTarget


class ClassResults(NamedTuple):
    """What the template takes.

    Attributes:
        place: What the names of its figures begin with.
        averaged: Whether figures are means over several repeats.
        metrics: Figures over all patients.
        classes: Figures of each class.
        variance: Where the uncertainty comes from; may be empty.
        calibration: How far the probabilities are right; None where that is not known.
        calibration_notes: How to read it.
        temperature: What a temperature would change; may be empty.
        decisions: Sentences on the decision curves, of which there are none without these.
        predictive: Predictive values; None where no prevalence was declared.
    """

    place: str
    averaged: bool
    metrics: Table
    classes: Table
    variance: str
    calibration: Table | None
    calibration_notes: list[str]
    temperature: str
    decisions: list[str]
    predictive: Table | None


def class_results(results: Results) -> ClassResults:
    """Of the classes of ``results``."""
    return ClassResults(
        place="",
        averaged=results.predictions.table["repeat"].nunique() > 1,
        metrics=metrics_table(results),
        classes=class_table(results),
        variance=variance_note(results),
        calibration=calibration_table(results),
        calibration_notes=calibration_notes(results),
        temperature=temperature_note(results),
        decisions=decision_notes(results),
        predictive=predictive_table(results),
    )


def class_figures(results: Results) -> dict[str, Drawn]:
    """The figures of ``results``, by their names."""
    table, classes = results.predictions.table, results.classes
    per_class = results.metrics.get("per_class", {})
    named = {name: results.metrics.get(key, {}) for key, (name, _) in METRICS.items()}
    chance = {METRICS["balanced_accuracy"][0]: headline(results).chance}
    curves = [(part["label"].tolist(), Predictions(part, classes).probabilities) for _, part in table.groupby("repeat")]
    drawn = {
        "confusion_matrix": figures.confusion_matrix(
            table["label"].tolist(), table["predicted"].tolist(), classes, repeats=len(curves)
        ),
        "roc_curves": figures.roc_curves(curves, classes, per_class),
        "class_results": figures.class_results(per_class, classes),
        "metric_folds": figures.metric_folds(named, chance),
    }
    if results.metrics.get("calibration"):
        drawn["calibration"] = calibration_figures.reliability(results.metrics["calibration"], classes)
    if results.metrics.get("decision_curves"):
        drawn["decision_curves"] = calibration_figures.decision_curves(results.metrics["decision_curves"])
    return drawn


def of_target(results: Results, target: ShownTarget) -> Results:
    """The results of a run on several targets as those of one of them."""
    return replace(results, predictions=Predictions(target.table, target.classes), metrics=target.metrics)


def class_results_of(results: Results, target: ShownTarget, place: str) -> ClassResults:
    """Of one of several targets, whose name stands before the title of every table."""
    found, name = class_results(of_target(results, target)), target.name
    return found._replace(
        place=place,
        metrics=found.metrics.of(name),
        classes=found.classes.of(name),
        calibration=found.calibration and found.calibration.of(name),
        predictive=found.predictive and found.predictive.of(name),
    )
