"""The tables of the page: rows of text, numbers already rounded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from milkit.figure_text import capital, with_interval
from milkit.patient_flow import flow_table
from milkit.report.results import Results

METRICS = {
    "balanced_accuracy": (
        "Balanced accuracy",
        "mean of the classes' recalls, so that small classes count like large ones",
    ),
    "accuracy": ("Accuracy", "share of patients predicted right"),
    "weighted_f1": ("Weighted F1", "balance of precision and recall, classes weighted by their patients"),
    "auroc_macro": (
        "AUROC, mean of classes",
        "chance that a patient of the class gets a higher score than a patient of another class",
    ),
    "auprc_macro": ("AUPRC, mean of classes", "average precision; guessing gives the share of the class"),
}
"""Keys of ``metrics.json`` in the order of the page, with a name and a meaning."""

_MISSING = "–"


class Table(NamedTuple):
    """A table of the page; the first column names the row."""

    caption: str
    header: list[str]
    rows: list[list[str]]

    def of(self, target: str) -> "Table":
        """The same, about one of several targets."""
        return self._replace(caption=f"{capital(target)}: {self.caption[:1].lower()}{self.caption[1:]}")


class FlowStep(NamedTuple):
    """A box of the flow of patients: enrolled, excluded (with a reason, and what is left) or analysed."""

    step: str
    who: str
    reason: str
    left: str


def flow_steps(results: Results) -> list[FlowStep]:
    """Who was enrolled, excluded and analysed, as the cohort's notes say; nothing where its recipe has no rules."""
    steps = []
    for row in flow_table(map(str, results.source.get("notes") or ())).to_dict("records"):
        left = _counted(row["left"], row.get("samples_left")) if row["step"] == "excluded" else ""
        steps.append(FlowStep(row["step"], _counted(row["patients"], row.get("samples")), row["reason"], left))
    return steps


def cohort_table(results: Results) -> Table:
    """Tested patients and their cells, by the labels of the run; the store's may have been corrected since."""
    patients = results.store.patients.loc[results.patients.index].assign(label=results.patients["label"])
    cells = results.cells["patient_id"].value_counts()
    covariates = [name for name in ("age", "sex") if name in patients]
    titles = {"age": "Age, median (range)", "sex": "Female"}
    rows = []
    for name, part in [*((name, patients[patients["label"] == name]) for name in results.classes), ("All", patients)]:
        per_patient = cells.reindex(part.index).fillna(0)
        row = [name, f"{len(part):,}", f"{per_patient.sum():,.0f}", _median_range(per_patient)]
        rows.append(row + [_age(part["age"]) if column == "age" else _female(part["sex"]) for column in covariates])
    header = ["Class", "Patients", "Cells", "Cells a patient, median (range)", *(titles[name] for name in covariates)]
    return Table("The cohort", header, rows)


def metrics_table(results: Results, metrics: Mapping[str, tuple[str, str]] = METRICS) -> Table:
    """Every metric with its interval and the spread of single folds.

    Args:
        results: Of the run.
        metrics: Which of them, each with a name and a meaning.
    """
    rows = []
    for key, (name, meaning) in metrics.items():
        metric = results.metrics.get(key, {})
        rows.append([name, with_interval(metric), _spread(metric), meaning])
    header = ["Metric", f"Estimate ({results.level} CI)", "Single folds, lowest to highest", "What it is"]
    return Table("Metrics over all patients", header, rows)


def class_table(results: Results) -> Table:
    """Patients, recall, AUROC and sensitivity of each class."""
    rows, at = [], results.metrics.get("sensitivity")
    for name in results.classes:
        values = results.metrics.get("per_class", {}).get(name, {})
        recall, auroc = with_interval(values.get("recall", {})), with_interval(values.get("auroc", {}))
        sensitivity = [with_interval(at["per_class"][name])] if at else []
        rows.append([name, str(values.get("n", _MISSING)), recall, auroc, *sensitivity])
    header = ["Class", "Patients", f"Recall ({results.level} CI)", f"AUROC against the rest ({results.level} CI)"]
    header += [f"Sensitivity at specificity {at['specificity']:g} ({results.level} CI)"] if at else []
    return Table("Results of each class", header, rows)


def _counted(patients: int, samples: int | None) -> str:
    counts = {"patient": patients} | ({} if samples is None else {"sample": samples})
    return ", ".join(f"{number:,} {noun}{'' if number == 1 else 's'}" for noun, number in counts.items())


def _median_range(values: "pd.Series[Any]") -> str:
    return f"{values.median():.0f} ({values.min():.0f} to {values.max():.0f})" if len(values) else _MISSING


def _age(ages: "pd.Series[Any]") -> str:
    known = pd.to_numeric(ages, errors="coerce").dropna()
    return _median_range(known) + _missing(len(ages) - len(known))


def _female(sexes: "pd.Series[Any]") -> str:
    known = sexes.dropna().astype(str).str.strip().str.upper()
    known = known[known.isin(["F", "M"])]
    share = f"{100 * (known == 'F').mean():.0f} %" if len(known) else _MISSING
    return share + _missing(len(sexes) - len(known))


def _missing(number: int) -> str:
    return f", {number} missing" if number else ""


def _spread(metric: dict[str, Any]) -> str:
    folds = [value for value in metric.get("folds") or () if value is not None]
    return f"{min(folds):.2f} to {max(folds):.2f}" if folds else _MISSING
