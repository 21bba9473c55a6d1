"""The first three principal components of patch tokens as red, green and blue, fitted over all chosen cells together.

Patches of like features get like colours, in every picture of the set. The colours mean nothing of themselves, and
those of two sets cannot be compared. After the pictures of Oquab et al., arXiv:2304.07193, section 7.5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.errors import StoreError

Floats = npt.NDArray[np.floating[Any]]

_TAILS = (1.0, 99.0)
"""Percentiles of a component that become 0 and 1; what lies beyond is cut off."""
BLANK = 1.0
"""Of background patches: white."""


@dataclass(frozen=True, slots=True)
class Components:
    """Components of tokens.

    Attributes:
        scores: (n, rows, columns, 3) float64; of patches that the fit left out, too.
        explained: (3,) share of the fitted patches' variance.
        foreground: (n, rows, columns) the patches that were fitted.
    """

    scores: npt.NDArray[np.float64]
    explained: npt.NDArray[np.float64]
    foreground: npt.NDArray[np.bool_]

    @property
    def colours(self) -> npt.NDArray[np.float64]:
        """(n, rows, columns, 3) in [0, 1]; one scale for all cells, and white where a patch is background."""
        low, high = np.percentile(self.scores[self.foreground], _TAILS, axis=0)
        scaled = ((self.scores - low) / np.maximum(high - low, np.finfo(np.float64).tiny)).clip(0, 1)
        return np.where(self.foreground[..., None], scaled, BLANK)


def principal_components(tokens: Floats, *, without_background: bool = False) -> Components:
    """Project patch tokens on the three directions in which they differ most.

    The components are those of the singular value decomposition of the centred tokens; the largest weight of each is
    positive, so that equal tokens give equal pictures.

    Args:
        tokens: (n, rows, columns, dim).
        without_background: First fit on all patches and divide them by a threshold on the first component (Otsu 1979);
            then fit again on the side that has more of the pictures' centre than of their border.

    Raises:
        StoreError: There are fewer than four patches to fit, or fewer than three features.
    """
    foreground = np.ones(tokens.shape[:3], dtype=np.bool_)
    if without_background:
        foreground = _in_front(_fit(tokens, foreground).scores[..., 0])
    return _fit(tokens, foreground)


def _fit(tokens: Floats, foreground: npt.NDArray[np.bool_]) -> Components:
    dim, n = tokens.shape[-1], int(foreground.sum())
    if n < 4 or dim < 3:
        msg = f"{n} patches of {dim} features were left to compare, where four and three are needed; choose more cells."
        raise StoreError(msg)
    chosen = tokens[foreground]
    mean = chosen.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((dim, dim))
    for part in np.array_split(chosen, -(-n // 8192)):  # in parts: tokens of a large network fill the memory
        centred = part.astype(np.float64) - mean
        scatter += centred.T @ centred
    values, vectors = np.linalg.eigh(scatter)
    axes = vectors[:, [-1, -2, -3]]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1, 2]] < 0, -1, 1)
    scores = np.stack([(own.astype(np.float64) - mean) @ axes for own in tokens])
    explained = values[[-1, -2, -3]].clip(0) / max(values.sum(), np.finfo(np.float64).tiny)
    return Components(scores, explained, foreground)


def _in_front(first: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The side of the threshold that is more in the centre of the pictures than at their border."""
    above = first > _threshold(first.ravel())
    rows, columns = first.shape[1:]
    border = np.ones((rows, columns), dtype=np.bool_)
    border[1:-1, 1:-1] = False
    centre = np.zeros_like(border)
    centre[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4] = True
    return np.asarray(above if above[:, centre].mean() >= above[:, border].mean() else ~above)


def _threshold(values: npt.NDArray[np.float64]) -> float:
    """Otsu's: the middle of the gap that leaves most variance between its sides, from the values, not a histogram."""
    ordered = np.sort(values - values.mean())
    below = np.arange(1, len(ordered))
    between = np.cumsum(ordered)[:-1] ** 2 / (below * (len(ordered) - below))
    best = int(between.argmax())
    return float((ordered[best] + ordered[best + 1]) / 2 + values.mean())
