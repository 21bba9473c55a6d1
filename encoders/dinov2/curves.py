"""The picture of a training: its figures over the iterations, a panel for what belongs together."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from encoders.dinov2.losses import DINO_FACTOR
from encoders.dinov2.monitors import SCORE
from encoders.dinov2.pretrain_settings import PretrainSettings
from milkit.drawing import INK, LINES, blank, style, svg
from milkit.runs import write_bytes, write_text

FEW = 60
"""Up to so many figures are drawn as they are, each with a dot."""

BINS = 300
"""So many points have curves of more; behind each, fainter, is a bar from the least to the largest of its figures."""

WINDOWS = 30
"""These curves are smoothed by a running mean over this part of their figures."""

COLUMNS = 3
"""Panels beside each other."""


class _Panel(NamedTuple):
    title: str
    names: Mapping[str, str]
    """From the table's columns to the words of the legend."""
    scale: str = "linear"
    limits: tuple[float | None, float | None] = (None, None)
    smooth: bool = True


PANELS = (
    _Panel(
        "Cross entropies, nats",
        {"dino": "class tokens", "ibot": "hidden patches", "target_entropy": "class targets' entropy"},
    ),
    _Panel("KoLeo: -log distance to the nearest", {"koleo": "class tokens"}),
    _Panel("Hierarchical loss of the labels", {"supervised": "labelled cells"}, limits=(0, None)),
    _Panel("Balanced accuracy, validation", {"knn_20": "20 nearest", "knn_1": "nearest"}, limits=(0, 1.02)),
    _Panel("Height of mistakes, validation", {"height": "20 nearest"}, limits=(0, None)),
    _Panel("Hierarchical F1, validation", {"path_f1": "20 nearest"}, limits=(0, 1.02)),
    _Panel("RankMe, validation: dimensions used", {"rank_me": "class tokens"}),
    _Panel("Evenness of the prototypes' use", {"centre_entropy": "student"}, limits=(0, 1.02)),
    _Panel(
        "Norms of the gradients",
        {
            "gradient_backbone": "backbone",
            "gradient_dino_head": "class tokens' head",
            "gradient_ibot_head": "patches' head",
            "gradient_type_head": "labels' head",
        },
        scale="log",
    ),
    _Panel("Learning rate", {"learning_rate": "backbone"}, limits=(0, None), smooth=False),
    _Panel("Images a second", {"images_per_second": "training"}, limits=(0, None)),
)


def draw_curves(history: Path, settings: PretrainSettings | None = None) -> None:
    """Draw a ``history.csv`` beside it, as ``curves.svg`` and ``curves.png``.

    Panels without figures are left out; without any panel there is no picture.

    With the training's settings, the cross entropies are those of one class token and of one hidden patch, without the
    factors that they have as losses, and stand between two lines: ln K, what a student that has learned nothing says of
    K prototypes; and the least of the class tokens', ln(K / 2B), since targets that use all prototypes equally cannot
    be more certain with 2B crops.
    """
    table = pd.read_csv(history)
    lines: dict[str, float] = {}
    if settings:
        k, crops = settings.heads.prototypes, 2 * settings.batch_size
        lines = {f"ln K = {math.log(k):.2f}": math.log(k)}
        lines |= {f"ln(K / 2B) = {math.log(k / crops):.2f}": math.log(k / crops)} if k > crops else {}
        shares = {"dino": DINO_FACTOR, "ibot": settings.mask_probability}
        table = table.assign(**{name: table[name] / share for name, share in shares.items() if name in table and share})
    panels = [panel for panel in PANELS if any(len(_points(table, name)) for name in panel.names)]
    if not panels:
        return
    columns, rows = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    with style("pretrain-curves"):
        figure = blank(4.0 * columns, 0.3 + 2.9 * rows)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, number + 1)
            _draw(axes, table, panel, lines if panel is PANELS[0] else {})
        figure.supxlabel("Iterations", fontsize=10.5)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=130, metadata={"Software": None})
        write_bytes(history.with_name("curves.png"), png.getvalue())
        text = svg(figure, "pretrain-curves", "Figures of a training over its iterations")
        write_text(history.with_name("curves.svg"), text)


def _draw(axes: Axes, table: pd.DataFrame, panel: _Panel, lines: Mapping[str, float]) -> None:
    colours = sns.color_palette("colorblind", 10)
    for number, (name, words) in enumerate(panel.names.items()):
        points = _points(table, name)
        look = {"color": colours[number], "linestyle": LINES[number % len(LINES)], "linewidth": 1.8}
        if len(points) > FEW:
            _curve(axes, points, look | {"label": words}, window=len(points) // WINDOWS if panel.smooth else 1)
        elif len(points):
            axes.plot(points.index, points, marker="o", markersize=3.5, label=words, **look)
        if name == SCORE and len(points):  # a ring around the best teacher's
            best = points[points == points.max()].iloc[:1]
            axes.plot(best.index, best, "o", color="none", markeredgecolor=INK, markersize=9)
    for words, height in lines.items():
        axes.axhline(height, color=INK, linewidth=1, linestyle=(0, (2, 2)))
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(words, (1, height), (0, 2), ha="right", va="bottom", fontsize=9, color=INK, **place)
    axes.set_title(panel.title, loc="left", fontsize=10.5)
    axes.set(xlim=(0, max(1, int(table["step"].max()))), yscale=panel.scale)
    axes.set_ylim(*panel.limits)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if panel.scale == "log":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y", color="#e3e7ec", linewidth=0.8)
    axes.set_axisbelow(True)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.1), "ncols": 2, "columnspacing": 1.0}
        axes.legend(frameon=False, fontsize=8.5, handlelength=2.2, **below)


def _curve(axes: Axes, points: "pd.Series[float]", look: dict[str, Any], window: int) -> None:
    bins = np.arange(len(points)) * min(BINS, len(points)) // len(points)
    smooth = points.rolling(window, center=True, min_periods=1).mean()
    at = points.index.to_series().groupby(bins).mean()
    low, high = points.groupby(bins).min(), points.groupby(bins).max()
    axes.fill_between(at, low, high, color=look["color"], alpha=0.2, linewidth=0)
    axes.plot(at, smooth.groupby(bins).mean(), **look)


def _points(table: pd.DataFrame, name: str) -> "pd.Series[float]":
    """The finite figures of one column by step; none where the table does not have it."""
    if name not in table:
        return pd.Series(dtype=float)
    points: pd.Series[float] = table.set_index("step")[name]
    return points[np.isfinite(points)]
