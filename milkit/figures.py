"""Figures of a report. Each function draws one and returns it as SVG text, the same bytes for the same numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from milkit.drawing import ACCENT, INK, LINES, MUTED, Drawn, style, subplots, svg
from milkit.figure_text import with_interval

Metric = Mapping[str, Any]
"""A figure of ``metrics.json``: ``estimate``, ``ci_low``, ``ci_high``, ``folds``; None where undefined."""

Floats = npt.NDArray[np.float64]

_JUMP = 1e-9
"""Less than a step of a false positive rate, so that a curve is read just before and just after its vertical parts."""


def confusion_matrix(
    labels: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    *,
    repeats: int = 1,
) -> Drawn:
    """Patients by label (rows) and prediction (columns): counts, and per cent of the row, which is also the shade.

    With several repeats, a patient stands in ``labels`` and ``predicted`` once a repeat, and counts are means over the
    repeats, with a decimal; the per cent of the diagonal are the mean recalls.
    """
    position = {label: number for number, label in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, ([position[label] for label in labels], [position[label] for label in predicted]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    digits = 1 if repeats > 1 else 0
    texts = [
        [f"{n / repeats:.{digits}f}\n{100 * share:.0f} %" for n, share in zip(*row, strict=True)]
        for row in zip(counts, shares, strict=True)
    ]
    side = 2.4 + 0.62 * len(classes)
    with style("confusion-matrix"):
        figure, axes = subplots(side + 0.6, side)
        sns.heatmap(
            shares, annot=np.array(texts), fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True,
            linewidths=1.5, linecolor="white", xticklabels=list(classes), yticklabels=list(classes), ax=axes,
        )  # fmt: skip
        axes.set(xlabel="Predicted", ylabel="Label")
        axes.tick_params(length=0)
        axes.set_xticks(axes.get_xticks(), list(classes), rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(axes.get_yticks(), list(classes), rotation=0)
        return svg(figure, "confusion-matrix", "Confusion matrix: patients by label and predicted class")


def roc_curves(
    repeats: Sequence[tuple[Sequence[str], Floats]], classes: Sequence[str], per_class: Mapping[str, Metric]
) -> Drawn:
    """One ROC curve a class against the rest, out-of-fold patients pooled; the mean curve of several repeats.

    Args:
        repeats: Of each, the patients' labels and probabilities (patients, classes).
        classes: In the order of the columns.
        per_class: The metrics' ``per_class``, whose AUROC and interval the legend quotes.
    """
    colours = sns.color_palette("colorblind", 10)
    with style("roc-curves"):
        figure, axes = subplots(4.9, 4.5 + 0.24 * len(classes))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for number, name in enumerate(classes):
            truths = [np.asarray(labels) == name for labels, _ in repeats]
            if all(truth.any() and not truth.all() for truth in truths):
                scores = [probabilities[:, number] for _, probabilities in repeats]
                false, true = mean_roc(list(zip(truths, scores, strict=True)))
                dashes = LINES[(number // 10 + number) % len(LINES)]
                label = f"{name}: {with_interval(per_class.get(name, {}).get('auroc', {}))}"
                axes.plot(false, true, color=colours[number % 10], linestyle=dashes, linewidth=2, label=label)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="1 - specificity", ylabel="Sensitivity", aspect="equal")
        figure.legend(loc="outside lower center", frameon=False, title="AUROC against the rest", handlelength=2.6)
        return svg(figure, "roc-curves", "ROC curves, each class against the rest")


def mean_roc(repeats: Sequence[tuple[npt.NDArray[np.bool_], Floats]]) -> tuple[Floats, Floats]:
    """False and true positive rates of the vertically averaged ROC curve, whose area is the mean of the areas.

    Args:
        repeats: Of each, who is positive and the scores.
    """
    from sklearn.metrics import roc_curve

    curves = [roc_curve(positive, scores, drop_intermediate=False)[:2] for positive, scores in repeats]
    grid = np.unique(np.concatenate([false for false, _ in curves]))
    sides = np.stack([grid - _JUMP, grid + _JUMP], axis=1).ravel()  # a curve is vertical where negatives are passed
    mean: Floats = np.mean([np.interp(sides, false, true) for false, true in curves], axis=0)
    return np.repeat(grid, 2), mean


def class_results(per_class: Mapping[str, Metric], classes: Sequence[str]) -> Drawn:
    """Forest plot: recall of each class with its interval, and the number of its patients."""
    rows = {f"{name} (n = {per_class.get(name, {}).get('n', 0)})": per_class.get(name, {}) for name in classes}
    return _forest("class-results", "Recall", {name: row.get("recall", {}) for name, row in rows.items()}, {})


def metric_folds(metrics: Mapping[str, Metric], chance: Mapping[str, float]) -> Drawn:
    """Pooled estimates with intervals, and the values of single folds as open dots.

    Args:
        metrics: By the name to show.
        chance: What guessing reaches, by the same names, where there is such a number.
    """
    return _forest("metric-folds", "Value", metrics, chance)


def _forest(name: str, quantity: str, metrics: Mapping[str, Metric], chance: Mapping[str, float]) -> Drawn:
    with style(name):
        figure, axes = subplots(5.2, 1.3 + 0.62 * len(metrics))
        for row, (key, metric) in enumerate(metrics.items()):
            estimate, low, high = _numbers(metric)
            folds = [value for value in metric.get("folds") or () if value is not None]
            axes.plot([low, high], [row, row], color=ACCENT, linewidth=2.5, solid_capstyle="butt", zorder=2)
            axes.plot([estimate], [row], "D", color=ACCENT, markersize=7, zorder=3)
            axes.plot(
                folds,
                np.full(len(folds), row + 0.27),
                "o",
                color="none",
                markeredgecolor=MUTED,
                markersize=5,
                zorder=1,
            )
            if key in chance:
                axes.plot([chance[key]] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1, linestyle=(0, (2, 2)))
        axes.set(xlim=(-0.02, 1.02), ylim=(len(metrics) - 0.45, -0.55), xlabel=quantity)
        names = [f"{key}\n{with_interval(metric)}" for key, metric in metrics.items()]
        axes.set_yticks(range(len(metrics)), names, linespacing=1.4)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#e3e7ec", linewidth=0.8)
        axes.set_axisbelow(True)
        _forest_legend(figure, axes, with_chance=bool(chance))
        return svg(figure, name, f"{quantity} with intervals, and the values of single folds")


def _forest_legend(figure: Figure, axes: Axes, *, with_chance: bool) -> None:
    axes.plot([], [], "D-", color=ACCENT, linewidth=2.5, markersize=6, label="all patients, interval")
    axes.plot([], [], "o", color="none", markeredgecolor=MUTED, markersize=5, label="one fold")
    if with_chance:
        axes.plot([], [], color=INK, linewidth=1, linestyle=(0, (2, 2)), label="chance")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)


def _numbers(metric: Metric) -> tuple[float, float, float]:
    values = [metric.get(key) for key in ("estimate", "ci_low", "ci_high")]
    estimate, low, high = (float("nan") if value is None else float(value) for value in values)
    return estimate, low, high
