"""Colour and shape of a cell's regions, as numbers with names.

Colour is measured in optical density against the image's own background, shape in units of the cell or the nucleus, so
that stain, exposure and magnification matter little. A region that is empty gives zeros. Every function returns names
and values in a fixed order.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from skimage import measure

from encoders.cell_regions import Array, CellRegions, Mask

Features = dict[str, float]

_LIGHTS = ("red", "green", "violet")
_RINGS = np.array([0.25, 0.5, 0.7, 0.85, 1.0, 1.25], dtype=np.float32)
_LOBE_LEVELS = (0.4, 0.55, 0.7)
_NEAR = 4.0
"""Cytoplasm closer to the nucleus than this, in pixels, is perinuclear."""


def colour_channels(density: Array) -> dict[str, Array]:
    """What the colours are described in: three optical densities, and which light is absorbed more than which.

    ``pink`` is high where green is absorbed and red is not (eosin, azure granules), ``blue`` where red is absorbed and
    blue is not (basophilic cytoplasm, chromatin).
    """
    red, green, blue = density
    return {"red": red, "green": green, "violet": blue, "pink": green - red, "blue": red - blue}


def ranked(values: Array, share: float) -> float:
    """The value below which this share of the values lies (no interpolation); 0 where there are none."""
    if not values.size:
        return 0.0
    at = round(share * (values.size - 1))
    return float(np.partition(values, at)[at])


def colour_features(regions: CellRegions) -> Features:
    """Densities of nucleus and cytoplasm, their contrast, the background, and the profile from centre to rim."""
    part = regions.cropped(margin=0)
    channels = colour_channels(part.density)
    stacked = np.stack([channel.ravel() for channel in channels.values()])
    features: Features = {}
    means = {}
    for region, mask in (("nucleus", part.nucleus), ("cytoplasm", part.cytoplasm)):
        inside = np.flatnonzero(mask)
        values = np.sort(stacked[:, inside] if inside.size else np.zeros((len(stacked), 1)), axis=1)
        last = values.shape[1] - 1
        low, middle, high = (values[:, round(share * last)] for share in (0.1, 0.5, 0.9))
        means[region], spread = values.mean(axis=1), values.std(axis=1)
        for i, channel in enumerate(channels):
            name = f"{region}_{channel}"
            features |= {f"{name}_mean": means[region][i], f"{name}_sd": spread[i]}
            features |= {f"{name}_p10": low[i], f"{name}_p50": middle[i], f"{name}_p90": high[i]}
        total = max(float(means[region][:3].sum()), 0.05)
        features |= {f"{region}_{light}_share": means[region][i] / total for i, light in enumerate(("red", "green"))}
    contrast = means["nucleus"] - means["cytoplasm"]
    features |= {f"contrast_{channel}": contrast[i] for i, channel in enumerate(channels)}
    features |= _profile(regions)
    features |= {f"background_{light}": regions.background_colour[i] for i, light in enumerate(_LIGHTS)}
    return features


def shape_features(regions: CellRegions) -> Features:
    """Size and form of nucleus and cell, lobes, and how deeply and where the nucleus is indented or pale."""
    pixels = regions.cell.size
    nucleus, cell = int(regions.nucleus.sum()), int(regions.cell.sum())
    features: Features = {
        "nucleus_area": nucleus / pixels,
        "cell_area": cell / pixels,
        "nucleus_share": nucleus / max(cell, 1),
    }
    part = regions.cropped(margin=2)
    features |= _form(part.cell, "cell") | _form(part.nucleus, "nucleus")
    features |= _hu(part.nucleus) | _lobes(part.nucleus) | _pale(part) | _perinuclear(part)
    features["nucleus_offset"] = _offset(part)
    return features


def _profile(regions: CellRegions) -> Features:
    """Mean density in rings from the centre (0) to the cell's outline (1), just beyond, and in all the rest."""
    ring = np.searchsorted(_RINGS, regions.radius.ravel(), side="right")
    counts = np.maximum(np.bincount(ring, minlength=len(_RINGS) + 1), 1)
    features: Features = {}
    for light, density in zip(_LIGHTS, regions.density, strict=True):
        means = np.bincount(ring, density.ravel(), minlength=len(_RINGS) + 1) / counts
        features |= {f"ring{i}_{light}": mean for i, mean in enumerate(means)}
    return features


def _equivalent_radius(area: float) -> float:
    return max(float(np.sqrt(area / np.pi)), 1.0)


