"""Outlines of cells and nuclei as signed distances in µm (negative inside), and the noise that textures them.

Every function takes the field's coordinates and gives an array of the field's shape. Smooth edges come from turning a
distance into coverage over the width that the microscope would blur it to, so nothing is drawn larger and reduced.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

PIXELS = 144
"""Side of an image, as AML-Hehr publishes them."""
MICRONS = 25.0
"""Side of the field that it shows."""
PIXEL = MICRONS / PIXELS

Field = npt.NDArray[np.float32]
"""One value for each pixel, (144, 144)."""
NOISE_SCALES = (0.8, 1.6, 3.2, 8.0)
"""Correlation lengths of the noise, in px."""


@lru_cache(maxsize=1)
def grid() -> tuple[Field, Field]:
    """The coordinates x (right) and y (down) of all pixels, in µm from the centre."""
    axis = ((np.arange(PIXELS) - (PIXELS - 1) / 2) * PIXEL).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


def noise(scale: float, rng: np.random.Generator) -> Field:
    """Smooth noise of mean 0 and spread 1 with one of ``NOISE_SCALES``: a random window of a fixed tile, turned."""
    tile = _tile(scale)
    top, left = rng.integers(0, tile.shape[0] - PIXELS, 2)
    window = tile[top : top + PIXELS, left : left + PIXELS]
    window = window.T if rng.random() < 0.5 else window
    return window[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]


@lru_cache(maxsize=len(NOISE_SCALES))
def _tile(scale: float) -> Field:
    rng = np.random.default_rng(NOISE_SCALES.index(scale))
    tile = gaussian_filter(rng.standard_normal((640, 640), dtype=np.float32), scale, mode="wrap")
    return np.asarray((tile - tile.mean()) / tile.std(), dtype=np.float32)


def cover(distance: Field, softness: float = 0.35) -> Field:
    """Coverage from 0 (outside) to 1 (inside) across an edge that is ``softness`` µm wide."""
    inside = np.clip(0.5 - distance / np.float32(softness), 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), dtype=np.float32)


def disc(x: Field, y: Field, centre: tuple[float, float], radius: float) -> Field:
    """Distance from a disc."""
    return np.asarray(np.hypot(x - np.float32(centre[0]), y - np.float32(centre[1])) - np.float32(radius))


def capsule(x: Field, y: Field, ends: tuple[float, float, float, float], radius: float) -> Field:
    """Distance from a thick line between (x0, y0) and (x1, y1)."""
    x0, y0, x1, y1 = (np.float32(value) for value in ends)
    along_x, along_y = x1 - x0, y1 - y0
    length = max(float(along_x**2 + along_y**2), 1e-6)
    place = np.clip(((x - x0) * along_x + (y - y0) * along_y) / np.float32(length), 0, 1)
    return np.asarray(np.hypot(x - x0 - place * along_x, y - y0 - place * along_y) - np.float32(radius))


def join(first: Field, second: Field, width: float) -> Field:
    """Union of two shapes, with the corner between them filled over ``width`` µm."""
    overlap = np.maximum(np.float32(width) - np.abs(first - second), 0)
    return np.asarray(np.minimum(first, second) - overlap * overlap * np.float32(0.25 / width))


def cut(shape: Field, hole: Field, width: float) -> Field:
    """What is left of ``shape`` without ``hole``, with edges rounded over ``width`` µm."""
    return -join(-shape, hole, width)


def blob(x: Field, y: Field, radius: float, unevenness: float, rng: np.random.Generator) -> Field:
    """A rounded body: an ellipse whose outline swings by about ``unevenness`` of the radius."""
    z = (x + 1j * y).astype(np.complex64)
    size = np.abs(z) + np.float32(1e-6)
    z /= size
    edge = np.zeros_like(x)
    power = z
    for wave in range(2, 6):
        power = power * z
        swing = rng.normal(0, unevenness * 2 / wave**1.3) * np.exp(2j * np.pi * rng.random())
        edge += (power * np.complex64(swing)).real
    return np.asarray(size - np.float32(radius) * (1 + np.clip(edge, -0.3, 0.3)))


Shape = Callable[[Field, Field, float, np.random.Generator], Field]


def round_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """Round to oval, in some cells a little indented."""
    body = blob(x, y, radius, 0.045, rng)
    if rng.random() < 0.35:
        angle = rng.uniform(0, 2 * np.pi)
        reach = radius * rng.uniform(1.45, 1.7)
        body = cut(body, disc(x, y, (reach * np.cos(angle), reach * np.sin(angle)), radius * 0.7), 1.6)
    return body


def notched_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """Round with a shallow notch on the side of the cytoplasm (+x)."""
    depth = rng.uniform(0.1, 0.35)
    hole = disc(x, y, (radius * (1.7 - depth), radius * rng.normal(0, 0.15)), radius * 0.7)
    return cut(blob(x, y, radius, 0.045, rng), hole, 1.6)


def kidney_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """Indented by less than half of its width, as in a metamyelocyte."""
    bend = rng.uniform(0.55, 0.8) * radius
    return _bean(x, y, radius * 0.62, bend, rng)


def folded_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """Horseshoe, kidney or lobulated, as in a monocyte."""
    if rng.random() < 0.45:
        return _bean(x, y, radius * rng.uniform(0.62, 0.75), radius * rng.uniform(0.6, 0.85), rng)
    body = blob(x, y, radius, 0.075, rng)
    for _ in range(rng.integers(1, 3)):
        angle = rng.normal(0, 0.9)
        reach, far = radius * rng.uniform(0.6, 1.05), radius * 1.8
        tip = (reach * np.cos(angle), reach * np.sin(angle), far * np.cos(angle + 0.15), far * np.sin(angle + 0.15))
        body = cut(body, capsule(x, y, tip, radius * rng.uniform(0.1, 0.4)), 2.2)
    return body


def band_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """A sausage bent to a C, U or S, of even width."""
    return _chain(x, y, radius, (rng.uniform(2.6, 4.0), 9, 0.34, 0.3), rng)


def segmented_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """Three to five lobes on a chain, connected by strands."""
    lobes = int(rng.choice((3, 4, 5), p=(0.5, 0.38, 0.12)))
    return _chain(x, y, radius, (rng.uniform(3.4, 4.6), lobes, 0.62 - 0.055 * lobes, 0.09), rng)


def bilobed_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """Two round lobes with a strand, as in an eosinophil."""
    return _chain(x, y, radius, (rng.uniform(1.6, 2.5), 2, 0.52, 0.13), rng)


def lumpy_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """Broad lobes that run into each other, as in a basophil."""
    return _chain(x, y, radius, (rng.uniform(2.5, 4.0), 3, 0.55, 0.4), rng)


def smudged_nucleus(x: Field, y: Field, radius: float, rng: np.random.Generator) -> Field:
    """A crushed nucleus without a border of its own."""
    frayed = noise(8.0, rng) * np.float32(0.8) + noise(3.2, rng) * np.float32(0.12)
    return np.asarray(blob(x, y, radius, 0.1, rng) + frayed)


def _bean(x: Field, y: Field, width: float, bend: float, rng: np.random.Generator) -> Field:
    """A thick short arc whose hollow side looks to +x."""
    body = disc(x, y, (-0.35 * bend, 0), width)
    for side in (-1, 1):
        end = (0.25 * bend, side * bend * rng.uniform(0.75, 1.0))
        body = join(body, capsule(x, y, (-0.35 * bend, 0, *end), width * rng.uniform(0.72, 0.9)), width)
    return body


def _chain(x: Field, y: Field, radius: float, form: tuple[float, int, float, float], rng: np.random.Generator) -> Field:
    """Lobes on an arc open to +x: ``form`` is the arc's angle, the lobes, and the size of lobes and strands."""
    angle, lobes, size, strand = form
    places = np.linspace(-0.5, 0.5, lobes) * angle + np.pi + rng.normal(0, 0.5 / lobes, lobes)
    reach = radius * 0.72 * (1 + rng.normal(0, 0.35 / lobes, lobes))
    px, py = reach * np.cos(places), reach * np.sin(places)
    body = np.full_like(x, MICRONS)
    for i in range(lobes):
        lean = places[i] + np.pi / 2 + rng.normal(0, 0.5)
        along, across = radius * rng.uniform(0.04, 0.22) * np.array((np.cos(lean), np.sin(lean)))
        tips = (px[i] - along, py[i] - across, px[i] + along, py[i] + across)
        lobe = capsule(x, y, tips, radius * size * rng.uniform(0.8, 1.15))
        body = join(body, lobe, 0.7)
        if i:
            ends = (px[i - 1], py[i - 1], px[i], py[i])
            body = join(body, capsule(x, y, ends, radius * strand), 0.6)
    return body


