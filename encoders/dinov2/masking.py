"""Which patches are hidden from the student: rectangles, as in BEiT (Bao et al., arXiv:2106.08254, algorithm 1).

Hidden patches that lie together cannot be guessed from their neighbours. Letters: n crops that have hidden patches, on
a grid of g x g patches.
"""

import math

import numpy as np
import numpy.typing as npt

SMALLEST = 4
"""Patches of the smallest block."""

LARGEST = 0.5
"""Share of the grid that the largest block covers."""

ASPECT = 1 / 0.3
"""Most that a block is higher than wide, or wider than high; the logarithm of the ratio is uniform."""

TRIES = 10
"""Draws of a block, of which the first one is taken that hides something and not too much."""

Masks = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


def block_masks(
    source: np.random.Generator,
    n_crops: int,
    grid: int,
    probability: float = 0.5,
    ratio: tuple[float, float] = (0.1, 0.5),
) -> Masks:
    """True where a patch is hidden: (n_crops, grid²), each row from the top left.

    Exactly ``int(n_crops * probability)`` crops, in random places, have hidden patches. Their shares of the patches are
    drawn from as many equal parts of ``ratio``, one from each, so that every batch has small masks and large ones; and
    each hides exactly ``int(grid² * share)``. Where blocks fit no more, the published code stops short of that; here
    single patches beside the mask fill it up. With the default ratio 3 % of the masks need one on a grid of 5 x 5, 4 %
    on 8 x 8 and 7 % on 16 x 16, and about one in a thousand needs two.

    Args:
        source: Of the random numbers; the same state gives the same masks.
        n_crops: Of all processes.
        grid: Patches on a side.
        probability: Share of the crops that have hidden patches.
        ratio: Least and largest share of the patches of such a crop that are hidden.
    """
    n = int(n_crops * probability)
    edges = np.linspace(*ratio, n + 1)
    wanted = (grid**2 * source.uniform(edges[:-1], edges[1:])).astype(np.int64)
    masks = np.zeros((n_crops, grid, grid), dtype=np.bool_)
    _add_blocks(source, masks[:n], wanted)
    _add_patches(source, masks[:n], wanted)
    return source.permutation(masks.reshape(n_crops, -1))


def _add_blocks(source: np.random.Generator, masks: Masks, wanted: Counts) -> None:
    """Hide blocks in (n, g, g) masks, one try in every unfinished one at a time, until none fits any more."""
    grid = masks.shape[-1]
    lines = np.arange(grid)
    left, tries = wanted.copy(), np.zeros_like(wanted)
    while (unfinished := np.flatnonzero((left > 0) & (tries < TRIES))).size:
        area, aspect, down, along = source.random((4, len(unfinished), 1))
        most = np.minimum(left[unfinished, None], LARGEST * grid**2)
        area = SMALLEST + area * (most - SMALLEST)
        aspect = np.exp((2 * aspect - 1) * math.log(ASPECT))
        height, width = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        top, start = np.floor(down * (grid - height + 1)), np.floor(along * (grid - width + 1))
        rows = (top <= lines) & (lines < top + height)
        columns = (start <= lines) & (lines < start + width)
        fresh = rows[:, :, None] & columns[:, None, :] & ~masks[unfinished]
        gain = fresh.sum(axis=(1, 2))
        taken = (height < grid)[:, 0] & (width < grid)[:, 0] & (gain > 0) & (gain <= left[unfinished])
        masks[unfinished[taken]] |= fresh[taken]
        left[unfinished[taken]] -= gain[taken]
        tries[unfinished] = np.where(taken, 0, tries[unfinished] + 1)


def _add_patches(source: np.random.Generator, masks: Masks, wanted: Counts) -> None:
    """Hide single patches in (n, g, g) masks, beside hidden ones where there are some, until each has enough."""
    while (short := np.flatnonzero(masks.sum(axis=(1, 2)) < wanted)).size:
        hidden = masks[short]
        framed = np.pad(hidden, ((0, 0), (1, 1), (1, 1)))
        beside = framed[:, 2:, 1:-1] | framed[:, :-2, 1:-1] | framed[:, 1:-1, 2:] | framed[:, 1:-1, :-2]
        order = source.random(hidden.shape) + beside - 2.0 * hidden  # beside: from 1; alone: from 0; hidden: below 0
        first = order.reshape(len(short), -1).argmax(axis=1)
        masks[short, first // hidden.shape[-1], first % hidden.shape[-1]] = True
