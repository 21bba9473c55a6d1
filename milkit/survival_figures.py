"""Figures of survival: Kaplan-Meier curves over the numbers at risk, the Brier score over time, and calibration."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from milkit.drawing import ACCENT, INK, LINES, MUTED, Drawn, blank, style, subplots, svg
from milkit.figure_text import with_interval


def kaplan_meier(curves: pd.DataFrame, at_risk: pd.DataFrame, result: Mapping[str, Any]) -> Drawn:
    """A curve a group with its confidence band and marks of censoring; below, how many are still followed.

    Args:
        curves: ``curves.csv``.
        at_risk: ``at_risk.csv``.
        result: With ``log_rank``, ``horizon`` and ``level``.
    """
    names = list(dict.fromkeys(curves["group"]))
    colours, height = sns.color_palette("colorblind", 10), 0.6 + 0.24 * len(names)
    with style("kaplan-meier"):
        figure = blank(6.6, 4.1 + height + 0.24 * ceil(len(names) / 2))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.6, height])
        for number, group in enumerate(names):
            colour, dashes = colours[number % 10], LINES[(number // 10 + number) % len(LINES)]
            _curve(upper, curves[curves["group"] == group], str(group), colour, dashes)
        if at_risk["time"].max() >= result["horizon"]:
            upper.axvline(result["horizon"], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        upper.set(ylim=(-0.02, 1.03), xlabel="Time", ylabel="Share without event", yticks=(0, 0.25, 0.5, 0.75, 1))
        upper.set_title(_log_rank(result), fontsize=10.5, loc="left")
        upper.tick_params(labelbottom=True)
        handles, labels = upper.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, handlelength=2.6)
        _risk_table(lower, at_risk, names)
        upper.set_xlim(-0.02 * curves["time"].max(), 1.03 * curves["time"].max())
        return svg(figure, "kaplan-meier", "Kaplan-Meier curves of the groups, with numbers at risk")


def brier_over_time(table: pd.DataFrame, scores: Mapping[str, Any]) -> Drawn:
    """The Brier score of the predicted survival, beside that of one curve for everybody.

    Args:
        table: ``brier.csv``.
        scores: The ``brier`` of the result, whose integrals the legend quotes.
    """
    with style("brier"):
        figure, axes = subplots(5.2, 4.0)
        for key, title, colour, dashes in (
            ("reference", "one curve for everybody", INK, LINES[1]),
            ("model", "predicted", ACCENT, LINES[0]),
        ):
            label = f"{title}: {with_interval(scores[key])}"
            axes.plot(table["time"], table[key], color=colour, linestyle=dashes, linewidth=2, label=label)
        top = float(np.nanmax(table[["model", "reference"]].to_numpy()))
        axes.set(xlim=(0, table["time"].max()), ylim=(0, max(0.27, 1.05 * top)), xlabel="Time", ylabel="Brier score")
        figure.legend(loc="outside lower center", frameon=False, title="Mean up to the horizon", handlelength=2.6)
        return svg(figure, "brier", "Brier score over time, of the predicted survival and of one curve for everybody")


def calibration_at_horizon(groups: pd.DataFrame, horizon: float) -> Drawn:
    """Observed share with an event over the predicted one, of groups of patients of similar prediction.

    Args:
        groups: ``calibration.csv``.
        horizon: The time that both are of.
    """
    with style("survival-calibration"):
        figure, axes = subplots(4.4, 4.5)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.vlines(groups["predicted"], groups["ci_low"], groups["ci_high"], color=ACCENT, linewidth=1.6, alpha=0.55)
        axes.plot(groups["predicted"], groups["observed"], "o", color=ACCENT, markersize=6)
        for predicted, observed, n in groups[["predicted", "observed", "n"]].dropna().itertuples(index=False):
            axes.annotate(f"{n}", (predicted, observed), xytext=(6, -12), textcoords="offset points", color=MUTED)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set(xlabel="Predicted share with event", ylabel="Observed (Kaplan-Meier)")
        axes.set_title(f"Up to time {horizon:g}; patients a group", fontsize=10.5, loc="left")
        return svg(figure, "survival-calibration", f"Observed and predicted share with event up to time {horizon:g}")


def _curve(axes: Axes, curve: pd.DataFrame, name: str, colour: Any, dashes: Any) -> None:
    time, survival = curve["time"].to_numpy(), curve["survival"].to_numpy()
    low, high = (curve[key].to_numpy(dtype=np.float64) for key in ("ci_low", "ci_high"))
    axes.fill_between(time, low, high, step="post", color=colour, alpha=0.12, linewidth=0)
    label = f"{name}: {int(curve['events'].sum())} events in {int(curve['at_risk'].iloc[0])}"
    axes.step(time, survival, where="post", color=colour, linestyle=dashes, linewidth=2, label=label)
    censored = curve["censored"].to_numpy() > 0
    axes.plot(time[censored], survival[censored], "|", color=colour, markersize=7)


def _risk_table(axes: Axes, at_risk: pd.DataFrame, names: list[Any]) -> None:
    for row, name in enumerate(names):
        for time, count in at_risk.loc[at_risk["group"] == name, ["time", "at_risk"]].itertuples(index=False):
            axes.text(time, row, f"{count:g}", ha="center", va="center")
    axes.set(ylim=(len(names) - 0.4, -0.6), xticks=sorted(set(at_risk["time"])))
    axes.set_yticks(range(len(names)), [str(name) for name in names])
    axes.set_title("Still followed", fontsize=10.5, loc="left")
    axes.tick_params(length=0, labelbottom=False)
    axes.tick_params(axis="y", pad=14)
    for side in axes.spines.values():
        side.set_visible(False)


def _log_rank(result: Mapping[str, Any]) -> str:
    found, level = result["log_rank"], f"{100 * result['level']:g} % bands"
    if not found:
        return level
    p = "p < 0.001" if found["p"] < 0.001 else f"p = {found['p']:.3f}"
    return f"Log-rank {p}; {level}"
