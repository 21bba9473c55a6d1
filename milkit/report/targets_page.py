"""The report's page of a run whose targets are survival, numbers or several at once."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from milkit.audit.target_scores import CHANCE
from milkit.audit.target_sentences import HEADLINES, NAMES
from milkit.drawing import Drawn
from milkit.figure_text import capital, listed
from milkit.report.class_results import ClassResults, class_figures, class_results_of, of_target
from milkit.report.controls import OF_CLASSES, control_table
from milkit.report.results import Results
from milkit.report.summary import method
from milkit.report.tables import Table, metrics_table
from milkit.report.target_results import ShownTarget
from milkit.survival.curves import curve_table, log_rank, numbers_at_risk, round_times
from milkit.survival.predicted import YARDSTICKS, risk_groups
from milkit.survival.warn import of_data
from milkit.survival_figures import kaplan_meier
from milkit.target_plots import scatter

MEANINGS = {
    "c_index": (
        "c-index",
        "share of pairs of patients of one fold, of whom it is known who had the event first, in which that one has "
        "the higher risk",
    ),
    "spearman": ("Spearman's ρ", "how far the order of the predictions is that of the true values"),
    "r2": ("R²", "share of the spread that is explained; the mean of all patients reaches 0, and worse is below it"),
    "mae": ("Mean absolute error", "in the unit of the value"),
}
"""Figures in the order of the page, with a name and a meaning."""


class Headline(NamedTuple):
    """The figure of a target that is quoted; ``estimate`` is None where it is undefined."""

    title: str
    estimate: float | None
    context: str


class Section(NamedTuple):
    """What the page shows of one target.

    Attributes:
        name: Of the target.
        headline: What is quoted.
        table: Its figures; None of classes.
        figure: Name of its figure.
        caption: Of the figure.
        notes: Sentences about it.
        controls: What is reached without the model; None where there are no controls.
        others: Sentences on controls that stand further below.
        classes: Of a target of classes, all that stands in the place of table and figure; None of others.
    """

    name: str
    headline: Headline
    table: Table | None
    figure: str
    caption: str
    notes: list[str]
    controls: Table | None
    others: list[str]
    classes: ClassResults | None = None


def sections(results: Results, targets: Sequence[ShownTarget]) -> list[Section]:
    """One for each target, in the order of the run."""
    return [_section(results, target, number) for number, target in enumerate(targets, 1)]


def target_figures(results: Results, targets: Sequence[ShownTarget]) -> dict[str, Drawn]:
    """Kaplan-Meier curves by risk group, predicted over true numbers, or the figures of classes, by their names."""
    drawn = dict[str, Drawn]()
    for number, target in enumerate(targets, 1):
        place = _figure_name(number)
        own = class_figures(of_target(results, target)) if target.classes else {"": _draw(target)}
        drawn |= {f"{place}_{name}" if name else place: figure.within(place) for name, figure in own.items()}
    return drawn


def first_screen(results: Results, targets: Sequence[ShownTarget]) -> dict[str, Any]:
    """What was asked, which sentences stand first, and how the answer was found."""
    kinds = {"regression": "the number {}", "classes": "the class of {}"}
    asked = listed([kinds.get(target.kind, "{}").format(target.name) for target in targets])
    known = [_counted(target) for target in targets]
    question = (
        f"Can {asked} be told from images of single blood cells alone? The cohort {results.cohort} has "
        f"{len(results.patients):,} tested patients with {len(results.cells):,} cells: {'; '.join(known)}."
    )
    resampled = (
        f"The {results.level} intervals come from {results.settings.bootstrap:,} resamples of patients (BCa "
        "bootstrap); models are not retrained within resamples, so training variance is not included."
    )
    internal = (
        "This is internal validation: predictions are out-of-fold and the patient, not the cell, is what is counted. "
        "It does not say how the models would do on another hospital's patients, stain or microscope."
    )
    return {
        "question": question,
        "first": list(results.controls.get("warnings", [])),
        "others": [text for text in results.controls.get("sentences", []) if text not in results.controls["warnings"]],
        "method": [*method(results)[:2], f"{internal} {resampled}"],
    }


def target_warnings(targets: Sequence[ShownTarget]) -> list[str]:
    """What should make a reader of survival careful."""
    told = []
    for target in targets:
        prefix = f"{target.name}: " if len(targets) > 1 else ""
        if target.outcome is not None:
            told += [prefix + text for text in of_data(target.outcome, target.outcome.middle)]
        if len(targets) > 1 and "warning" in target.metrics:
            told.append(prefix + str(target.metrics["warning"]))
    return told


def _section(results: Results, target: ShownTarget, number: int) -> Section:
    level, notes = results.level, []
    names = {key: own for key, own in MEANINGS.items() if key in target.metrics}
    caption = "A point for each patient, predictions averaged over the repeats; on the dotted line both are equal."
    if target.outcome is not None:
        risks = target.risks()
        assert risks is not None
        caption = (
            "Share of patients without the event over time, by risk group, with the numbers still followed. Groups are "
            f"halves by {YARDSTICKS[risks.yardstick]}."
        )
        notes.append(
            "`milkit survival` sets these risks beside covariates (Cox's model), and judges predicted survival (Brier "
            "score, calibration)."
        )
    return Section(
        capital(target.name),
        _headline(target, level),
        None if target.classes else metrics_table(of_target(results, target), names).of(target.name),
        _figure_name(number),
        caption,
        notes,
        _controls(target, level),
        list(target.controls.get("absent", [])),
        class_results_of(results, target, f"{_figure_name(number)}_") if target.classes else None,
    )


def _headline(target: ShownTarget, level: str) -> Headline:
    key = "balanced_accuracy" if target.classes else HEADLINES[_column(target)]
    title = "Balanced accuracy" if target.classes else capital(NAMES[key])
    chance = 1 / len(target.classes) if target.classes else CHANCE[_column(target)][key]
    figure = target.metrics.get(key) or {}
    estimate, low, high = (figure.get(name) for name in ("estimate", "ci_low", "ci_high"))
    interval = "" if low is None or high is None else f"({level} CI {low:.2f} to {high:.2f}), "
    return Headline(title, estimate, f"{interval}chance {chance:.2f}")


def _controls(target: ShownTarget, level: str) -> Table | None:
    found = target.controls
    if not found:
        return None
    names = OF_CLASSES if target.classes else {key: NAMES[key] for key in CHANCE[_column(target)]}
    quoted = "balanced_accuracy" if target.classes else HEADLINES[_column(target)]
    return control_table(found, names, quoted, level, f"{capital(target.name)}: the model beside controls")


def _counted(target: ShownTarget) -> str:
    n = target.table["patient_id"].nunique()
    if target.outcome is not None:
        return f"{target.name} of {n:,} patients is known, with {int(target.outcome.event.sum()):,} events"
    if target.classes:
        counts = target.patients["label"].value_counts()
        return f"{target.name} of {n:,} patients is known: " + listed(
            [f"{c} ({counts.get(c, 0)})" for c in target.classes]
        )
    label = target.patients["label"]
    spread = f"median {label.median():.4g} ({label.min():.4g} to {label.max():.4g})"
    return f"{target.name} of {n:,} patients is known, {spread}"


def _column(target: ShownTarget) -> str:
    return "risk" if target.outcome is not None else "predicted"


def _figure_name(number: int) -> str:
    return f"target_{number}"


def _draw(target: ShownTarget) -> Drawn:
    if target.outcome is None:
        return scatter(target.patients, target.name)
    outcome, risks = target.outcome, target.risks()
    assert risks is not None
    time, event = outcome.time, outcome.event
    groups, names = risk_groups(risks.position, 2)
    there = [group for group in names if (groups == group).any()]
    curves = curve_table(time, event, groups, there, outcome.settings.level)
    at_risk = numbers_at_risk(time, groups, there, round_times(float(time.max())))
    shown = {"log_rank": log_rank(time, event, groups), "horizon": outcome.middle, "level": outcome.settings.level}
    return kaplan_meier(curves, at_risk, shown)


def as_markup(drawn: Mapping[str, Drawn]) -> dict[str, Markup]:
    """Figures as a template takes them."""
    return {name: Markup(figure) for name, figure in drawn.items()}
