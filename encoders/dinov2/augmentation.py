"""What a crop for pre-training looks like: DinoBloom's augmentation as it really acts (arXiv:2404.05022).

The published code hands the probability of *not* blurring to a function that takes the probability of blurring, as
DINOv2 did before it; the released networks were trained that way. The numbers here are those that were in effect: crop
1 is never blurred, crop 2 nine times out of ten. Colours are changed by Pillow's own operations, as there.
"""

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps
from pydantic import AfterValidator, Field

from milkit.images import RgbImage
from milkit.settings import Settings

KERNEL = 9
"""Width of the blur in pixels; wider Gaussians are cut off."""

BAND = 56
"""Rows that are blurred at a time: few enough for the processor's cache, 1.7 times as fast at 224 pixels."""

SOLARIZE_FROM = 128
"""Values from here on are inverted by solarisation."""

TRIES = 10
"""Draws of a crop that fits into the image before the whole of it is taken."""


def _in_order(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        msg = f"the limits are {limits[0]} and {limits[1]}, expected the smaller one first"
        raise ValueError(msg)
    return limits


Interpolation = Literal["lanczos", "bicubic", "bilinear"]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ForEachCrop = tuple[Probability, Probability]
"""A probability for crop 1 and one for crop 2."""


class Augmentation(Settings):
    """How a crop is drawn from an image, in the order of the fields; the defaults are DinoBloom's `default`.

    Its variant `hema` differs by rotation 0.3, jitter with 0.3, 0.2, 0.3 and 0.15, grayscale 0.1, blur (0.9, 0.7) and
    no solarisation.
    """

    crop_scale: Annotated[tuple[Share, Share], AfterValidator(_in_order)] = (0.32, 1.0)
    """Least and largest area of a crop, as a share of the image's."""
    crop_ratio: Annotated[tuple[Positive, Positive], AfterValidator(_in_order)] = (3 / 4, 4 / 3)
    """Least and largest ratio of a crop's width to its height; its logarithm is uniform."""
    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.5
    quarter_turn: Probability = 0.5
    """Of a turn by exactly 90°, counter-clockwise."""
    rotation: Probability = 0.0
    """Of a turn by any angle; the corners become one grey level, drawn for each crop."""
    jitter: Probability = 0.8
    """Of changing brightness, contrast, saturation and hue, in an order drawn for each crop."""
    brightness: Probability = 0.4
    """The factor is uniform in 1 ± this, as are the next two."""
    contrast: Probability = 0.4
    saturation: Probability = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """The hue is turned by at most this part of the colour circle, to either side."""
    grayscale: Probability = 0.2
    blur: ForEachCrop = (0.0, 0.9)
    blur_sigma: Annotated[tuple[Positive, Positive], AfterValidator(_in_order)] = (0.1, 2.0)
    """Least and largest standard deviation of the blur, in pixels of the finished crop."""
    solarize: ForEachCrop = (0.0, 0.2)


MILD = Augmentation(
    crop_scale=(0.6, 1.0),
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.02,
    grayscale=0.0,
    blur=(0.0, 0.0),
    solarize=(0.0, 0.0),
)
"""For the view that a label is learned from: colour and size tell classes apart, and are nearly kept."""


def square(image: RgbImage, size: int, interpolation: Interpolation = "lanczos") -> RgbImage:
    """The whole image as a square (size, size, 3), as published: its aspect ratio is not kept."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling[interpolation.upper()]))


def crop(image: RgbImage, settings: Augmentation, which: int, source: np.random.Generator, size: int) -> RgbImage:
    """One random crop: (height, width, 3) -> (size, size, 3).

    It is cut and resized in one step, so that at its edges the bicubic filter also sees what lies up to two pixels
    beyond them in the image, or more where it shrinks; the published code cuts first.

    Args:
        image: The image, 8-bit RGB.
        settings: The probabilities and strengths.
        which: 0 for crop 1, 1 for crop 2, which are blurred and solarised with probabilities of their own.
        source: All that is random comes from it.
        size: Side of the crop in pixels; at least 5, half the blur's kernel.
    """
    picture = Image.fromarray(image)
    box = _region(picture.width, picture.height, settings, source)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    picture = _turned(picture, settings, source)
    if _happens(settings.jitter, source):
        picture = _jittered(picture, settings, source)
    if _happens(settings.grayscale, source):
        picture = picture.convert("L").convert("RGB")
    if _happens(settings.blur[which], source):
        picture = Image.fromarray(blur(np.asarray(picture), source.uniform(*settings.blur_sigma)))
    if _happens(settings.solarize[which], source):
        picture = ImageOps.solarize(picture, SOLARIZE_FROM)
    return np.asarray(picture)


def blur(image: RgbImage, sigma: float) -> RgbImage:
    """The image under a Gaussian of ``sigma`` pixels, cut off at ``KERNEL`` and mirrored at the border.

    Pillow's own blur is an approximation by boxes.
    """
    half = KERNEL // 2
    gaussian = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    weights = (gaussian / gaussian.sum()).tolist()
    height, width = image.shape[:2]
    padded = image[_mirrored(height, half)][:, _mirrored(width, half)]
    blurred = np.empty_like(image)
    for top in range(0, height, BAND):
        rows = min(BAND, height - top)
        band = padded[top : top + rows + 2 * half].astype(np.float32)
        down = _weighted([band[k : k + rows] for k in range(KERNEL)], weights)
        both = _weighted([down[:, k : k + width] for k in range(KERNEL)], weights)
        blurred[top : top + rows] = both + np.float32(0.5)  # cut off, so rounded; a mean of 0..255 stays there
    return blurred


def _happens(probability: float, source: np.random.Generator) -> bool:
    return source.random() < probability


def _region(width: int, height: int, settings: Augmentation, source: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part of the image."""
    least, largest = settings.crop_ratio
    for _ in range(TRIES):
        area = width * height * source.uniform(*settings.crop_scale)
        ratio = math.exp(source.uniform(math.log(least), math.log(largest)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(source.integers(width - w + 1)), int(source.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, least), largest)  # the largest part in the middle whose ratio is allowed
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _turned(picture: Image.Image, settings: Augmentation, source: np.random.Generator) -> Image.Image:
    for probability, turn in (
        (settings.horizontal_flip, Image.Transpose.FLIP_LEFT_RIGHT),
        (settings.vertical_flip, Image.Transpose.FLIP_TOP_BOTTOM),
        (settings.quarter_turn, Image.Transpose.ROTATE_90),
    ):
        if _happens(probability, source):
            picture = picture.transpose(turn)
    if _happens(settings.rotation, source):
        angle, grey = source.uniform(0, 360), int(source.integers(256))
        picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=(grey, grey, grey))
    return picture


def _jittered(picture: Image.Image, settings: Augmentation, source: np.random.Generator) -> Image.Image:
    strengths = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    changes = source.uniform(-1, 1, size=4) * strengths
    for number in source.permutation(4).tolist():
        change = float(changes[number])
        picture = turn_hue(picture, change) if number == 3 else _ENHANCERS[number](picture).enhance(1 + change)
    return picture


_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def turn_hue(picture: Image.Image, change: float) -> Image.Image:
    """All hues turned by ``change`` of the colour circle, to the nearest of Pillow's 255 steps."""
    return picture.convert("HSV").point(_hue_table(round(change * 255))).convert("RGB")


@functools.cache
def _hue_table(steps: int) -> Sequence[int]:
    """New value by old one for the three bands; Pillow's hues 0 and 255 are the same red."""
    return [*((hue + steps) % 255 for hue in range(256)), *range(256), *range(256)]


def _mirrored(length: int, beyond: int) -> npt.NDArray[np.int64]:
    """Rows of an image mirrored at its first and last one, which are not repeated."""
    rows = np.abs(np.arange(-beyond, length + beyond))
    return np.asarray(length - 1 - np.abs(length - 1 - rows))


def _weighted(shifted: Sequence[npt.NDArray[np.float32]], weights: Sequence[float]) -> npt.NDArray[np.float32]:
    """Σ weights[k] · shifted[k], for weights that are the same from both ends."""
    middle = len(shifted) // 2
    total = shifted[middle] * np.float32(weights[middle])
    for k in range(middle):
        pair = shifted[k] + shifted[-1 - k]
        pair *= np.float32(weights[k])
        total += pair
    return total
