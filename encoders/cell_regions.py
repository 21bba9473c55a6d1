"""Where the cell in the middle of an image lies: nucleus, cytoplasm and background, found without learned weights.

The image is turned into optical density against its own background, so that illumination cancels out (Ruifrok and
Johnston, 2001). Chromatin absorbs red and green light more than blue; red cells and eosinophilic cytoplasm absorb green
and blue. The nucleus is the dark class of that channel near the centre. The cell is what can be seen from the nucleus's
centre before the background begins, with a smoothed outline, so that touching red cells are cut off.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MAX_DENSITY = 2.0
"""Optical densities are cut here: 1 % of the light, where 8-bit images have no levels left."""

_DARKEST = np.float32(1 / 255)
_BINS = 64
_FAINTEST = 0.08
"""Less than this density is no chromatin, whatever Otsu's threshold says of an empty image."""

_TWO_CLASSES = 0.72
"""A split into two classes explains at least this share of the variance: one of a bell 0.64, of a flat spread 0.75."""

_ANGLES = 64
_WRAPPED = np.arange(_ANGLES + 1) % _ANGLES
_RED, _GREEN, _BLUE = range(3)


@dataclass(frozen=True, slots=True)
class CellRegions:
    """One image and its regions; arrays of (H, W) unless stated.

    Attributes:
        density: Optical density of red, green and blue light: (3, H, W), at least 0.
        background_colour: What is taken for the empty slide: (3,), in [0, 1].
        nucleus: The nucleus in the middle, possibly of several lobes; empty where nothing absorbs red light.
        cell: Nucleus and cytoplasm.
        radius: Distance from the cell's centre as a share of the outline's in that direction: below 1 inside the cell.
    """

    density: Array
    background_colour: Array
    nucleus: Mask
    cell: Mask
    radius: Array

    @property
    def cytoplasm(self) -> Mask:
        """The cell without its nucleus."""
        return self.cell & ~self.nucleus

    def cropped(self, margin: int) -> "CellRegions":
        """The part around the cell, with so many pixels on each side where the image has them."""
        rows, columns = np.flatnonzero(self.cell.any(axis=1)), np.flatnonzero(self.cell.any(axis=0))
        top, left = max(int(rows[0]) - margin, 0), max(int(columns[0]) - margin, 0)
        box = (slice(top, int(rows[-1]) + 1 + margin), slice(left, int(columns[-1]) + 1 + margin))
        part = np.ascontiguousarray(self.density[:, box[0], box[1]])
        return CellRegions(part, self.background_colour, self.nucleus[box], self.cell[box], self.radius[box])


def find_regions(image: Array) -> CellRegions:
    """Find the regions of one RGB image (3, H, W) in [0, 1]; any image has an answer, if a meaningless one."""
    density, background_colour = optical_density(image)
    smooth = ndimage.gaussian_filter(density, (0, 1, 1), truncate=3)
    nucleus = _nucleus(smooth)
    cell, radius = _cell(smooth, nucleus)
    return CellRegions(density, background_colour, nucleus, cell, radius)


def optical_density(image: Array) -> tuple[Array, Array]:
    """-log10(light / light of the background): (3, H, W) -> (3, H, W) and the background's colour (3,).

    The background is the mean colour of the brightest tenth of the pixels; every third one is looked at.
    """
    pixels = np.maximum(image, _DARKEST).reshape(3, -1)
    brightness = pixels[:, ::3].sum(axis=0)
    tenth = len(brightness) // 10 + 1
    colour: Array = pixels[:, ::3][:, np.argpartition(brightness, -tenth)[-tenth:]].mean(axis=1)
    density = np.log10(colour)[:, None] - np.log10(pixels)
    return np.clip(density, 0, MAX_DENSITY, out=density).reshape(image.shape), colour


