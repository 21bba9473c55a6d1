"""Draws one white blood cell among red cells, as a 40x scanner sees a Pappenheim-stained smear.

Layers are painted as optical density and turned into light once at the end, so that overlaps darken as they do under a
microscope; then come the optics (vignetting, focus) and the camera (noise). The kinds are described in ``cell_kinds``.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from cohorts import cell_kinds
from cohorts.cell_kinds import KINDS, Dye, Granules, Kind
from cohorts.cell_shapes import MICRONS, NUCLEI, PIXEL, Field, blob, cover, grid, noise, stamp
from milkit.images import RgbImage


@dataclass(frozen=True, slots=True)
class Stain:
    """What the cells of one smear have in common.

    Attributes:
        background: Light that passes beside the cells: red, green, blue, 0 to 255.
        azure: Depth of the blue-violet dye, 1 being usual.
        eosin: Depth of the pink dye, 1 being usual.
        hue: Shift of all dyes towards blue (positive) or red.
        blur: Focus, as the spread of a Gaussian in px.
        noise: Spread of the camera's noise, in grey levels.
        red_cells: Red cells in a field on average (leukaemic blood has fewer).
    """

    background: tuple[float, float, float]
    azure: float
    eosin: float
    hue: float
    blur: float
    noise: float
    red_cells: float

    def density(self, dye: Dye) -> Field:
        """The optical density (3, 1, 1) of a dye at full depth in this smear."""
        depth = self.azure * (1 - dye.eosin) + self.eosin * dye.eosin
        shift = (1 + self.hue, 1.0, 1 - self.hue)
        values = [value * depth * by for value, by in zip(dye[:3], shift, strict=True)]
        return np.array(values, dtype=np.float32)[:, None, None]


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draw the stain of one smear."""
    light = rng.normal(0, 4)
    warmth = rng.normal(0, 3)
    return Stain(
        background=(237 + light + warmth, 230 + light, 214 + light - 1.6 * warmth),
        azure=float(np.clip(rng.normal(1, 0.11), 0.75, 1.3)),
        eosin=float(np.clip(rng.normal(1, 0.14), 0.65, 1.4)),
        hue=float(np.clip(rng.normal(0, 0.05), -0.12, 0.12)),
        blur=float(np.clip(rng.gamma(3, 0.22), 0.15, 1.2)),
        noise=float(rng.uniform(0.8, 2.0)),
        red_cells=float(rng.uniform(3.5, 9)),
    )


def draw_cell(kind: str, stain: Stain, rng: np.random.Generator) -> RgbImage:
    """Draw one cell of a kind (a key of ``cell_kinds.KINDS``), centred, as an image (144, 144, 3)."""
    look = KINDS[kind]
    radius = max(rng.normal(*look.diameter), 7.5) / 2
    density = np.zeros((3, *grid()[0].shape), dtype=np.float32)
    _paint_surroundings(density, radius, stain, rng)
    _paint_cell(density, look, radius, stain, rng)
    return _expose(density, stain, rng)


def _paint(density: Field, where: Field, dye: Field) -> None:
    """Replace what lies below by a dye (3, 1, 1) or (3, H, W), as far as ``where`` (0 to 1) covers it."""
    density += where * (dye - density)


def _paint_surroundings(density: Field, radius: float, stain: Stain, rng: np.random.Generator) -> None:
    """Red cells with a central pallor, which touch the white cell at most, and now and then a platelet."""
    taken: list[tuple[float, float, float]] = [(0.0, 0.0, radius - 0.5)]
    for _ in range(min(rng.poisson(stain.red_cells), 14)):
        size = rng.normal(3.7, 0.22)
        for _ in range(8):
            cx, cy = rng.uniform(-MICRONS / 2 - 2.5, MICRONS / 2 + 2.5, 2)
            if all(np.hypot(cx - tx, cy - ty) > tr + size * 0.88 for tx, ty, tr in taken):
                taken.append((cx, cy, size * 0.88))
                _paint_red_cell(density, (cx, cy), size, stain, rng)
                break
    if rng.random() < 0.3:
        cx, cy = rng.uniform(-11, 11, 2)
        if all(np.hypot(cx - tx, cy - ty) > tr + 1.6 for tx, ty, tr in taken):
            _paint_platelet(density, (cx, cy), stain, rng)


def _window(density: Field, centre: tuple[float, float], reach: float) -> tuple[Field, Field, Field]:
    """The part of the field within ``reach`` µm of a centre: densities, and coordinates from that centre."""
    x, y = grid()
    side = x.shape[0]
    first = [int(np.clip((value - reach) / PIXEL + side / 2, 0, side)) for value in centre]
    last = [int(np.clip((value + reach) / PIXEL + side / 2 + 1, 0, side)) for value in centre]
    window = (slice(first[1], last[1]), slice(first[0], last[0]))
    return density[(slice(None), *window)], x[window] - np.float32(centre[0]), y[window] - np.float32(centre[1])


