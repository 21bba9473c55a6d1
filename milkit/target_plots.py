"""Figures of targets that are no classes: predicted numbers over true ones."""

import numpy as np
import pandas as pd

from milkit.drawing import ACCENT, MUTED, Drawn, style, subplots, svg


def scatter(patients: pd.DataFrame, title: str) -> Drawn:
    """The predicted number of each patient over the true one; on the dotted line both are the same.

    Args:
        patients: One row a patient: ``label`` and ``predicted``, means over the repeats.
        title: What the number is.
    """
    label, predicted = (patients[key].to_numpy(dtype=np.float64) for key in ("label", "predicted"))
    low, high = float(min(label.min(), predicted.min())), float(max(label.max(), predicted.max()))
    margin = 0.04 * (high - low or 1.0)
    ends = [low - margin, high + margin]
    with style("scatter"):
        figure, axes = subplots(4.6, 4.4)
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.plot(label, predicted, "o", color=ACCENT, markersize=5, alpha=0.6, markeredgewidth=0)
        axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"True {title}", ylabel=f"Predicted {title}")
        return svg(figure, "scatter", f"Predicted {title} over the true one, a point for each patient")
