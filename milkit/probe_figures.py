"""Figures of `milkit probe` and `milkit atlas`, drawn as ``milkit.drawing`` says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from milkit.drawing import ACCENT, INK, LINES, MUTED, blank, style, subplots, svg

Floats = npt.NDArray[np.floating[Any]]


def few_shot_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], chance: float) -> str:
    """Balanced accuracy by training cells a class: a colour an encoder, a dash a classifier, a band over the draws.

    Args:
        curves: Of each encoder, the points of ``milkit.probe.few_shot.summarise_draws``.
        chance: What guessing reaches.
    """
    colours = sns.color_palette("colorblind", max(1, len(curves)))
    classifiers = sorted({point["classifier"] for points in curves.values() for point in points})
    shots = sorted({point["shots"] for points in curves.values() for point in points})
    with style("few-shot"):
        figure, axes = subplots(5.4, 4.0 + 0.24 * len(curves) * len(classifiers))
        for colour, (name, points) in zip(colours, curves.items(), strict=True):
            for dashes, classifier in zip(LINES, classifiers, strict=False):
                own = [point for point in points if point["classifier"] == classifier]
                at = [point["shots"] for point in own]
                mean, low, high = ([p["balanced_accuracy"][key] for p in own] for key in ("mean", "low", "high"))
                axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
                label = f"{name}, {classifier}"
                axes.plot(at, mean, marker="o", markersize=4, color=colour, linestyle=dashes, linewidth=2, label=label)
        axes.axhline(chance, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="chance")
        axes.set(xscale="log", ylim=(0, 1.01), xlabel="Training cells of each class", ylabel="Balanced accuracy")
        axes.set_xticks(shots, [str(number) for number in shots])
        axes.minorticks_off()
        figure.legend(loc="outside lower center", frameon=False, handlelength=3)
        return svg(figure, "few-shot", "Balanced accuracy by the number of training cells of each class")


def source_scatter(panels: Mapping[str, tuple[Floats, Floats]], sources: Sequence[str], of_cell: Sequence[str]) -> str:
    """Cells on their first two principal components, a colour a source; one panel for each state of the features.

    Args:
        panels: By title, the components (n, 2) and the share of the variance that each explains (2,).
        sources: In the order of the legend.
        of_cell: (n,) the source of each cell.
    """
    colours = sns.color_palette("colorblind", max(1, len(sources)))
    owners = np.asarray(of_cell)
    with style("sources"):
        figure = blank(4.4 * len(panels), 4.3 + 0.2 * len(sources))
        for number, (title, (points, shares)) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), number + 1)
            for colour, name in zip(colours, sources, strict=True):
                own = points[owners == name]
                axes.scatter(own[:, 0], own[:, 1], s=7, color=colour, alpha=0.5, linewidths=0, label=name)
            axes.set(title=title, xticks=[], yticks=[])
            axes.set(xlabel=f"Component 1 ({100 * shares[0]:.0f} %)", ylabel=f"Component 2 ({100 * shares[1]:.0f} %)")
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", frameon=False, markerscale=2.5, ncols=3)
        return svg(figure, "sources", "Cells on two principal components, by source")


class Bars(NamedTuple):
    """One measure before and after standardisation: ``estimate``, with ``ci_low`` and ``ci_high`` where there are."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    chance: float | None


def batch_bars(rows: Mapping[str, Bars]) -> str:
    """Each measure as a pair of bars, with intervals, and its chance level as a dashed line."""
    with style("batch-effects"):
        figure, axes = subplots(6.2, 1.5 + 0.6 * len(rows))
        for row, bars in enumerate(rows.values()):
            for figures, place, colour in ((bars.before, row - 0.18, ACCENT), (bars.after, row + 0.18, MUTED)):
                axes.barh(place, figures["estimate"], height=0.32, color=colour)
                if "ci_low" in figures:
                    axes.plot([figures["ci_low"], figures["ci_high"]], [place, place], color=INK, linewidth=1.5)
            if bars.chance is not None:
                axes.plot([bars.chance] * 2, [row - 0.42, row + 0.42], color=INK, linewidth=1.2, linestyle=LINES[1])
        lowest = min([0.0, *(min(bars.before["estimate"], bars.after["estimate"]) for bars in rows.values())])
        axes.set(xlim=(lowest - 0.02, 1.02), ylim=(len(rows) - 0.4, -0.6), xlabel="Value")
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(axis="y", length=0)
        handles = [Patch(color=ACCENT, label="as extracted"), Patch(color=MUTED, label="each source standardised")]
        chance = Line2D([], [], color=INK, linewidth=1.2, linestyle=LINES[1], label="chance")
        figure.legend(handles=[*handles, chance], loc="outside lower center", ncols=3, frameon=False)
        return svg(figure, "batch-effects", "Batch effects before and after standardisation of each source")