def otsu(values: Array) -> float:
    """The threshold that splits values into the two classes with the least spread within (Otsu, 1979)."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if high - low < 1e-6:
        return high
    bins = ((values - low) * np.float32((_BINS - 1e-3) / (high - low))).astype(np.intp)
    counts = np.bincount(bins.ravel(), minlength=_BINS)
    centres = np.arange(_BINS)
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return low + (1 + int(np.nanargmax(between[:-1]))) * (high - low) / _BINS


def _nucleus(smooth: Array) -> Mask:
    chromatin = smooth[_RED] + smooth[_GREEN] - smooth[_BLUE]
    height, width = chromatin.shape
    distance, closeness = _from_centre(height, width)
    central = chromatin[distance < 0.45]
    threshold = max(otsu(central), _FAINTEST)
    threshold = _raise_over_cytoplasm(central[central > threshold], threshold)
    labels, n = ndimage.label(chromatin > threshold)
    if n == 0:
        return np.zeros((height, width), dtype=bool)
    # The lobes of one nucleus lie together around the centre; what lies at the rim belongs to neighbours.
    areas = np.bincount(labels.ravel(), minlength=n + 1).astype(np.float64)
    nearness = np.bincount(labels.ravel(), closeness.ravel(), minlength=n + 1)
    nearness[0] = 0
    keep = (nearness > 0.1 * nearness.max()) & (nearness > 0.15 * areas) & (areas > 0.001 * labels.size)
    keep[int(nearness.argmax())] = True
    keep[0] = False
    return _filled(keep[labels])


def _filled(mask: Mask) -> Mask:
    """The mask without holes: what is not connected to its bounding box's outside belongs to it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    labels, _ = ndimage.label(np.pad(~mask[box], 1, constant_values=True))
    filled = mask.copy()
    filled[box] = labels[1:-1, 1:-1] != labels[0, 0]
    return filled


@functools.lru_cache(maxsize=4)
def _from_centre(height: int, width: int) -> tuple[Array, Array]:
    """Distance from the image's centre, 0.5 in the middle of an edge, and a bell over it: (H, W) each."""
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot((rows + 0.5) / height - 0.5, (columns + 0.5) / width - 0.5).astype(np.float32)
    return distance, np.exp(-((distance / 0.22) ** 2))


def _raise_over_cytoplasm(dark: Array, threshold: float) -> float:
    """Where basophilic cytoplasm absorbs red light too, the dark pixels fall into two classes: take the darker."""
    if dark.size < 50:
        return threshold
    split = otsu(dark)
    upper = dark > split
    share = float(upper.mean())
    if not 0.15 < share < 0.85:
        return threshold
    gap = float(dark[upper].mean() - dark[~upper].mean())
    explained = share * (1 - share) * gap**2 / max(float(dark.var()), 1e-12)
    return split if explained > _TWO_CLASSES and gap > 0.5 * threshold else threshold


def _cell(smooth: Array, nucleus: Mask) -> tuple[Mask, Array]:
    height, width = nucleus.shape
    foreground = smooth[_GREEN] > np.clip(0.3 * otsu(smooth[_GREEN]), 0.03, 0.3)  # even pale cytoplasm absorbs green
    rows, columns = np.nonzero(nucleus) if nucleus.any() else (np.array([height / 2]), np.array([width / 2]))
    row, column = float(rows.mean()), float(columns.mean())
    angles = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    steps = np.arange(0.0, 0.75 * max(height, width), 1.0)
    at_rows = np.clip(np.rint(row + np.outer(np.sin(angles), steps)), 0, height - 1).astype(np.intp)
    at_columns = np.clip(np.rint(column + np.outer(np.cos(angles), steps)), 0, width - 1).astype(np.intp)
    own = nucleus[at_rows, at_columns]
    nuclear = np.where(own.any(axis=1), own.shape[1] - own[:, ::-1].argmax(axis=1), 0)  # last step inside the nucleus
    outside = ~foreground[at_rows, at_columns] & (steps[None] >= nuclear[:, None])
    reach = np.where(outside.any(axis=1), outside.argmax(axis=1), len(steps)).astype(np.float32)
    smoothed = ndimage.median_filter(np.minimum(reach, 1.3 * np.median(reach)), 7, mode="wrap")
    outline = np.maximum(ndimage.gaussian_filter1d(smoothed, 1.0, mode="wrap"), 1.0)
    down, right = np.ogrid[:height, :width]
    down, right = (down - row).astype(np.float32), (right - column).astype(np.float32)
    fine = np.interp(
        np.arange(-512, 513), np.arange(-512, 513, 1024 // _ANGLES), np.roll(outline, _ANGLES // 2)[_WRAPPED]
    )
    turn = (np.arctan2(down, right) * np.float32(512 / np.pi) + 512.5).astype(np.intp)  # 0 … 1024 for -π … π
    radius = np.sqrt(down * down + right * right) / fine.astype(np.float32)[turn]
    return (radius < 1) | nucleus, radius