NUCLEI: dict[str, Shape] = {
    "round": round_nucleus,
    "notched": notched_nucleus,
    "kidney": kidney_nucleus,
    "folded": folded_nucleus,
    "band": band_nucleus,
    "segmented": segmented_nucleus,
    "bilobed": bilobed_nucleus,
    "lumpy": lumpy_nucleus,
    "smudged": smudged_nucleus,
}
"""Nuclei by shape; those that are not round open to +x, where the cytoplasm is wide."""


def stamp(x: npt.NDArray[Any], y: npt.NDArray[Any], radii: npt.NDArray[Any], depths: npt.NDArray[Any]) -> Field:
    """Coverage of many small discs: centres and radii in µm, depths from 0 to 1; where two meet, the deeper."""
    half = int(np.ceil(float(radii.max(initial=0)) / PIXEL)) + 2
    side = PIXELS + 2 * half
    offset = np.arange(-half, half + 1)
    column, row = (np.clip(v / PIXEL + (PIXELS - 1) / 2, 0, PIXELS - 1) for v in (x, y))
    near_column, near_row = np.rint(column).astype(np.intp), np.rint(row).astype(np.intp)
    dx = (offset[None, None, :] + (near_column - column)[:, None, None]).astype(np.float32)
    dy = (offset[None, :, None] + (near_row - row)[:, None, None]).astype(np.float32)
    distance = np.hypot(dx, dy) * np.float32(PIXEL) - radii.astype(np.float32)[:, None, None]
    values = cover(distance, 0.3) * depths.astype(np.float32)[:, None, None]
    index = (near_row[:, None, None] + half + offset[None, :, None]) * side
    index = index + near_column[:, None, None] + half + offset[None, None, :]
    canvas = np.zeros(side * side, dtype=np.float32)
    np.maximum.at(canvas, index.ravel(), values.ravel())
    return canvas.reshape(side, side)[half:-half, half:-half]
