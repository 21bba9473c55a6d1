"""Texture of a cell's regions: grain at several scales, granules, rods, local patterns, co-occurrence."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from encoders.cell_measures import Features, colour_channels, ranked
from encoders.cell_regions import Array, CellRegions, Mask

_SCALES = (0.8, 1.6, 3.2)
"""Standard deviations of the Gaussians, in pixels; the bands of the grain lie between them."""

_SPOT = 0.04
"""Optical density by which a granule stands out from its surroundings at least; a vacuole likewise."""

_LEVELS = 8
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def texture_features(regions: CellRegions) -> Features:
    """All textures of nucleus and cytoplasm, measured on the part of the image around the cell."""
    part = regions.cropped(margin=6)
    grey: Array = part.density.mean(axis=0)
    fine, middle, coarse = (ndimage.gaussian_filter(part.density, (0, s, s), truncate=3) for s in _SCALES)
    bands = [a.mean(axis=0) for a in (part.density - fine, fine - middle, middle - coarse)]
    inside = ndimage.binary_erosion(part.cell, iterations=2) & ~ndimage.binary_dilation(part.nucleus, iterations=2)
    features: Features = {}
    patterns, levels = _local_patterns(fine.mean(axis=0)), _quantised(grey, part.cell)
    for region, mask in (("nucleus", part.nucleus), ("cytoplasm", part.cytoplasm)):
        features |= _grain(bands, mask, region)
        shares = np.bincount(patterns[mask], minlength=10) / max(int(mask.sum()), 1)
        features |= {f"{region}_pattern{i}": share for i, share in enumerate(shares)}
        for distance in (1, 3):
            features |= _co_occurrence(levels, mask, distance, f"{region}_pairs{distance}")
    spots, lines = colour_channels(fine - coarse), colour_channels(middle)
    for name in ("green", "pink", "blue"):
        features |= _spots(spots[name], inside, f"granules_{name}")
    features |= _spots(-spots["green"], inside, "vacuoles")
    for name in ("green", "pink"):
        features |= _rods(lines[name], inside, f"rods_{name}")
    return features


def _grain(bands: list[Array], mask: Mask, name: str) -> Features:
    """Energy of each band of scales, and its lean to the dark (positive) or the pale."""
    features: Features = {}
    for i, band in enumerate(bands):
        values = band[mask] if mask.any() else np.zeros(1, dtype=np.float32)
        square = values * values
        energy = float(np.sqrt(square.mean()))
        features[f"{name}_grain{i}"] = np.log1p(20 * energy)
        features[f"{name}_lean{i}"] = float(np.cbrt((square * values).mean())) / max(energy, 0.005)
    return features


def _spots(response: Array, mask: Mask, name: str) -> Features:
    """Spots of a granule's size: how many for the area, how strong, and the extremes of the response."""
    values = response[mask]
    peaks = response[mask & (response > _SPOT) & (response == ndimage.maximum_filter(response, 3))]
    return {
        f"{name}_count": np.log1p(100 * peaks.size / max(values.size, 1)),
        f"{name}_strength": float(peaks.mean()) if peaks.size else 0.0,
        f"{name}_p99": ranked(values, 0.99),
    }


def _rods(smooth: Array, mask: Mask, name: str) -> Features:
    """Thin dark lines in the cytoplasm, such as Auer rods: strong curvature across, little along (Frangi, 1998).

    With the Hessian's eigenvalues a <= b of the blurred density, the response is max(0, -a - 2 |b|): 0 for round spots.
    """
    down, right = np.gradient(smooth)
    (rr, rc), cc = np.gradient(down), np.gradient(right, axis=1)
    mean, swing = (rr + cc) / 2, np.sqrt(((rr - cc) / 2) ** 2 + rc**2)
    response = np.maximum(-(mean - swing) - 2 * np.abs(mean + swing), 0) * mask
    values = response[mask]
    labels, n = ndimage.label(response > 0.01, structure=np.ones((3, 3)))
    extents = [np.hypot(r.stop - r.start, c.stop - c.start) for r, c in ndimage.find_objects(labels)] if n else [0.0]
    strengths = np.bincount(labels.ravel(), response.ravel())[1:] if n else np.zeros(1)
    return {
        f"{name}_mean": 20 * float(values.mean()) if values.size else 0.0,
        f"{name}_p99": 10 * ranked(values, 0.99),
        f"{name}_max": 10 * float(values.max(initial=0)),
        f"{name}_longest": np.log1p(max(extents)),
        f"{name}_strongest": np.log1p(10 * float(strengths.max())),
        f"{name}_long_count": np.log1p(sum(extent > 7 for extent in extents)),
    }


def _local_patterns(grey: Array) -> npt.NDArray[np.uint8]:
    """Rotation-invariant uniform local binary patterns of the eight neighbours: 0 … 8 set bits, 9 for the others.

    Ojala et al. (2002), on a lightly blurred image, without interpolation at the corners.
    """
    padded = np.pad(grey, 1, mode="edge")
    height, width = grey.shape
    code = np.zeros(grey.shape, dtype=np.uint8)
    for bit, (down, right) in enumerate(_RING):
        neighbour = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        code |= (neighbour >= grey).astype(np.uint8) << np.uint8(bit)
    return _UNIFORM[code]


def _uniform_patterns() -> npt.NDArray[np.uint8]:
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9).astype(np.uint8)


_UNIFORM = _uniform_patterns()


def _quantised(grey: Array, cell: Mask) -> npt.NDArray[np.intp]:
    """Density in 8 levels between 0 and the cell's 99th percentile."""
    top = max(ranked(grey[cell], 0.99), 0.05)
    levels: npt.NDArray[np.intp] = np.minimum(grey * (_LEVELS / top), _LEVELS - 1).astype(np.intp)
    return levels


def _co_occurrence(levels: npt.NDArray[np.intp], mask: Mask, distance: int, name: str) -> Features:
    """Haralick's contrast, homogeneity, energy and correlation (1973) of neighbours within a region."""
    d = distance
    below, beside = mask[:-d] & mask[d:], mask[:, :-d] & mask[:, d:]
    first = np.concatenate([levels[:-d][below], levels[:, :-d][beside]])
    second = np.concatenate([levels[d:][below], levels[:, d:][beside]])
    if not first.size:
        return dict.fromkeys((f"{name}_{what}" for what in ("contrast", "homogeneity", "energy", "correlation")), 0.0)
    counts = np.bincount(first * _LEVELS + second, minlength=_LEVELS**2).reshape(_LEVELS, _LEVELS)
    share = (counts + counts.T) / (2 * first.size)
    i, j = np.ogrid[:_LEVELS, :_LEVELS]
    mean = float((share * i).sum())
    variance = float((share * (i - mean) ** 2).sum())
    return {
        f"{name}_contrast": np.log1p((share * (i - j) ** 2).sum()),
        f"{name}_homogeneity": (share / (1 + (i - j) ** 2)).sum(),
        f"{name}_energy": np.sqrt((share**2).sum()),
        f"{name}_correlation": (share * (i - mean) * (j - mean)).sum() / variance if variance > 1e-9 else 1.0,
    }
