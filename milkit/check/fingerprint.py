"""Images that look the same though their files differ: 256 bits an image, and the pairs that differ in few of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

BITS = 256
NEAR = 48
"""Bits of 256 in which two copies of one picture differ at most.

Measured: the same picture encoded anew (quality 30 and above), at 0.8 or half its size, or a tenth brighter differs
in 12 bits or less, and all of 413 were found; cropped by 2 % it differs in 32 to 52, and 79 to 100 % were found;
cropped by 5 % or mirrored it is not found. 96 images of Acevedo and their reduced versions differ in 6 or less. Of the
99.6 million pairs of different files within Acevedo and within lymphocytosis the nearest is one cell that was
photographed twice, at 38, and the next are different cells, at 66. The pairs that are near within BCCD (one) and Aslan
(ten) are all one cell photographed twice.
"""

Fingerprints = npt.NDArray[np.uint64]
"""(n, 4): 256 bits an image."""

_SIDE = 32
_LOW = 16
_BANDS, _BAND_BITS = 4, 16
_CHUNK = 1_000_000
"""Candidate pairs that are compared at a time; about 100 bytes each."""
_MOST_PAIRS = 50
"""Pairs an image, on average, above which fingerprints say nothing: the images have the same mask or frame."""

_COSINES = np.cos(np.pi * (2 * np.arange(_SIDE) + 1) * np.arange(_LOW)[:, None] / (2 * _SIDE)).astype(np.float32)


def fingerprint(grey: Image.Image) -> npt.NDArray[np.uint8]:
    """(32,) bytes: which of the 16 x 16 lowest terms of the cosine transform exceed their median.

    The transform is of the picture at 32 x 32 pixels. Its mean is no part of the median, so that brightness plays no
    role. The hash is known as pHash (Zauner 2010, Implementation and benchmarking of perceptual image hash functions),
    here with 256 bits instead of 64: at 64 bits copies that were cropped and cells that differ overlap.
    """
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float32)
    terms = (_COSINES @ small @ _COSINES.T).ravel()
    return np.packbits(terms > np.median(terms[1:]))


def near_pairs(prints: Fingerprints, others: Fingerprints | None = None) -> npt.NDArray[np.int64] | None:
    """Pairs of images whose fingerprints differ in at most ``NEAR`` bits, without comparing all with all.

    Multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012): 64 bits, of the lowest frequencies that are evenly spread
    over cells (a term that is even in both directions says only that a cell is round and in the middle), are cut into
    4 bands; a pair is compared where one band differs in at most one bit. All pairs that differ in at most 7 of the 64
    are found; of those further apart some may be missed.

    Args:
        prints: (n, 4).
        others: (m, 4); without them, pairs within ``prints``.

    Returns:
        (pairs, 3): row of ``prints``, row of ``others`` (or a later row of ``prints``), bits that differ. None where
        so many are near that the fingerprints tell nothing apart.
    """
    within = others is None
    others = prints if others is None else others
    left, right = _bands(prints), _bands(others)
    most = _MOST_PAIRS * max(len(prints), len(others))
    found, parts, held = np.empty((0, 3), dtype=np.int64), list[npt.NDArray[np.int64]](), 0
    for band in range(_BANDS):
        order = np.argsort(right[:, band], kind="stable")
        counts = np.bincount(right[:, band], minlength=1 << _BAND_BITS)
        first = np.cumsum(counts) - counts
        for flipped in (0, *(1 << bit for bit in range(_BAND_BITS))):
            wanted = left[:, band] ^ np.uint16(flipped)
            for i, position in _expand(first[wanted], counts[wanted]):
                j = order[position]
                if within:
                    later = i < j
                    i, j = i[later], j[later]
                apart = np.bitwise_count(prints[i] ^ others[j]).sum(axis=1, dtype=np.int64)
                near = apart <= NEAR
                parts.append(np.stack([i[near], j[near], apart[near]], axis=1))
                held += len(parts[-1])
                if held > most:  # many bands find the same pair; what is new decides
                    found, parts, held = np.unique(np.concatenate([found, *parts]), axis=0), [], 0
                    if len(found) > most:
                        return None
    return np.unique(np.concatenate([found, *parts]), axis=0)


def _bands(prints: Fingerprints) -> npt.NDArray[np.uint16]:
    """(n, 4): the bits that are looked up, 16 a band; neighbouring frequencies go to different bands."""
    bits = np.unpackbits(np.ascontiguousarray(prints).view(np.uint8), axis=1)
    spread = np.packbits(bits[:, _stable_bits()], axis=1)
    return np.ascontiguousarray(spread).view(np.uint16)


def _stable_bits() -> npt.NDArray[np.int64]:
    down, across = np.divmod(np.arange(BITS), _LOW)
    odd = np.flatnonzero((down % 2 == 1) | (across % 2 == 1))
    lowest = odd[np.argsort((down + across)[odd], kind="stable")][: _BANDS * _BAND_BITS]
    bands: npt.NDArray[np.int64] = lowest.reshape(_BAND_BITS, _BANDS).T.ravel()
    return bands


def _expand(first: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """For each query its bucket ``first .. first + count``, as (query, position in the sorted order), in chunks."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        part = counts[start:stop]
        queries = np.repeat(np.arange(start, stop), part)
        offsets = np.arange(len(queries)) - np.repeat(np.cumsum(part) - part, part)
        yield queries, np.repeat(first[start:stop], part) + offsets
        start = stop
