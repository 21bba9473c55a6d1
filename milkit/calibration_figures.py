"""Figures of probabilities and what may be decided by them: reliability of each class, and decision curves."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from milkit.drawing import ACCENT, INK, LINES, MUTED, Drawn, blank, style, svg
from milkit.figure_text import with_interval

_COLUMNS = 3


def reliability(calibration: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> Drawn:
    """Observed share over predicted probability, a panel a class, with Wilson's interval of each bin.

    Args:
        calibration: By class, as in ``metrics.json``.
        classes: In the order of the panels.
    """
    columns, rows = min(_COLUMNS, len(classes)), ceil(len(classes) / _COLUMNS)
    with style("calibration"):
        figure = blank(0.5 + 3.2 * columns, 0.5 + 3.3 * rows)
        for number, name in enumerate(classes):
            axes = figure.add_subplot(rows, columns, number + 1)
            _panel(axes, calibration[name]["reliability"])
            axes.set_title(f"{name}\nslope {with_interval(calibration[name]['slope'])}", fontsize=10.5, loc="left")
            axes.set(xlabel="Predicted probability" if number + columns >= len(classes) else "")
            axes.set(ylabel="Observed share" if number % columns == 0 else "")
        return svg(figure, "calibration", "Observed share over predicted probability, of each class")


def decision_curves(curves: Mapping[str, Mapping[str, Any]]) -> Drawn:
    """Net benefit over the declared thresholds, a panel a class, beside treating everybody and nobody.

    Args:
        curves: By class, as in ``metrics.json``.
    """
    columns, rows = min(_COLUMNS, len(curves)), ceil(len(curves) / _COLUMNS)
    with style("decision-curves"):
        figure = blank(1.2 + 3.6 * columns, 1.2 + 3.0 * rows)
        for number, (name, curve) in enumerate(curves.items()):
            axes = figure.add_subplot(rows, columns, number + 1)
            thresholds, model, everybody, low, high = (
                np.array(curve[key], dtype=np.float64)
                for key in ("thresholds", "model", "everybody", "ci_low", "ci_high")
            )
            axes.fill_between(thresholds, low, high, color=ACCENT, alpha=0.18, linewidth=0)
            axes.plot(thresholds, model, color=ACCENT, linewidth=2, label="model, interval")
            axes.plot(thresholds, everybody, color=INK, linewidth=1.3, linestyle=LINES[1], label="act on everybody")
            axes.axhline(0, color=MUTED, linewidth=1.3, linestyle=LINES[2], label="act on nobody")
            top = float(np.nanmax([*high, *model, curve["prevalence"]]))
            axes.set(xlim=(thresholds[0], thresholds[-1]), ylim=(float(np.nanmin([-0.15 * top, *low])), 1.05 * top))
            axes.set_title(f"{name}, prevalence {100 * curve['prevalence']:.3g} %", fontsize=10.5, loc="left")
            axes.set(xlabel="Probability from which one acts", ylabel="Net benefit" if number % columns == 0 else "")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, 2 * columns), frameon=False)
        return svg(figure, "decision-curves", "Net benefit over the declared thresholds")


def _panel(axes: Axes, bins: Sequence[Mapping[str, float]]) -> None:
    predicted, observed, low, high = (
        np.array([part[key] for part in bins]) for key in ("predicted", "observed", "ci_low", "ci_high")
    )
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    axes.vlines(predicted, low, high, color=ACCENT, linewidth=1.6, alpha=0.55)
    axes.plot(predicted, observed, "o-", color=ACCENT, markersize=5, linewidth=1.2)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
