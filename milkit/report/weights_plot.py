"""How a patient's attention is spread over the cells: a small figure for each card, drawn by hand.

A figure of matplotlib costs a tenth of a second and 10 KB, which a report of hundreds of patients cannot afford.
"""

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

WIDTH, HEIGHT = 300, 60
_STEPS = 80
"""Points of the outline, which lie denser where the weights fall."""

Floats = npt.NDArray[np.float64]


def cells_with_half(weights: Floats) -> int:
    """The fewest cells that have half of the weight together; 0 of none."""
    if not len(weights):
        return 0
    shares = np.cumsum(np.sort(weights)[::-1])
    return int(np.searchsorted(shares, 0.5 * shares[-1] - 1e-9)) + 1


def weights_plot(weights: Floats) -> Markup:
    """The weights from the highest to the lowest, as SVG; its style is that of the page.

    Each cell is as wide as any other, and as high as its weight. The cells that have half of the weight together stand
    out; a line shows how high all would be if they weighed alike.
    """
    n = len(weights)
    if not n or not weights.max() > 0:
        return Markup()
    heights, half = np.sort(weights)[::-1] / weights.max(), cells_with_half(weights)
    alike = HEIGHT * (1 - float(weights.mean() / weights.max()))
    label = f"Weights of {n:,} cells from the highest to the lowest; half of the weight lies on {half:,}."
    return Markup(
        '<svg class="weights" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="half" d="{}"/><path class="rest" d="{}"/><path class="alike" d="M0 {:.1f}H{}"/></svg>'
    ).format(
        WIDTH, HEIGHT, label, _outline(heights, 0, half), _outline(heights, half, n), alike, WIDTH
    )  # fmt: skip


def _outline(heights: Floats, first: int, last: int) -> str:
    """Of the cells from ``first`` until ``last``: a step a cell, or a few where there are many."""
    n = len(heights)
    steps = np.unique(np.concatenate([np.arange(first, min(first + _STEPS // 2, last)),
                                      np.linspace(first, last, _STEPS // 2, endpoint=False).astype(int)]))  # fmt: skip
    if first == last:
        return ""
    parts = [f"H{WIDTH * step / n:.1f}V{HEIGHT * (1 - heights[step]):.1f}" for step in steps]
    return f"M{WIDTH * first / n:.1f} {HEIGHT}{''.join(parts)}H{WIDTH * last / n:.1f}V{HEIGHT}Z"
