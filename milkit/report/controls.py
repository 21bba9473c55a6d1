"""What is reached without the model, beside what the model reaches: the run's ``controls.json`` as rows and sentences.

``milkit.audit.controls`` makes the file and documents it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from milkit.figure_text import with_interval
from milkit.report.summary import listed
from milkit.report.tables import Table


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
    rows = [["The model", *_figures(found["model"]), ""]]
    for control in found["controls"]:
        gap = control["difference"]["balanced_accuracy"]
        rows.append([control["title"], *_figures(control), signed(gap)])
    if found.get("increment"):
        together = found["increment"]["together"]
        rows.append([f"The model and {listed(found['increment']['columns'])}", *_figures(together), ""])
    header = [
        "What is looked at",
        f"Balanced accuracy ({level} CI)",
        f"AUROC, mean of classes ({level} CI)",
        f"Model less this, balanced accuracy ({level} CI)",
    ]
    first = list(found["warnings"])
    others = [sentence for sentence in found["sentences"] if sentence not in first]
    return Controls(first, [*others, *found["absent"]], Table("The model beside controls", header, rows))


def signed(figure: Mapping[str, Any]) -> str:
    """``+0.05 (-0.02 to +0.11)``; a dash where the difference is undefined."""
    return with_interval(figure, "+.2f")


def _figures(scores: Mapping[str, Any]) -> list[str]:
    return [with_interval(scores["balanced_accuracy"]), with_interval(scores["auroc_macro"])]
