"""JPEGs that decode without an error and are garbage in a part: the row of pixels where a picture breaks off."""

import numpy as np
import numpy.typing as npt

BLOCK = 8
"""Side in pixels of the blocks that a JPEG codes; damage begins and ends at their borders."""
LEAST_WIDTH = 112
"""Narrower images are not judged: a cell is so small in them that its own edges fill much of a border.

Measured, at the threshold of ``milkit.check.images.TORN``: of 3,000 sound images reduced to 96 pixels 3 are above, to
48 pixels 19; reduced to 112 and 128, none.
"""
ONE_COLOUR, WHITE, BLACK = 8.0, 250.0, 5.0
"""Grey levels: rows that vary by no more are one colour; what is white at least, and black at most."""
LARGEST_STEP = 60.0
"""Grey levels that one segment counts at most, so that one line drawn into an image is no tear across it."""


def is_jpeg(content: bytes) -> bool:
    """Whether a file's bytes begin as those of a JPEG do."""
    return content.startswith(b"\xff\xd8")


def tear(grey: npt.NDArray[np.uint8]) -> tuple[float, int]:
    """How far a picture breaks off at the worst border between rows of blocks, and the pixel row below that border.

    A JPEG is one stream from the upper left to the lower right, and each block is coded as a difference to the one
    before it. Where bits are wrong, all that follows is shifted and wrong in brightness, beginning and ending at
    borders of blocks. Optics never make an edge of one pixel's width that is straight along a whole border.

    A border is cut into segments of a block's width. The measure is the mean over them of max(0, step - around), at
    most ``LARGEST_STEP``: ``step`` is the difference of the segment's mean right below and right above the border,
    ``around`` what the rows beside them differ by: the larger of the differences next to the border, plus the larger
    of those behind them. Borders of padding do not count: rows that are all white or black, or all of the one colour
    that the first row has. (One colour at the lower end alone is what is left of a JPEG that was cut off.)

    Args:
        grey: (height, width) of the whole image as it was coded, before anything is cut out of it.

    Returns:
        Grey levels, and the row; zeros where the image is too small to be judged.
    """
    height, width = grey.shape
    below = np.arange(BLOCK, height - 1, BLOCK)
    if width < LEAST_WIDTH or not len(below):
        return 0.0, 0
    segments = width // BLOCK
    means = grey[:, : segments * BLOCK].reshape(height, segments, BLOCK).mean(axis=2, dtype=np.float32)
    steps = np.abs(np.diff(means, axis=0))  # steps[y] lies between the rows y and y + 1
    at = below - 1
    around = np.maximum(steps[at - 1], steps[at + 1])
    around += np.maximum(steps[at - 2], steps[np.minimum(at + 2, height - 2)])
    worst = np.clip(steps[at] - around, 0, LARGEST_STEP).mean(axis=1)
    padding = _padding(means)
    worst[padding[at] | padding[below]] = 0.0
    border = int(worst.argmax())
    return float(worst[border]), int(below[border])


def _padding(means: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    level, flat = means.mean(axis=1), np.ptp(means, axis=1) <= ONE_COLOUR
    pure = (level <= BLACK) | (level >= WHITE)
    as_above = flat[0] & (np.abs(level - level[0]) <= ONE_COLOUR)
    padding: npt.NDArray[np.bool_] = flat & (pure | as_above)
    return padding