def _paint_red_cell(
    density: Field, centre: tuple[float, float], radius: float, stain: Stain, rng: np.random.Generator
) -> None:
    part, x, y = _window(density, centre, radius * 1.35)
    if not part.size:
        return
    distance = blob(x, y, radius, 0.035, rng)
    depth = np.clip(-distance / np.float32(radius), 0, 1)
    pallor = np.exp(-(((1 - depth) / np.float32(rng.uniform(0.42, 0.62))) ** 4))
    body = cover(distance, 0.4) * (
        np.float32(0.72) + np.float32(0.25) * depth - np.float32(rng.uniform(0.3, 0.8)) * pallor
    )
    body += np.float32(0.12) * cover(np.abs(distance + np.float32(0.3)) - np.float32(0.15), 0.5)
    part += body * stain.density(cell_kinds.HAEMOGLOBIN) * np.float32(rng.normal(1, 0.07))


def _paint_platelet(density: Field, centre: tuple[float, float], stain: Stain, rng: np.random.Generator) -> None:
    part, x, y = _window(density, centre, 2.4)
    if not part.size:
        return
    body = cover(blob(x, y, rng.uniform(0.8, 1.4), 0.08, rng), 0.5)
    rough = np.clip(0.55 + 0.35 * noise(1.6, rng)[: x.shape[0], : x.shape[1]], 0.1, 1.2)
    part += body * rough * stain.density(cell_kinds.NEUTROPHILIC) * np.float32(1.3)


def _paint_cell(density: Field, look: Kind, radius: float, stain: Stain, rng: np.random.Generator) -> None:
    """Cytoplasm with what lies in it, then the nucleus, then what lies over both."""
    centre = rng.normal(0, 0.35, 2)
    turn = rng.uniform(0, 2 * np.pi)
    x, y = grid()
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = x * cos + y * sin, y * cos - x * sin  # u points to where the cytoplasm is wide
    outline = blob(u, v, radius, look.unevenness, rng) + noise(8.0, rng) * np.float32(0.2)
    nuclear_radius = min(radius * rng.normal(*look.ratio), radius - 0.25)
    shift = np.float32((radius - nuclear_radius) * min(look.eccentric * rng.uniform(0.6, 1.15), 1.0))
    nucleus = NUCLEI[look.nucleus](u + shift, v, nuclear_radius, rng)
    nucleus = np.maximum(
        nucleus + noise(3.2, rng) * np.float32(0.06) + noise(8.0, rng) * np.float32(0.14), outline + np.float32(0.2)
    )
    body, core = cover(outline, 0.4), cover(nucleus, 0.4)
    if look.nucleus == "smudged":
        core = cover(nucleus, 1.6) * np.clip(0.62 + 0.09 * noise(3.2, rng) + 0.1 * noise(8.0, rng), 0.2, 0.9)
        body = cover(outline, 3.0) * np.float32(0.25)
    _paint_cytoplasm(density, look, (body, outline, nucleus, u, v), stain, rng)
    cytoplasm = body * (1 - core)
    for granules in look.granules:
        if not granules.over_nucleus:
            _paint_granules(density, granules, cytoplasm, stain, rng)
    if look.cup:
        core = core * (1 - _invagination(u + shift, v, nuclear_radius, rng))
    _paint_nucleus(density, look, (core, nucleus), stain, rng)
    for granules in look.granules:
        if granules.over_nucleus:
            _paint_granules(density, granules, body * (1 - np.float32(0.4) * core), stain, rng)
    if look.rods[1]:
        inside = np.float32(1.5 if look.bundled else 0.9)
        _paint_rods(density, look, (body, cover(outline + inside) * cover(-nucleus - 0.3)), stain, rng)


def _paint_cytoplasm(
    density: Field, look: Kind, shape: tuple[Field, Field, Field, Field, Field], stain: Stain, rng: np.random.Generator
) -> None:
    body, outline, nucleus, u, v = shape
    depth = np.float32(rng.normal(0.95, 0.1)) * (1 + np.float32(0.07) * (noise(1.6, rng) + noise(3.2, rng)))
    if look.rim:
        depth += np.float32(look.rim) * np.exp(-(((outline + 0.35) / np.float32(0.7)) ** 2))
    if look.hof:
        border = float(u[(nucleus < 0) & (np.abs(v) < 0.5)].max(initial=0))
        pale = np.exp(-(((u - np.float32(border + 0.6)) / np.float32(1.7)) ** 2) - (v / np.float32(2.3)) ** 2)
        depth *= 1 - np.float32(look.hof) * pale
    number = int(rng.integers(look.vacuoles[0], look.vacuoles[1] + 1))
    if number:
        places = _places(body * cover(-nucleus), number, rng)
        holes = stamp(*places, rng.uniform(0.2, 0.65, number), rng.uniform(0.4, 0.9, number))
        depth *= 1 - holes
    _paint(density, body, stain.density(look.cytoplasm) * depth)


