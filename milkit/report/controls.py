"""What is reached without the model, beside what the model reaches: the run's ``controls.json`` as rows and sentences.

``milkit.audit.controls`` makes the file and documents it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from milkit.audit.control_sentences import column_names
from milkit.figure_text import capital, with_interval
from milkit.report.tables import Table

OF_CLASSES = {"balanced_accuracy": "balanced accuracy", "auroc_macro": "AUROC, mean of classes"}
"""The figures that models of classes are compared by."""


class Controls(NamedTuple):
    """The controls as the page shows them.

    Attributes:
        first: Sentences for the report's first lines.
        others: Further ones, and what could not be made.
        table: The model, and each control with the model's difference to it.
    """

    first: list[str]
    others: list[str]
    table: Table


def shown_controls(found: Mapping[str, Any], level: str) -> Controls | None:
    """The page's part; None where the run has no controls.

    Args:
        found: ``controls.json``.
        level: Coverage of the intervals, as text.
    """
    if not found:
        return None
    first = list(found["warnings"])
    others = [sentence for sentence in found["sentences"] if sentence not in first]
    table = control_table(found, OF_CLASSES, "balanced_accuracy", level, "The model beside controls")
    return Controls(first, [*others, *found["absent"]], table)


def control_table(found: Mapping[str, Any], names: Mapping[str, str], quoted: str, level: str, title: str) -> Table:
    """The model, each control, and the model with the covariates, in rows.

    Args:
        found: The controls of one target.
        names: Of the figures that have a column, as the page calls them.
        quoted: The figure whose differences have one.
        level: Coverage of the intervals, as text.
        title: Of the table.
    """

    def figures(scores: Mapping[str, Any]) -> list[str]:
        return [with_interval(scores[key]) for key in names]

    rows = [["The model", *figures(found["model"]), ""]]
    for control in found["controls"]:
        rows.append([control["title"], *figures(control), signed(control["difference"][quoted])])
    if increment := found.get("increment"):
        rows.append([f"The model and {column_names(increment['columns'])}", *figures(increment["together"]), ""])
    header = ["What is looked at", *(f"{capital(name)} ({level} CI)" for name in names.values())]
    header.append(f"Model less this, {names[quoted]} ({level} CI)")
    return Table(title, header, rows)


def signed(figure: Mapping[str, Any]) -> str:
    """``+0.05 (-0.02 to +0.11)``; a dash where the difference is undefined."""
    return with_interval(figure, "+.2f")
