"""Whether the probabilities can be believed, and what decisions by them are worth: tables and sentences of the page."""

from collections.abc import Mapping
from math import sqrt
from typing import Any

from milkit.figure_text import with_interval
from milkit.report.controls import signed
from milkit.report.results import Results
from milkit.report.summary import listed
from milkit.report.tables import Table


def calibration_table(results: Results) -> Table | None:
    """Slope, intercepts and Brier score of each class; None for a run that has none."""
    found = results.metrics.get("calibration")
    if not found:
        return None
    rows = []
    for name in results.classes:
        own = found[name]
        errors = [f"{value:.2f}" for value in own["expected_calibration_error"].values()]
        rows.append(
            [
                name,
                *(with_interval(own[key]) for key in ("slope", "intercept", "in_the_large")),
                _fine(own["brier"]),
                f"{own['brier_parts']['uncertainty']:.3f}",
                " / ".join(errors),
            ]
        )
    bins = " / ".join(found[results.classes[0]]["expected_calibration_error"])
    header = [
        "Class",
        f"Slope ({results.level} CI)",
        f"Intercept ({results.level} CI)",
        f"Intercept at slope 1 ({results.level} CI)",
        f"Brier score ({results.level} CI)",
        "Brier score of the share alone",
        f"Expected error, {bins} bins",
    ]
    return Table("Calibration of each class", header, rows)


def calibration_notes(results: Results) -> list[str]:
    """How the calibration is to be read."""
    notes = [
        "A slope of 1 and intercepts of 0 are right; a slope below 1 means probabilities that are too extreme. Points "
        "are bins of equally many patients, with Wilson's interval of the observed share."
    ]
    found = results.metrics.get("calibration") or {}
    if apart := [name for name in results.classes if name in found and found[name]["slope"]["estimate"] is None]:
        notes.append(
            f"There is no slope for {listed(apart)}: the probabilities tell all patients of the class from all others, "
            "so that ever larger slopes would fit them better."
        )
    if results.settings.training.class_weights:
        notes.append(
            "The training weighted the classes to equal shares, so that the probabilities are for classes of equal "
            "frequency: those of a class that is rare here are higher than its share on purpose, and its intercept at "
            "slope 1 is below 0."
        )
    return notes


def temperature_note(results: Results) -> str:
    """What temperatures of the validation patients would make of the tested patients' probabilities; may be empty."""
    found = results.metrics.get("temperature")
    if not found:
        return ""
    values = sorted(found["temperatures"])
    spread = f"{values[0]:.2f} to {values[-1]:.2f}" if values[0] < values[-1] else f"{values[0]:.2f}"
    loss = found["log_loss"]
    before, after = (f"{loss[key]['estimate']:.2f}" for key in ("before", "after"))
    gap = signed(loss["difference"])
    slopes = [f"{with_interval(found['calibration'][name]['slope'])} for {name}" for name in results.classes]
    return (
        f"Dividing the logits by a temperature that was fitted on each split's validation patients ({spread}) would "
        f"change the mean log loss of the tested ones from {before} to {after} (difference {gap}), and the slope to "
        f"{listed(slopes)}. The probabilities on this page are not scaled."
    )


def predictive_table(results: Results) -> Table | None:
    """Predictive values at the declared prevalences; None where none was declared."""
    found = results.metrics.get("predictive_values")
    if not found:
        return None
    rows = [
        [name, f"{100 * own['prevalence']:.3g} %", with_interval(own["positive"]), with_interval(own["negative"])]
        for name, own in found.items()
    ]
    header = [
        "Class",
        "Declared prevalence",
        f"Has it when predicted ({results.level} CI)",
        f"Does not have it when another is predicted ({results.level} CI)",
    ]
    return Table("Predictive values at the declared prevalence", header, rows)


def decision_notes(results: Results) -> list[str]:
    """Where the prevalence of each decision curve comes from, and what the model spares at the ends of its range."""
    notes = []
    for name, curve in (results.metrics.get("decision_curves") or {}).items():
        origin = (
            "as declared"
            if curve["prevalence_declared"]
            else "the share in this cohort, which is a clinic's only if its patients came one after the other"
        )
        ends = [
            f"{avoided:.0f} of 100 patients at a threshold of {threshold:.3g}"
            for avoided, threshold in zip(curve["avoided_per_100"], curve["thresholds"], strict=True)
            if avoided is not None
        ]
        spared = f" Against acting on everybody, the model spares {ends[0]} and {ends[-1]}." if ends else ""
        notes.append(f"{name}: prevalence {100 * curve['prevalence']:.3g} %, {origin}.{spared}")
    return notes


def variance_note(results: Results) -> str:
    """Where the uncertainty of a single training's balanced accuracy comes from; empty where nothing was repeated."""
    parts: Mapping[str, Any] = (results.metrics.get("variance") or {}).get("balanced_accuracy", {})
    named = {"patients": "the choice of patients", "split": "their split into folds", "seed": "the seed of training"}
    known = [f"{sqrt(parts[key]):.3f} by {text}" for key, text in named.items() if parts.get(key) is not None]
    if not known:
        return ""
    times = [
        f"{parts[key]} {noun}{'s' if parts[key] > 1 else ''}"
        for key, noun in (("n_repeats", "split"), ("n_seeds", "seed"))
    ]
    return (
        f"The balanced accuracy of a single training varies with a standard deviation of {', '.join(known)} "
        f"({' x '.join(times)}). More splits and seeds reduce all but the first."
    )


def _fine(figure: Mapping[str, Any]) -> str:
    """Three digits: a Brier score is small."""
    return with_interval(figure, ".3f")