def _form(mask: Mask, name: str) -> Features:
    """Elongation, roughness and convexity: 0 for a disc, except solidity (1)."""
    area = int(mask.sum())
    form = dict.fromkeys((f"{name}_eccentricity", f"{name}_roughness", f"{name}_solidity", f"{name}_indentation"), 0.0)
    form[f"{name}_indented_share"] = 0.0
    rim = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    if area < 10:
        return form
    rows, columns = np.nonzero(mask)
    rows, columns = rows - rows.mean(), columns - columns.mean()
    down, right = rows @ rows / area + 1 / 12, columns @ columns / area + 1 / 12  # 1/12: the spread within a pixel
    swing = np.hypot((down - right) / 2, rows @ columns / area)
    form[f"{name}_eccentricity"] = np.sqrt(2 * swing / ((down + right) / 2 + swing))
    form[f"{name}_roughness"] = np.log(max(len(rim) ** 2 / (4 * np.pi * area), 0.1))
    try:
        hull = ConvexHull(rim)
    except QhullError:  # all pixels in one line
        return form
    depth = (-(rim @ hull.equations[:, :2].T + hull.equations[:, 2])).min(axis=1) / _equivalent_radius(area)
    form[f"{name}_solidity"] = area / (hull.volume + hull.area / 2 + 1)  # from pixel centres to pixel edges
    form[f"{name}_indentation"] = depth.max()
    form[f"{name}_indented_share"] = (depth > 0.15).mean()
    return form


def _hu(nucleus: Mask) -> Features:
    """Hu's seven invariant moments (1962), as signed logarithms of their roots, which brings them to similar sizes."""
    if nucleus.sum() < 10:
        return {f"nucleus_hu{i}": 0.0 for i in range(1, 8)}
    area, powers = nucleus.sum(), []
    for along in (nucleus.sum(axis=1), nucleus.sum(axis=0)):  # how many pixels in each row, in each column
        place = np.arange(len(along)) - along @ np.arange(len(along)) / area
        powers.append(np.vander(place, 4, increasing=True))
    central = powers[0].T @ nucleus @ powers[1]  # [p, q]: the sum of row^p column^q over the nucleus
    order = np.add.outer(np.arange(4), np.arange(4))
    moments = measure.moments_hu(central / area ** (order / 2 + 1))  # type: ignore[no-untyped-call]
    return {f"nucleus_hu{i}": np.sign(m) * np.log1p(np.sqrt(abs(m))) for i, m in enumerate(moments, start=1)}


def _lobes(nucleus: Mask) -> Features:
    """Parts that remain when the nucleus is worn off from its rim, to a share of its greatest thickness."""
    inner = ndimage.distance_transform_edt(np.pad(nucleus, 1))
    thickest = float(inner.max())
    features = {"nucleus_parts": float(ndimage.label(nucleus)[1])}
    for level in _LOBE_LEVELS:
        labels, n = ndimage.label(inner > level * thickest) if thickest else (inner, 0)
        sizes = np.bincount(labels.ravel().astype(np.intp), minlength=n + 1)[1:]
        features[f"nucleus_lobes{round(100 * level)}"] = float((sizes > 4).sum())
    features["nucleus_thickness"] = thickest / _equivalent_radius(nucleus.sum())
    return features


def _pale(part: CellRegions) -> Features:
    """Pale ground inside the nucleus: a cup seen from above, a fold, large nucleoli."""
    values = part.density[0][part.nucleus]
    middle = ranked(values, 0.5)
    features: Features = {}
    for level in (0.6, 0.8):
        pale = part.nucleus & (part.density[0] < level * middle)
        labels, _ = ndimage.label(pale)
        largest = int(np.bincount(labels.ravel())[1:].max(initial=0))
        name = f"nucleus_pale{round(100 * level)}"
        features |= {name: pale.sum() / max(values.size, 1), f"{name}_largest": largest / max(values.size, 1)}
    return features


def _perinuclear(part: CellRegions) -> Features:
    """Density of the cytoplasm beside the nucleus minus that of the rest: a pale or a salmon hof, and its place."""
    cytoplasm = part.cytoplasm
    near: npt.NDArray[np.bool_] = ndimage.binary_dilation(part.nucleus, iterations=int(_NEAR))
    features: Features = {}
    for light, density in zip(_LIGHTS, part.density, strict=True):
        beside, away = density[cytoplasm & near], density[cytoplasm & ~near]
        features[f"perinuclear_{light}"] = beside.mean() - away.mean() if beside.size and away.size else 0.0
    return features


def _offset(part: CellRegions) -> float:
    if not part.nucleus.any():
        return 0.0
    apart = np.argwhere(part.nucleus).mean(axis=0) - np.argwhere(part.cell).mean(axis=0)
    return float(np.hypot(*apart)) / _equivalent_radius(part.cell.sum())