def _paint_nucleus(
    density: Field, look: Kind, shape: tuple[Field, Field], stain: Stain, rng: np.random.Generator
) -> None:
    """Chromatin between fine and clumped, a darker membrane, and nucleoli."""
    core, nucleus = shape
    fine = noise(0.8, rng) * np.float32(0.6) + noise(1.6, rng) * np.float32(0.8)
    coarse = np.tanh(noise(3.2, rng) * np.float32(1.6)) + np.float32(0.35) * noise(1.6, rng)
    mixed = np.float32(0.24 * (1 - look.clumping)) * fine + np.float32(0.42 * look.clumping) * coarse
    level = np.float32(0.34 + 0.28 * look.clumping + rng.normal(0, 0.06))
    chromatin = level + mixed + np.float32(0.22) * np.exp(-(((nucleus + 0.3) / np.float32(0.35)) ** 2))
    light, dark = stain.density(cell_kinds.PARACHROMATIN), stain.density(cell_kinds.CHROMATIN)
    _paint(density, core, light + np.clip(chromatin, -0.2, 1.25) * (dark - light))
    number = int(rng.integers(look.nucleoli[0], look.nucleoli[1] + 1))
    if number:
        places = _places(cover(nucleus + np.float32(1.3)), number, rng)
        spots = stamp(*places, rng.uniform(0.55, 1.0, number), rng.uniform(0.45, 0.85, number))
        _paint(density, spots * core, stain.density(cell_kinds.NUCLEOLUS))


def _invagination(u: Field, v: Field, radius: float, rng: np.random.Generator) -> Field:
    """A pale hollow that reaches from the nucleus's border deep into it, a quarter to a half of its width."""
    angle = rng.uniform(-1.2, 1.2)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    s, t = u * cos + v * sin, v * cos - u * sin
    wide = radius * rng.uniform(0.34, 0.5)
    deep = radius * rng.uniform(0.42, 0.62)
    hollow = np.hypot((s - np.float32(radius * rng.uniform(0.55, 0.85))) * np.float32(wide / deep), t)
    edge = hollow - np.float32(wide) + noise(3.2, rng) * np.float32(0.12)
    return cover(edge, 0.9) * np.float32(rng.uniform(0.65, 0.92))


def _paint_granules(density: Field, granules: Granules, where: Field, stain: Stain, rng: np.random.Generator) -> None:
    number = int(rng.integers(granules.number[0], granules.number[1] + 1))
    if not number:
        return
    places = _places(where, number, rng)
    radii = granules.radius * rng.uniform(0.75, 1.25, number)
    spots = stamp(*places, radii, granules.depth * rng.uniform(0.6, 1.0, number))
    _paint(density, spots * np.minimum(where * 2, 1), stain.density(granules.dye))


def _paint_rods(density: Field, look: Kind, shape: tuple[Field, Field], stain: Stain, rng: np.random.Generator) -> None:
    """Auer rods: thin needles along the cell's border, or in bundles across the cytoplasm."""
    body, where = shape
    number = int(rng.integers(look.rods[0], look.rods[1] + 1))
    x, y = _places(where, number, rng)
    angles = np.arctan2(y, x) + np.pi / 2 + rng.normal(0, 0.35, number)
    if look.bundled:
        bundles = int(rng.integers(1, 4))
        of = rng.integers(0, bundles, number)
        x, y = x[of] + rng.normal(0, 0.55, number), y[of] + rng.normal(0, 0.55, number)
        angles = rng.uniform(0, np.pi, bundles)[of] + rng.normal(0, 0.22, number)
    lengths = rng.uniform(*look.rod_length, number)
    along = np.linspace(-0.5, 0.5, 15)
    px = (x[:, None] + np.cos(angles)[:, None] * lengths[:, None] * along).ravel()
    py = (y[:, None] + np.sin(angles)[:, None] * lengths[:, None] * along).ravel()
    thickness = rng.uniform(0.15, 0.23, number)[:, None] * (1 - 0.5 * (2 * np.abs(along)) ** 3)
    rods = stamp(px, py, thickness.ravel(), np.repeat(rng.uniform(0.75, 1.0, number), 15))
    _paint(density, rods * body, stain.density(cell_kinds.AUER))


def _places(where: Field, number: int, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Random places (x, y in µm) where a coverage is above one half; the centre if it nowhere is."""
    candidates = np.flatnonzero(where > 0.5)
    if not len(candidates):
        return np.zeros(number), np.zeros(number)
    chosen = rng.choice(candidates, number)
    x, y = grid()
    return x.ravel()[chosen] + rng.uniform(-0.08, 0.08, number), y.ravel()[chosen] + rng.uniform(-0.08, 0.08, number)


@lru_cache(maxsize=1)
def _vignette() -> Field:
    x, y = grid()
    return 1 - np.float32(0.03) * (x**2 + y**2) / np.float32(2 * (MICRONS / 2) ** 2)


def _expose(density: Field, stain: Stain, rng: np.random.Generator) -> RgbImage:
    """Light that passes the smear, through the optics, onto the camera."""
    light = np.exp(-density) * np.array(stain.background, dtype=np.float32)[:, None, None] * _vignette()
    sigma = float(np.hypot(0.45, stain.blur * rng.uniform(0.8, 1.2)))
    light = gaussian_filter(light, (0, sigma, sigma), truncate=3)
    light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(stain.noise)
    return np.ascontiguousarray(np.clip(light + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0))
